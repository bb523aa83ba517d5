"""What the embedded cluster is made of: each Go program with its package and the version that it shall say it has.

The versions themselves stand in the go.mod of the modules whose tools the programs are: `go/kubernetes`, with exactly
the dependencies of its release, and `go/addons`, whose programs share what they can. Read by `binaries.build` (which
compiles them), by `cache.binary` (which finds them) and by the images, which carry some of them. A new version there is
a new folder in the cache; the old one stays until `down --purge`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

GO_MODULES = Path(__file__).parent / "go"
_REQUIREMENT = re.compile(r"^(?:require )?\s*(\S+) v(\S+?)(?: // indirect)?$", re.MULTILINE)

_VERSION_VARIABLES = "k8s.io/component-base/version"
_PROMETHEUS_VARIABLES = "github.com/prometheus/common/version"
_TRAINER = "github.com/kubeflow/trainer/v2"


def required(module: str, by: str = "addons") -> str:
    """Version of `module` that the go.mod of `by` requires, without the v; a KeyError where it does not."""
    versions: dict[str, str] = dict(_REQUIREMENT.findall((GO_MODULES / by / "go.mod").read_text()))
    return versions[module]


KUBERNETES = required("k8s.io/kubernetes", "kubernetes")


@dataclass(frozen=True, slots=True)
class GoBinary:
    """One program compiled from a Go module of the registry."""

    name: str
    module: str
    package: str
    variables: tuple[str, ...] = ()
    """Of the program, to be set to its version."""
    says: str = ""
    """What they are set to, where it is not the module's version."""
    tool_of: str = "addons"
    """Folder of `GO_MODULES` with the module that it is compiled from."""

    @property
    def version(self) -> str:
        """As `go.mod` requires it: the program's folder in the cache bears it."""
        return required(self.module, self.tool_of)

    @property
    def folder(self) -> Path:
        """Where to compile it."""
        return GO_MODULES / self.tool_of

    @property
    def ldflags(self) -> str:
        """Linker flags: no symbol table, and the version that the program will say it has."""
        says = self.says or self.version
        return " ".join(["-s -w", *(f"-X {name}={says}" for name in self.variables)])


def _kubernetes(name: str) -> GoBinary:
    version = f"{_VERSION_VARIABLES}.gitVersion"
    return GoBinary(
        name, "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}", (version,), f"v{KUBERNETES}", "kubernetes"
    )


def _prometheus_operator(name: str, folder: str) -> GoBinary:
    module = "github.com/prometheus-operator/prometheus-operator"
    return GoBinary(name, module, f"{module}/cmd/{folder}", (f"{_PROMETHEUS_VARIABLES}.Version",))


def convert_prometheus_version(of_module: str) -> str:
    """Return the version of Prometheus that a version of its Go module stands for: 3.10.0 for 0.310.0."""
    major_minor, patch = of_module.removeprefix("0.").split(".")
    return f"{major_minor[0]}.{int(major_minor[1:])}.{patch}"


def _prometheus(name: str) -> GoBinary:
    module = "github.com/prometheus/prometheus"
    says = convert_prometheus_version(required(module))
    return GoBinary(name, module, f"{module}/cmd/{name}", (f"{_PROMETHEUS_VARIABLES}.Version",), says)


def _plain(name: str, module: str, package: str = "") -> GoBinary:
    return GoBinary(name, module, module + package)


def _release_tool(name: str, module: str) -> GoBinary:
    return GoBinary(name, module, f"{module}/cmd/{name}", tool_of=name)


# The first three start an API server alone, so whoever waits for one waits least; the order is otherwise free.
GO_BINARIES: tuple[GoBinary, ...] = (
    _plain("etcd", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    GoBinary("helm", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm", ("helm.sh/helm/v3/internal/version.version",)),
    GoBinary("coredns", "github.com/coredns/coredns", "./coredns"),
    _plain("kube-router", "github.com/cloudnativelabs/kube-router/v2", "/cmd/kube-router"),
    _prometheus_operator("prometheus-operator", "operator"),
    _prometheus_operator("prometheus-config-reloader", "prometheus-config-reloader"),
    _plain("local-path-provisioner", "github.com/rancher/local-path-provisioner"),
    _prometheus("prometheus"),
    _prometheus("promtool"),
    GoBinary("trainer-controller-manager", _TRAINER, f"{_TRAINER}/cmd/trainer-controller-manager", tool_of="trainer"),
    GoBinary("jobset", "sigs.k8s.io/jobset", "sigs.k8s.io/jobset", tool_of="jobset"),
    GoBinary("kstatus", "sigs.k8s.io/cli-utils", "r1plus.ai/devcluster/kstatus", tool_of="kstatus"),
    _release_tool("registry", "github.com/distribution/distribution/v3"),
    _release_tool("syft", "github.com/anchore/syft"),
    _release_tool("cosign", "github.com/sigstore/cosign/v3"),
)

TRAINING_BINARIES: tuple[str, ...] = ("trainer-controller-manager", "jobset")
"""Kubeflow's trainer and JobSet: of few tests, and in no cluster unless it is asked for."""

RELEASE_BINARIES: tuple[str, ...] = ("registry", "syft", "cosign")
"""What a release is made and tried with; in no cluster, and compiled when `make release` or its test asks for it."""

STATUS_BINARIES: tuple[str, ...] = ("kstatus",)
"""The judge of statuses that GitOps tools have; in no cluster."""

API_SERVER_BINARIES: tuple[str, ...] = ("etcd", "kube-apiserver", "kube-controller-manager")


def go_binary(name: str) -> GoBinary:
    """The table's row for `name`; a KeyError that lists the names there are."""
    for part in GO_BINARIES:
        if part.name == name:
            return part
    known = ", ".join(part.name for part in GO_BINARIES)
    raise KeyError(f"no Go binary named {name!r}; there are: {known}")
