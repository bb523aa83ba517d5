"""A real PostgreSQL for the tests: a server of our own in a scratch folder, on a Unix socket and a loopback port."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from devcluster import packages
from devcluster.pki import Certificate
from devcluster.steps import Steps

DEADLINE_SECONDS = 60.0
PASSWORD = "s3cret-of-the-test"
_SETTINGS = {
    "fsync": "off",  # Nothing here loses power; processes are killed, which fsync has no part in.
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "max_connections": "60",
    "shared_buffers": "16MB",
}


def binaries() -> Path:
    """Folder with initdb and postgres; Debian's package is installed if there is none."""
    packages.install(Steps(1), packages.POSTGRESQL)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "the package postgresql is installed and /usr/lib/postgresql/*/bin/postgres is not there"
    return found[-1].parent


class Postgres:
    """One server. PostgreSQL refuses to run as root, so its processes are those of the package's user."""

    def __init__(self) -> None:
        self._bin = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="r1plus-postgres-"))
        self.port = _free_port()
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        words = [
            "--username=admin",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        self._run([self._bin / "initdb", f"--pgdata={self.data}", "--no-sync", *words])

    @property
    def data(self) -> Path:
        """The server's own folder."""
        return self.folder / "data"

    def dsn(self, database: str = "postgres", password: str = PASSWORD, port: int | None = None) -> str:
        """As the registry is given it."""
        return f"postgresql://admin:{password}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        where = ["-p", str(self.port), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, *where, *settings], stdout=log, stderr=log, **self._as_user()
            )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, as a crash would; its data stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)
        self._process = None

    def remove(self) -> None:
        """End it, and its data."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, database: str) -> str:
        """A new database; returns its DSN."""
        self.execute(f'CREATE DATABASE "{database}"')
        return self.dsn(database)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """One statement as the administrator."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def speak_tls(self, identity: Certificate) -> None:
        """With this certificate, from the next connection on."""
        for source, name in ((identity.certificate, "server.crt"), (identity.key, "server.key")):
            target = self.data / name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            if self._user:
                os.chown(target, self._user.pw_uid, self._user.pw_gid)
        self.execute("ALTER SYSTEM SET ssl = on")
        self.stop()
        self.start()

    def backends(self, database: str) -> list[int]:
        """Process ids of the sessions on a database."""
        rows = self.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")
        return [int(str(row[0])) for row in rows]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, command: list[str | Path]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user())
        assert done.returncode == 0, done.stderr

    def _as_user(self) -> dict[str, int]:
        return {"user": self._user.pw_uid, "group": self._user.pw_gid} if self._user else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
