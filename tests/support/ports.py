"""Free ports on loopback."""

from devcluster.layout import free_ports


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on, and that neither this process nor the kernel gives again."""
    return free_ports(1)[0]
