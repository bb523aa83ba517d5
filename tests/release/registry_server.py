"""The real registry (CNCF Distribution) on loopback: over TLS with a CA of its own, and with a login."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from devcluster.cache import binary
from devcluster.pki import Authority
from support.ports import free_port
from support.waiting import wait_until

USERNAME, PASSWORD = "bank", "abc"
_HTPASSWD = f"{USERNAME}:$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i\n"
"""The password's bcrypt hash, from the test vectors of bcrypt."""


@dataclass(frozen=True, slots=True)
class RegistryServer:
    """A registry that listens."""

    host: str
    """Host with port."""
    ca: Path
    """Certificate of its CA (PEM)."""


@contextmanager
def serve_registry(folder: Path, *, is_read_only: bool = False) -> Iterator[RegistryServer]:
    """Start a registry that keeps its data in `folder`, and stop it in the end."""
    port = free_port()
    authority = Authority(folder / "authority")
    authority.ensure()
    identity = authority.issue("registry", "registry", hosts=["127.0.0.1"])
    (folder / "htpasswd").write_text(_HTPASSWD)
    storage = {
        "filesystem": {"rootdirectory": str(folder / "data")},
        "maintenance": {"readonly": {"enabled": is_read_only}},
    }
    tls = {"certificate": str(identity.certificate), "key": str(identity.key)}
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": storage,
        "http": {"addr": f"127.0.0.1:{port}", "tls": tls},
        "auth": {"htpasswd": {"realm": "bank", "path": str(folder / "htpasswd")}},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [binary("registry"), "serve", file], stdout=log, stderr=log, env={"OTEL_TRACES_EXPORTER": "none"}
        )
        try:
            wait_until(
                lambda: _listens(process, port), f"the registry listens on {port}", evidence=(folder / "log").read_text
            )
            yield RegistryServer(f"127.0.0.1:{port}", authority.certificate)
        finally:
            process.kill()
            process.wait()


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    assert process.poll() is None, "the registry has ended"
    return (
        f"127.0.0.1:{port}"
        in subprocess.run(["ss", "-Hltn", f"src 127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    )
