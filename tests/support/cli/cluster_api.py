"""An API server of raw JSON in memory, for commands that read a cluster before r1plus is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from r1plus_cli.errors import AccessDeniedError, NotFoundError
from r1plus_cli.preflight.cluster_view import ClusterView

Json = dict[str, Any]
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def node(name: str, memory: str = "16Gi", cpu: str = "4", arch: str = "amd64", **labels: str) -> Json:
    """A Ready node; labels with _ for what no Python name may have are not needed."""
    known = {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux", **labels}
    status = {"allocatable": {"memory": memory, "cpu": cpu}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "metadata": {"name": name, "uid": name, "labels": known, "resourceVersion": "1"},
        "spec": {},
        "status": status,
    }


def named(name: str, namespace: str = "", **fields: Any) -> Json:
    """An object with fields of its own; `annotations` and `labels` go into its metadata."""
    metadata = {key: fields.pop(key) for key in ("annotations", "labels") if key in fields}
    return {"metadata": {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}, **fields}


def dns_service(namespace: str = "kube-system", name: str = "kube-dns", **selector: str) -> Json:
    """The Service of a DNS; its pods have the labels of `selector`."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    return named(name, namespace, spec={"selector": selector or {"k8s-app": "kube-dns"}, "ports": ports})


def storage_class(name: str = "standard", *, is_default: bool = True) -> Json:
    """A StorageClass."""
    return named(name, annotations={"storageclass.kubernetes.io/is-default-class": str(is_default).lower()})


def prometheus(namespace: str = "monitoring", **spec: Any) -> Json:
    """A Prometheus that selects everything; `spec` changes that."""
    selectors = ("podMonitorSelector", "podMonitorNamespaceSelector", "ruleSelector", "ruleNamespaceSelector")
    return named("main", namespace, spec={**{field: {} for field in selectors}, **spec})


MONITORING = ("monitoring.coreos.com/v1/podmonitors", "monitoring.coreos.com/v1/prometheusrules")
POLICIES = "admissionregistration.k8s.io/v1/validatingadmissionpolicies"
GOOD = ClusterView(
    namespace="r1plus-system",
    version={"gitVersion": "v1.34.4"},
    served=frozenset({POLICIES, *MONITORING}),
    nodes=(node("n1", **{"feature.node.kubernetes.io/cpu-cpuid.AVX2": "true", "feature.node.kubernetes.io/cpu-model.vendor_id": "AMD"}),),
    namespaces=(named("default"), named("kube-system")),
    storage_classes=(storage_class(),),
    dns_services=(dns_service(),),
    api_service=named("kubernetes", "default", spec={"ports": [{"port": 443}]}),
    api_slices=(named("kubernetes", "default", ports=[{"port": 6443}], endpoints=[{"addresses": ["10.0.0.1"]}]),),
    prometheuses=(prometheus(),),
    prometheus_crd=named("podmonitors", annotations={"operator.prometheus.io/version": "0.88.0"}),
)  # fmt: skip
"""A cluster in which r1plus can be installed as it is; what the user may do is not in it."""


def with_(**fields: Any) -> ClusterView:
    """Return the good cluster with other fields."""
    return replace(GOOD, **fields)


OPENSHIFT = with_(
    namespaces=(named("openshift-dns"), named("a", annotations={"openshift.io/sa.scc.uid-range": "1000660000/10000"})),
    dns_services=(
        dns_service("openshift-dns", "dns-default", **{"dns.operator.openshift.io/daemonset-dns": "default"}),
    ),
    prometheuses=(prometheus("openshift-user-workload-monitoring"),),
)
UNUSUAL = with_(
    nodes=(node("a"), node("b", arch="arm64")),
    storage_classes=(),
    dns_services=(dns_service(app="coredns"),),
    daemon_sets=(named("node-local-dns", spec={"template": {"spec": {"containers": [{}]}}}),),
    api_slices=(named("kubernetes", "default", ports=[{"port": 16443}], endpoints=[{"addresses": ["10.0.0.1"]}]),),
    namespaces=(named("istio-system"), named("cert-manager")),
)
ONE_CLASS = with_(storage_classes=(storage_class("slow", is_default=False),))
"""Clusters for which the chart needs values."""


@dataclass(slots=True)
class MemoryApi:
    """Path -> object, or list of objects; `denied` are paths that the user may not read."""

    objects: Mapping[str, Any]
    denied: frozenset[str] = frozenset()
    allowed: bool = True
    """What every access review says."""
    requests: list[tuple[str, str, Json | None]] = field(default_factory=list)

    def request(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        self.requests.append((method, path, body))
        if path == REVIEW:
            return {"status": {"allowed": self.allowed}}
        if path in self.denied:
            raise AccessDeniedError(path)
        if path not in self.objects:
            raise NotFoundError(path)
        return dict(self.objects[path])

    def list_items(self, path: str, **query: str) -> Iterator[Json]:
        self.requests.append(("GET", path, None))
        if path in self.denied:
            raise AccessDeniedError(path)
        yield from self.objects.get(path, ())
