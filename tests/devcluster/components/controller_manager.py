"""kube-controller-manager: Deployments, Services' endpoints, garbage collection, tokens of service accounts."""

from devcluster.cache import binary
from devcluster.components.apiserver import write_kubeconfig
from devcluster.daemons import Daemon
from devcluster.layout import CLUSTER_NETWORK, SERVICE_NETWORK, Layout
from devcluster.pki import Authority

NAME = "kube-controller-manager"
USER = "system:kube-controller-manager"
WITHOUT_NODES = ("node-lifecycle-controller", "endpoints-controller", "endpointslice-controller")
"""Controllers that are left out where no kubelet runs. The first would take a test's node for dead after a minute; the
others refuse pods that answer on loopback, and a Service with an empty EndpointSlice leads nowhere."""


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
            *((f"--controllers=*,{','.join(f'-{name}' for name in WITHOUT_NODES)}",) if layout.netns is None else ()),
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
