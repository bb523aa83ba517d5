"""Where one cluster lies and which addresses it uses: the single value that every component's command is built from.

There are two: the whole cluster in its network namespace, and an API server alone on loopback for a test.
"""

import errno
import fcntl
import functools
import itertools
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devcluster.cache import run_dir, state_dir

NETNS = "r1plus"
NODE_NAME = "r1plus-node"
NODE_ADDRESS = "10.250.0.1"
NODE_NETWORK = "10.250.0.1/24"
POD_NETWORK = "10.244.0.0/24"
CLUSTER_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Layout:
    """Folders, network namespace (None: the caller's own) and ports of one cluster."""

    state: Path
    run: Path
    netns: str | None
    address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    controller_manager_port: int = 10257
    scheduler_port: int = 10259

    @property
    def logs(self) -> Path:
        """One file per daemon, kept until the next start so that a failure can be read afterwards."""
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        """The certificate authority and what it issued."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """Rendered configuration files of the components."""
        return self.state / "config"

    @property
    def pids(self) -> Path:
        """Recorded process ids: how a later run finds what this one started."""
        return self.run / "pids"

    @property
    def api_url(self) -> str:
        """The API server's address as the components see it."""
        return f"https://{self.address}:{self.api_port}"

    @property
    def etcd_url(self) -> str:
        """etcd's client address; only the API server talks to it."""
        return f"https://127.0.0.1:{self.etcd_port}"

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig of one component or user."""
        return self.config / f"{name}.kubeconfig"


def cluster_layout() -> Layout:
    """The whole cluster: fixed ports, for it has a network namespace to itself."""
    return Layout(
        state=state_dir(),
        run=run_dir(),
        netns=NETNS,
        address=NODE_ADDRESS,
        api_port=6443,
        etcd_port=2379,
        etcd_peer_port=2380,
    )


def loopback_layout(folder: Path) -> Layout:
    """An API server alone, in `folder`, on loopback ports that are free now."""
    api, etcd, peer, manager, scheduler = free_ports(5)
    return Layout(
        state=folder,
        run=folder / "run",
        netns=None,
        address="127.0.0.1",
        api_port=api,
        etcd_port=etcd,
        etcd_peer_port=peer,
        controller_manager_port=manager,
        scheduler_port=scheduler,
    )


def free_ports(count: int) -> list[int]:
    """Loopback ports without a listener; none comes twice in a process, nor in two while both run.

    They lie below those that the kernel gives to connections and to servers that leave the choice to it. Who is to listen
    there may come later, or go and come again: a port is this user's first process's that asked for it, until that ends.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = _FIRST_PORT + (os.getpid() * _STRETCH + next(_turns)) % _count_ports()
        if not reserve_port(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        ports.append(port)
    return ports


_FIRST_PORT, _STRETCH = 12_000, 331
_turns = itertools.count()


def reserve_port(port: int) -> bool:
    """Return whether the port is this process's now: its byte is locked in a file of this user, until the process ends."""
    try:
        fcntl.lockf(_open_reservations(os.getpid()), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


@functools.cache
def _open_reservations(_pid: int) -> int:
    """Open the file once in a process: its locks end when any descriptor of it is closed."""
    path = Path(tempfile.gettempdir()) / f"r1plus-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


@functools.cache
def _count_ports() -> int:
    """How many there are up to the first one of the kernel's; never few, wherever that lies."""
    kernels_first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return max(kernels_first - _FIRST_PORT, 10_000)
