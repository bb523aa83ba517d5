"""containerd, with all of its files in the cluster's own folders, and the bridge network for pods."""

import json
from pathlib import Path

from devcluster.daemons import Daemon
from devcluster.layout import NETNS, POD_NETWORK, Layout
from devcluster.shell import output, succeeds

NAME = "containerd"
SWEEPER = "containerd-sweep"
IMAGE_NAMESPACE = "k8s.io"
CNI_PLUGINS = "/usr/lib/cni"
CNI_NETWORK = NETNS
CRI_PLUGIN = "io.containerd.grpc.v1.cri"
UNUSED_PLUGINS = tuple(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs"))


def socket(layout: Layout) -> Path:
    """Where the kubelet and `ctr` reach it."""
    return layout.run / "containerd.sock"


def root(layout: Layout) -> Path:
    """Imported images; the one folder that `down` keeps, so that a next start need not import them again."""
    return layout.state / "containerd"


def daemon(layout: Layout, pause_image: str) -> Daemon:
    """containerd as the kubelet's runtime. Renders its configuration and the pods' network."""
    _write_pod_network(layout)
    return _daemon(NAME, layout, configuration(layout, pause_image))


def sweeper(layout: Layout) -> Daemon:
    """containerd without the kubelet's plugin, started briefly to remove the containers of an earlier run."""
    return _daemon(SWEEPER, layout, configuration(layout, "none", (*UNUSED_PLUGINS, CRI_PLUGIN)))


def configuration(layout: Layout, pause_image: str, disabled: tuple[str, ...] = UNUSED_PLUGINS) -> str:
    """containerd's TOML.

    `restrict_oom_score_adj`: without CAP_SYS_RESOURCE nothing may lower the score, and every sandbox would fail.
    `netns_mounts_under_state_dir`: pods' network namespaces lie where `down` looks for mounts.
    """
    return f"""version = 2
root = "{root(layout)}"
state = "{layout.run / "containerd"}"
disabled_plugins = {json.dumps(disabled)}
[grpc]
address = "{socket(layout)}"
[plugins."io.containerd.internal.v1.opt"]
path = "{layout.state / "opt"}"
[plugins."{CRI_PLUGIN}"]
sandbox_image = "{pause_image}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."{CRI_PLUGIN}".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."{CRI_PLUGIN}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{CRI_PLUGIN}".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{layout.run / "runc"}"
[plugins."{CRI_PLUGIN}".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{layout.config / "cni"}"
"""


def pod_network(layout: Layout) -> dict[str, object]:
    """A bridge without masquerading: pods reach each other, the node and Services, and nothing else exists."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(layout.run / "cni"),
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": [bridge, portmap]}


def ctr(layout: Layout) -> list[str]:
    """Words before a `ctr` command on the images and containers that the kubelet uses."""
    return ["ctr", f"--address={socket(layout)}", f"--namespace={IMAGE_NAMESPACE}"]


def answers(layout: Layout) -> bool:
    """Whether containerd answers on its socket."""
    return socket(layout).exists() and succeeds([*ctr(layout), "version"])


def image_refs(layout: Layout) -> set[str]:
    """References of all imported images."""
    return set(output([*ctr(layout), "images", "ls", "-q"]).split())


def remove_containers(layout: Layout) -> None:
    """Remove every container record; their processes have long been killed."""
    listed = output([*ctr(layout), "containers", "ls", "-q"]).split()
    if listed:
        output([*ctr(layout), "containers", "rm", *listed])


def _daemon(name: str, layout: Layout, text: str) -> Daemon:
    path = layout.config / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Daemon(name, ("containerd", f"--config={path}"))


def _write_pod_network(layout: Layout) -> None:
    folder = layout.config / "cni"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "10-r1plus.conflist").write_text(json.dumps(pod_network(layout), indent=1))
