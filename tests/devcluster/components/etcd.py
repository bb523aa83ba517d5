"""etcd: the API server's store. Without fsync, for a cluster that is made anew rather than recovered."""

from devcluster.cache import binary
from devcluster.daemons import Daemon
from devcluster.layout import Layout
from devcluster.pki import Authority

NAME = "etcd"


def daemon(layout: Layout, authority: Authority) -> Daemon:
    """etcd with mutual TLS on loopback; no one but the API server holds a certificate that it asks for."""
    served = authority.issue(NAME, NAME, hosts=("localhost", "127.0.0.1"))
    peers = f"https://127.0.0.1:{layout.etcd_peer_port}"
    return Daemon(
        NAME,
        (
            str(binary(NAME)),
            f"--data-dir={layout.state / 'etcd'}",
            f"--listen-client-urls={layout.etcd_url}",
            f"--advertise-client-urls={layout.etcd_url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            f"--cert-file={served.certificate}",
            f"--key-file={served.key}",
            f"--peer-cert-file={served.certificate}",
            f"--peer-key-file={served.key}",
            f"--trusted-ca-file={authority.certificate}",
            f"--peer-trusted-ca-file={authority.certificate}",
            "--client-cert-auth",
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--quota-backend-bytes=2147483648",
        ),
    )
