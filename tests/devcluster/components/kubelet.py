"""The kubelet: one node, in cgroups of its own, quick to refresh ConfigMap volumes."""

import json
from pathlib import Path

from devcluster.cache import binary
from devcluster.components import containerd
from devcluster.components.apiserver import write_kubeconfig
from devcluster.daemons import Daemon
from devcluster.host import CGROUP
from devcluster.layout import CLUSTER_DOMAIN, DNS_SERVICE_ADDRESS, NODE_NAME, Layout
from devcluster.pki import Authority, Certificate

NAME = "kubelet"
USER = f"system:node:{NODE_NAME}"
GROUP = "system:nodes"


def root(layout: Layout) -> Path:
    """Pods' volumes: full of mounts while pods run."""
    return layout.state / "kubelet"


def daemon(layout: Layout, authority: Authority) -> Daemon:
    """Renders the configuration and returns the command that reads it."""
    client = write_kubeconfig(NAME, USER, (GROUP,), layout, authority)
    served = authority.issue("kubelet-server", USER, (GROUP,), hosts=(NODE_NAME, layout.address))
    resolv = layout.config / "resolv.conf"
    resolv.write_text("options timeout:1\n")
    path = layout.config / "kubelet.json"
    path.write_text(json.dumps(configuration(layout, authority, served, resolv), indent=1))
    words = (
        str(binary(NAME)),
        f"--config={path}",
        f"--kubeconfig={client}",
        f"--root-dir={root(layout)}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={layout.address}",
        f"--cert-dir={layout.state / 'serving'}",
    )
    return Daemon(NAME, words)


def configuration(layout: Layout, authority: Authority, served: Certificate, resolv: Path) -> dict[str, object]:
    """The kubelet's configuration file; nothing is reserved, images are never collected, swap is tolerated."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(served.certificate),
        "tlsPrivateKeyFile": str(served.key),
        "containerRuntimeEndpoint": f"unix://{containerd.socket(layout)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(resolv),
        "podLogsDir": str(layout.state / "pod-logs"),
        "volumePluginDir": str(layout.state / "volume-plugins"),
        "syncFrequency": "5s",
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "maxPods": 60,
        "serializeImagePulls": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "healthzBindAddress": "127.0.0.1",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }
