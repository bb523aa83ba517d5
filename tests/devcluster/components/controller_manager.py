"""kube-controller-manager: Deployments, Services' endpoints, garbage collection, tokens of service accounts."""

from devcluster.cache import binary
from devcluster.components.apiserver import write_kubeconfig
from devcluster.daemons import Daemon
from devcluster.layout import CLUSTER_NETWORK, SERVICE_NETWORK, Layout
from devcluster.pki import Authority

NAME = "kube-controller-manager"
USER = "system:kube-controller-manager"


def daemon(layout: Layout, authority: Authority) -> Daemon:
    """One manager, no leader election: it works from its first second, not after a lease has run out."""
    config = write_kubeconfig(NAME, USER, (), layout, authority)
    return Daemon(
        NAME,
        (
            str(binary(NAME)),
            *alone(config, layout.controller_manager_port, layout),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={authority.service_account_key}",
            f"--root-ca-file={authority.certificate}",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={CLUSTER_NETWORK}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            # A quota that is older than the manager's knowledge of a kind is counted at the next of these: five minutes.
            "--resource-quota-sync-period=5s",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
            # Alone there is no kubelet, and a test's node would be taken for dead after a minute.
            *(("--controllers=*,-node-lifecycle-controller",) if layout.netns is None else ()),
        ),
    )


def alone(config: str, port: int, layout: Layout) -> tuple[str, ...]:
    """Return the flags of a program that is the only one of its kind and serves on loopback."""
    return (
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
        f"--cert-dir={layout.state / 'serving'}",
    )
