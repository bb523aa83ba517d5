"""What the embedded cluster is made of: each part's module, version and build recipe, as a table.

Read by `binaries.build` (which compiles them), by `cache.binary` (which finds them) and by the images, which carry
some of them. A new version here is a new folder in the cache; the old one stays until `down --purge`.
"""

from dataclasses import dataclass

KUBERNETES = "1.34.4"
PROMETHEUS_OPERATOR = "0.85.0"
ETCD = "3.6.6"

_VERSION_VARIABLES = "k8s.io/component-base/version"
_PROMETHEUS_VARIABLES = "github.com/prometheus/common/version"
_PROMETHEUS_TAGS = ("remove_all_sd", "enable_kubernetes_sd", "netgo")


@dataclass(frozen=True, slots=True)
class GoBinary:
    """One program compiled from a Go module of the registry."""

    name: str
    module: str
    version: str
    module_version: str
    package: str = "."
    tags: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    sibling_version: str = ""
    """The repository's other modules as released, where go.mod requires v0.0.0 of them and replaces it by a folder."""

    @property
    def ldflags(self) -> str:
        """Linker flags: no symbol table, and the version that the program will say it has."""
        settings = " ".join(f"-X {name}={value}" for name, value in self.variables)
        return f"-s -w {settings}".strip()


def _kubernetes(name: str) -> GoBinary:
    major, minor, _ = KUBERNETES.split(".")
    return GoBinary(
        name=name,
        module="k8s.io/kubernetes",
        version=KUBERNETES,
        module_version=f"v{KUBERNETES}",
        package=f"./cmd/{name}",
        variables=(
            (f"{_VERSION_VARIABLES}.gitVersion", f"v{KUBERNETES}"),
            (f"{_VERSION_VARIABLES}.gitMajor", major),
            (f"{_VERSION_VARIABLES}.gitMinor", minor),
        ),
        sibling_version=f"v0.{KUBERNETES.split('.', 1)[1]}",
    )


def _prometheus_operator(name: str, package: str) -> GoBinary:
    return GoBinary(
        name=name,
        module="github.com/prometheus-operator/prometheus-operator",
        version=PROMETHEUS_OPERATOR,
        module_version=f"v{PROMETHEUS_OPERATOR}",
        package=package,
        variables=((f"{_PROMETHEUS_VARIABLES}.Version", PROMETHEUS_OPERATOR),),
    )


def _prometheus(name: str) -> GoBinary:
    return GoBinary(
        name=name,
        module="github.com/prometheus/prometheus",
        version="3.11.0",
        module_version="v0.311.0",
        package=f"./cmd/{name}",
        tags=_PROMETHEUS_TAGS,
        variables=((f"{_PROMETHEUS_VARIABLES}.Version", "3.11.0"),),
    )


# The first three start an API server alone, so whoever waits for one waits least; the order is otherwise free.
GO_BINARIES: tuple[GoBinary, ...] = (
    GoBinary("etcd", "go.etcd.io/etcd/server/v3", ETCD, f"v{ETCD}"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    GoBinary(
        "helm",
        "helm.sh/helm/v3",
        "3.19.5",
        "v3.19.5",
        "./cmd/helm",
        variables=(("helm.sh/helm/v3/internal/version.version", "v3.19.5"),),
    ),
    GoBinary("coredns", "github.com/coredns/coredns", "1.14.6", "v1.14.6"),
    GoBinary("kube-router", "github.com/cloudnativelabs/kube-router/v2", "2.1.0", "v2.1.0", "./cmd/kube-router"),
    _prometheus_operator("prometheus-operator", "./cmd/operator"),
    _prometheus_operator("prometheus-config-reloader", "./cmd/prometheus-config-reloader"),
    GoBinary(
        "local-path-provisioner",
        "github.com/rancher/local-path-provisioner",
        "0.0.30",
        "v0.0.30",
    ),
    _prometheus("prometheus"),
    _prometheus("promtool"),
)

API_SERVER_BINARIES: tuple[str, ...] = ("etcd", "kube-apiserver", "kube-controller-manager")


def go_binary(name: str) -> GoBinary:
    """The table's row for `name`; a KeyError that lists the names there are."""
    for part in GO_BINARIES:
        if part.name == name:
            return part
    known = ", ".join(part.name for part in GO_BINARIES)
    raise KeyError(f"no Go binary named {name!r}; there are: {known}")
