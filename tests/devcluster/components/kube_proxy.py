"""kube-proxy in nftables mode (this kernel has no IPVS): makes Service addresses work inside the network namespace."""

import json

from devcluster.cache import binary
from devcluster.components.apiserver import write_kubeconfig
from devcluster.daemons import Daemon
from devcluster.layout import CLUSTER_NETWORK, NODE_NAME, Layout
from devcluster.pki import Authority

NAME = "kube-proxy"
USER = "system:kube-proxy"


def daemon(layout: Layout, authority: Authority) -> Daemon:
    """Renders the configuration and returns the command that reads it."""
    client = write_kubeconfig(NAME, USER, (), layout, authority)
    path = layout.config / "kube-proxy.json"
    path.write_text(json.dumps(configuration(client, layout), indent=1))
    return Daemon(NAME, (str(binary(NAME)), f"--config={path}"))


def configuration(client: str, layout: Layout) -> dict[str, object]:
    """`maxPerCore: 0` leaves the host's conntrack table as it is: that sysctl has no namespace of its own."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": client},
        "clusterCIDR": CLUSTER_NETWORK,
        "hostnameOverride": NODE_NAME,
        "bindAddress": layout.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0},
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }
