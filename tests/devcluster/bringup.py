"""Starts the whole cluster from nothing, in an order that lets as much as possible happen at the same time.

network namespace -> etcd, kube-apiserver; beside them containerd -> images
                  -> controller-manager, scheduler, kube-proxy, kubelet
                  -> manifests, while the node becomes Ready
"""

import json
from collections.abc import Mapping
from pathlib import Path

from devcluster import addons, daemons, forwarder, host, kubeconfig
from devcluster.api import Api, condition, pod_ready
from devcluster.components import apiserver, containerd, controller_manager, etcd, kube_proxy, kubelet, scheduler
from devcluster.images.recipe import Image
from devcluster.layout import NODE_NAME, Layout
from devcluster.pki import Authority, Certificate
from devcluster.shell import CommandError, output, succeeds
from devcluster.steps import Step, Steps
from support.waiting import WaitError, wait_until

STEP_COUNT = 5
# Each at least ten times what a quiet machine needs.
API_SECONDS = 120.0
CONTAINERD_SECONDS = 60.0
NODE_SECONDS = 120.0
ADDON_SECONDS = 400.0
API_HOST_PORT = 16443
PROMETHEUS_HOST_PORT = 19090
ALERTMANAGER_HOST_PORT = 19093
DAEMONS = (
    etcd.NAME,
    apiserver.NAME,
    controller_manager.NAME,
    scheduler.NAME,
    kube_proxy.NAME,
    containerd.NAME,
    kubelet.NAME,
    "forwarder",
)


def admin_client(authority: Authority) -> Certificate:
    """The cluster administrator's certificate."""
    return authority.issue("client-admin", "admin", (apiserver.ADMIN_GROUP,))


def api_of(layout: Layout, port: int) -> Api:
    """A client of the running cluster, through the host's forward."""
    authority = Authority(layout.pki)
    return Api(f"https://127.0.0.1:{port}", authority, admin_client(authority))


def start_control_plane(layout: Layout, images: list[Image], steps: Steps) -> dict[str, int]:
    """etcd, API server, managers, and the forwards on the host; images while those start. Returns the forwards' ports by name."""
    authority = Authority(layout.pki)
    with steps.step("cluster: images into containerd", log=daemons.log_path(containerd.NAME, layout)) as step:
        authority.ensure()
        host.save_kernel_settings(layout.state / "kernel-settings.json")
        host.make_cgroup()
        host.make_network()
        daemons.start(etcd.daemon(layout, authority), layout)
        daemons.start(apiserver.daemon(layout, authority), layout)
        ports = _start_forwards(layout)
        url = f"https://127.0.0.1:{ports['api']}"
        kubeconfig.write(layout.kubeconfig("admin"), url, authority, admin_client(authority))
        start_containerd(layout, refs_by_name(images)["pause"])
        import_images(layout, images, step)
    with steps.step("cluster: API server", log=daemons.log_path(apiserver.NAME, layout)):
        daemons.wait_ready(apiserver.NAME, layout, api_of(layout, ports["api"]).ready, API_SECONDS)
        # Only now: readiness includes the bootstrap roles, without which the controller manager gives up at once.
        for component in (controller_manager, scheduler, kube_proxy):
            daemons.start(component.daemon(layout, authority), layout)
    return ports


def start_containerd(layout: Layout, pause_image: str) -> None:
    """Remove an earlier run's containers, then start the runtime. A store that cannot be opened is made anew."""
    if (containerd.root(layout) / "io.containerd.metadata.v1.bolt").is_dir():
        _sweep_containers(layout)
    daemons.start(containerd.daemon(layout, pause_image), layout)
    daemons.wait_ready(containerd.NAME, layout, lambda: containerd.answers(layout), CONTAINERD_SECONDS)


def import_images(layout: Layout, images: list[Image], step: Step) -> None:
    """Import the archives whose reference containerd lacks."""
    have = containerd.image_refs(layout)
    absent = [image for image in images if not {image.ref, image.pinned} <= have]
    if not absent:
        step.cached()
    for number, image in enumerate(absent):
        step.progress(number / len(absent), image.ref)
        import_image(layout, image)


def import_image(layout: Layout, image: Image) -> None:
    """Import one archive and make sure that both references that a pod may name are there: by tag and by digest."""
    output([*containerd.ctr(layout), "images", "import", image.archive])
    if image.ref not in containerd.image_refs(layout):
        raise CommandError(f"{image.archive} holds no image {image.ref}; remove the archive and build the images again")
    output([*containerd.ctr(layout), "images", "tag", "--force", image.ref, image.pinned])


def start_node(layout: Layout) -> None:
    """Start the kubelet; images and API server are there."""
    daemons.start(kubelet.daemon(layout, Authority(layout.pki)), layout)


def wait_for_node(layout: Layout, ports: Mapping[str, int], steps: Steps) -> None:
    """Wait until the node is Ready."""
    with steps.step("cluster: node", log=daemons.log_path(kubelet.NAME, layout)):
        api = api_of(layout, ports["api"])
        daemons.wait_ready(kubelet.NAME, layout, lambda: node_ready(api), NODE_SECONDS)


def apply_addons(layout: Layout, images: list[Image], ports: Mapping[str, int], steps: Steps) -> None:
    """Apply every manifest, what needs no CRD first: those pods start while the others are being applied."""
    refs, admin, api = refs_by_name(images), layout.kubeconfig("admin"), api_of(layout, ports["api"])
    with steps.step("cluster: DNS, policies, volumes, monitoring applied"):
        addons.apply(addons.BASE, refs, layout, admin)
        addons.apply_crds(admin)
        wait_until(lambda: not addons.list_missing_crds(api), "CRDs are served", period_s=0.2)
        addons.apply([addons.MONITORING, *addons.NEEDS_CRDS], refs, layout, admin)


def wait_for_addons(layout: Layout, ports: Mapping[str, int], steps: Steps) -> None:
    """Wait until every pod of the system's namespaces is Ready: only then do Service addresses and DNS work."""
    api = api_of(layout, ports["api"])
    with steps.step("cluster: system pods ready", log=daemons.log_path(kubelet.NAME, layout)) as step:
        wait_until(lambda: _report_pods(layout, api, step), "all system pods are Ready", ADDON_SECONDS, period_s=0.2)


def node_ready(api: Api) -> bool:
    """Whether the only node is Ready."""
    node = api.get(f"/api/v1/nodes/{NODE_NAME}")
    return node is not None and condition(node, "Ready")


def unready_system_pods(api: Api) -> list[str] | None:
    """Names of system pods that are not Ready yet; None while not all of them exist."""
    spaces = {"kube-system": 2, "local-path-storage": 1, "monitoring": 3}
    unready: list[str] = []
    for space, least in spaces.items():
        pods = api.items(f"/api/v1/namespaces/{space}/pods")
        if len(pods) < least:
            return None
        unready += [pod["metadata"]["name"] for pod in pods if not pod_ready(pod)]
    return unready


def refs_by_name(images: list[Image]) -> dict[str, str]:
    """r1plus.local/coredns:abc becomes {"coredns": "r1plus.local/coredns:abc"}; an error when one is missing."""
    refs = {image.ref.rsplit("/", 1)[-1].split(":", 1)[0]: image.ref for image in images}
    absent = [name for name in addons.IMAGES if name not in refs]
    if absent:
        raise RuntimeError(f"images for the cluster's own components are missing: {', '.join(absent)}")
    return refs


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Write what the next run needs to know about the running cluster, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(record, indent=1))
    scratch.replace(path)


def _start_forwards(layout: Layout) -> dict[str, int]:
    targets = {
        "api": (API_HOST_PORT, f"{layout.address}:{layout.api_port}"),
        "prometheus": (PROMETHEUS_HOST_PORT, f"{addons.PROMETHEUS_ADDRESS}:9090"),
        "alertmanager": (ALERTMANAGER_HOST_PORT, f"{addons.ALERTMANAGER_ADDRESS}:9093"),
    }
    made = forwarder.start("forwarder", list(targets.values()), layout)
    return {name: forward.port for name, forward in zip(targets, made, strict=True)}


def _sweep_containers(layout: Layout) -> None:
    sweeper = containerd.sweeper(layout)
    daemons.start(sweeper, layout)
    try:
        daemons.wait_ready(sweeper.name, layout, lambda: containerd.answers(layout), CONTAINERD_SECONDS)
        containerd.remove_containers(layout)
    except (RuntimeError, WaitError):
        succeeds(["rm", "-rf", str(containerd.root(layout))])
    finally:
        daemons.stop(sweeper.name, layout)
    containerd.socket(layout).unlink(missing_ok=True)


def _report_pods(layout: Layout, api: Api, step: Step) -> bool:
    dead = [name for name in DAEMONS if not daemons.alive(name, layout)]
    if dead:
        raise RuntimeError(f"{', '.join(dead)} ended; see {layout.logs}")
    unready = unready_system_pods(api)
    step.progress("waiting for pods to be made" if unready is None else ", ".join(unready))
    return unready == []
