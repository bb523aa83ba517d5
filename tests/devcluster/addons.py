"""What runs as pods: DNS, NetworkPolicy enforcement, volumes, and Prometheus with its operator.

Everything is applied as soon as the API server answers; the pods of all of them start in parallel.
"""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from devcluster.api import Api
from devcluster.binaries import module_folder
from devcluster.layout import CLUSTER_DOMAIN, DNS_SERVICE_ADDRESS, NODE_ADDRESS, SERVICE_NETWORK, Layout
from devcluster.parts import go_binary
from devcluster.shell import CommandError
from devcluster.toolchain import kubectl

MANIFESTS = Path(__file__).parent / "manifests"
BASE = ("coredns", "kube-router", "local-path")
MONITORING = "prometheus-operator"
"""It looks once, when it starts, which of its CRDs there are."""
NEEDS_CRDS = ("prometheus",)
IMAGES = (
    "pause",
    "base",
    "coredns",
    "kube-router",
    "local-path-provisioner",
    "prometheus-operator",
    "prometheus-config-reloader",
    "prometheus",
    "alertmanager",
)
PROMETHEUS_ADDRESS = "10.96.0.90"
ALERTMANAGER_ADDRESS = "10.96.0.93"
FIELD_MANAGER = "devcluster"

# prometheus-operator starts without the CRDs of what nobody here uses (agents, Thanos): they are large.
CRDS = (
    "podmonitors",
    "servicemonitors",
    "probes",
    "prometheusrules",
    "scrapeconfigs",
    "prometheuses",
    "alertmanagers",
    "alertmanagerconfigs",
)


def manifest(name: str, images: Mapping[str, str], layout: Layout) -> str:
    """The text of manifests/NAME.yaml with addresses and image references filled in."""
    values = {name.replace("-", "_"): ref for name, ref in images.items()} | {
        "cluster_domain": CLUSTER_DOMAIN,
        "dns_address": DNS_SERVICE_ADDRESS,
        "node_address": NODE_ADDRESS,
        "service_network": SERVICE_NETWORK,
        "prometheus_address": PROMETHEUS_ADDRESS,
        "alertmanager_address": ALERTMANAGER_ADDRESS,
        "volumes": str(layout.state / "volumes"),
    }
    return Template((MANIFESTS / f"{name}.yaml").read_text()).substitute(values)


def crd_files() -> list[Path]:
    """The CRDs in prometheus-operator's own module: the version that the operator was compiled from."""
    folder = module_folder(go_binary("prometheus-operator")) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{name}.yaml" for name in CRDS]


def apply(names: Iterable[str], images: Mapping[str, str], layout: Layout, kubeconfig: Path) -> None:
    """Apply the named manifests in one go."""
    text = "\n---\n".join(manifest(name, images, layout) for name in names)
    _kubectl_apply(kubeconfig, ["-f", "-"], text)


def apply_crds(kubeconfig: Path) -> None:
    """Apply prometheus-operator's CRDs."""
    _kubectl_apply(kubeconfig, [word for path in crd_files() for word in ("-f", str(path))], "")


def list_missing_crds(api: Api) -> list[str]:
    """Return the CRDs that discovery does not name yet, which is where prometheus-operator looks."""
    served = {
        resource["name"]
        for version in ("v1", "v1alpha1")
        for resource in (api.get(f"/apis/monitoring.coreos.com/{version}") or {}).get("resources", ())
    }
    return [name for name in CRDS if name not in served]


def _kubectl_apply(kubeconfig: Path, what: list[str], text: str) -> None:
    """Server-side apply. The client needn't validate: the server does, and refuses unknown fields."""
    words = [str(kubectl()), f"--kubeconfig={kubeconfig}", "apply", "--server-side", "--force-conflicts"]
    words += [f"--field-manager={FIELD_MANAGER}", *what]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"kubectl apply exited {done.returncode}: {done.stderr.strip()[-1500:]}")
