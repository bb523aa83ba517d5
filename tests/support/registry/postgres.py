"""A real PostgreSQL for the tests: servers of our own in scratch folders, each on a Unix socket and a loopback port."""

import os
import pwd
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from devcluster import packages
from devcluster.pki import Certificate
from devcluster.steps import Steps
from support.ports import free_port
from support.scratch import make_scratch_folder
from support.waiting import DEADLINE_SECONDS, wait_until

PASSWORD = "s3cret-of-the-test"
_SETTINGS = {
    "fsync": "off",  # Nothing here loses power; processes are killed, which fsync has no part in.
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "max_connections": "60",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "shared_buffers": "16MB",
}


class Cluster:
    """The files of a server before its first start, in PostgreSQL's words a cluster; a server copies them."""

    def __init__(self) -> None:
        packages.install(Steps(1), packages.POSTGRESQL)
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        assert found, "the package postgresql is installed and /usr/lib/postgresql/*/bin/postgres is not there"
        self.postgres = found[-1]
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        """PostgreSQL refuses to run as root, so its processes are those of the package's user."""
        self._folder = self.make_folder()
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb: list[str | Path] = [
            self.postgres.with_name("initdb"),
            f"--pgdata={self.data}",
            "--no-sync",
            "--username=admin",
        ]
        more = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C.UTF-8"]
        done = subprocess.run([*initdb, *more], capture_output=True, text=True, check=False, **self.as_user())
        assert done.returncode == 0, done.stderr

    @property
    def data(self) -> Path:
        """What initdb made."""
        return self._folder / "data"

    def make_folder(self) -> Path:
        """Return a new folder of the server's user."""
        folder = make_scratch_folder("r1plus-postgres-")
        if self.user:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        return folder

    def as_user(self) -> dict[str, Any]:
        """Return how subprocess starts a program as that user."""
        return {"user": self.user.pw_uid, "group": self.user.pw_gid} if self.user else {}

    def close(self) -> None:
        """Remove the files; no server needs them any more."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Postgres:
    """One server."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.folder = cluster.make_folder()
        self.port = free_port()
        self._process: subprocess.Popen[Any] | None = None
        copied = subprocess.run(["cp", "-a", cluster.data, self.folder], capture_output=True, text=True, check=False)
        assert copied.returncode == 0, copied.stderr

    @property
    def data(self) -> Path:
        """The server's own folder."""
        return self.folder / "data"

    def program(self, name: str) -> Path:
        """One of the package's programs."""
        return self._cluster.postgres.with_name(name)

    def dsn(self, database: str = "postgres", password: str = PASSWORD, port: int | None = None) -> str:
        """As the registry is given it."""
        return f"postgresql://admin:{password}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        words: list[str | Path] = [
            self._cluster.postgres,
            "-D",
            self.data,
            "-p",
            str(self.port),
            "-k",
            self.folder,
            *settings,
        ]
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(words, stdout=output, stderr=output, **self._cluster.as_user())
        wait_until(self._answers, "the server answers", retry_on=(psycopg.OperationalError,), evidence=log.read_text)

    def stop(self) -> None:
        """End it at once, as a crash would; its data stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(DEADLINE_SECONDS)
        self._process = None

    def close(self) -> None:
        """End it, and its data."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def scratch(self, template: str = "template1") -> Iterator[str]:
        """Yield the DSN of a new database, a copy of the one that `template` names or is the DSN of; drop it at the end."""
        name = f"t_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template.rpartition('/')[2]}")
        try:
            yield self.dsn(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, dsn: str = "") -> list[tuple[object, ...]]:
        """One statement as the administrator."""
        with psycopg.connect(dsn or self.dsn(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def speak_tls(self, identity: Certificate) -> None:
        """With this certificate, from the next connection on."""
        for source, name in ((identity.certificate, "server.crt"), (identity.key, "server.key")):
            target = self.data / name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            if self._cluster.user:
                os.chown(target, self._cluster.user.pw_uid, self._cluster.user.pw_gid)
        self.execute("ALTER SYSTEM SET ssl = on")
        self.stop()
        self.start()

    def backends(self, dsn: str) -> list[int]:
        """Process ids of the sessions on a database."""
        where = "datname = current_database() AND pid <> pg_backend_pid()"
        return [int(str(row[0])) for row in self.execute(f"SELECT pid FROM pg_stat_activity WHERE {where}", dsn)]

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()
        psycopg.connect(self.dsn(), connect_timeout=2).close()
        return True
