"""What the chart sets: the operator's configuration, as values. `config` reads it from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from r1plus_policies.rollback.response import BAKE_SECONDS, COOLDOWN_SECONDS

RUNTIMES: Mapping[str, str] = MappingProxyType({"openvino": "2026.4"})
"""As pyproject.toml pins it."""


@dataclass(frozen=True, slots=True)
class GpuRuntime:
    """A Triton image with a GPU backend, which the chart names."""

    image: str
    version: str | None
    """Of TensorRT-LLM or vLLM in it; None: it is not to be judged."""


@dataclass(frozen=True, slots=True)
class SuiteTrust:
    """Which golden suites may decide anything."""

    required: bool = True
    """Whether a suite must be shipped or signed by a trusted key."""
    keys: frozenset[str] = frozenset()
    """Public keys that every deployment trusts; one may name others for itself, in spec.accuracy.suiteKeys."""
    shipped: frozenset[str] = frozenset()
    """Digests of the suites that this version ships: trusted byte for byte, without a signature."""


class AccessMode(StrEnum):
    """How many nodes may mount a volume at once."""

    ONE_NODE = "ReadWriteOnce"
    MANY_NODES = "ReadWriteMany"
    MANY_READERS = "ReadOnlyMany"
    """Many may read what one has written before: the Job mounts it alone, and no pod before the Job has done."""

    @property
    def claimed(self) -> list[str]:
        """What a claim asks for."""
        writing = [AccessMode.ONE_NODE.value] if self is AccessMode.MANY_READERS else []
        return [*writing, self.value]


@dataclass(frozen=True, slots=True)
class ProxyTerms:
    """The proxy through which the chart lets archives be fetched."""

    url: str
    """http://HOST:PORT, without credentials: a tenant can read what its Jobs are told."""
    cidrs: tuple[str, ...]
    """Networks of the proxy."""
    no_proxy: tuple[str, ...] = ()
    """Servers that are reached without it: hosts, domains and networks."""


@dataclass(frozen=True, slots=True)
class VolumeTerms:
    """What the chart decides of volumes for engines, and of the Jobs that fill them."""

    storage_class: str = ""
    """Empty: the cluster's default."""
    access_mode: AccessMode = AccessMode.ONE_NODE
    cidrs: tuple[str, ...] = ()
    """Networks of the servers from which archives may be fetched."""
    require_signature: bool = True
    """Whether one of `trusted_keys` must have signed an engine's files."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys, PEM."""
    ca_pem: str = ""
    """Certificates of the CAs that vouch for those servers; empty: those of the image."""
    proxy: ProxyTerms | None = None
    """None: archives are fetched straight from their servers."""


@dataclass(frozen=True, slots=True)
class IsolationTerms:
    """What the chart decides of the prober of walls."""

    decoy_namespace: str = ""
    """Whom it attacks; empty: there is no prober."""
    interval: float = 3600.0
    """Seconds from the end of a run to the next, while no wall changes."""
    api_ports: tuple[int, ...] = (443, 6443)
    """Of the API server, before and after the translation of its Service's address."""
    api_cidrs: tuple[str, ...] = ()
    """Where the API server is; empty: anywhere, on those ports only."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Name -> address of what else no tenant's model may reach."""
    reserved_namespaces: tuple[str, ...] = ()
    """Others that can be no tenant, however labelled."""


@dataclass(frozen=True, slots=True)
class DnsPods:
    """Pods that answer DNS: those of a namespace with these labels."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DnsTerms:
    """Where the cluster's DNS is answered: pods, and networks where a cache listens on the node."""

    pods: tuple[DnsPods, ...] = (DnsPods("kube-system", MappingProxyType({"k8s-app": "kube-dns"})),)
    cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodUser:
    """Whose processes pods run, and who owns their volumes. None: the cluster's admission decides."""

    run_as_user: int | None = 1000
    run_as_group: int | None = 1000
    fs_group: int | None = 1000

    @property
    def named(self) -> dict[str, int]:
        """The fields of a pod's security context that say so."""
        fields = {"runAsUser": self.run_as_user, "runAsGroup": self.run_as_group, "fsGroup": self.fs_group}
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class AlertTerms:
    """What the chart decides of alerts."""

    runbook_url: str = "https://github.com/r1plus/r1plus/blob/main/monitoring/runbooks"
    """Below it is a page NAME.md for each alert."""
    labels: Mapping[str, str] = field(default_factory=lambda: {"team": "platform"})
    """Labels of every alert, by which it is routed; an alert's own labels win."""
    severities: Mapping[str, str] = field(default_factory=dict)
    """Severity as it is named here -> as it is written. One that is absent keeps its name."""

    def runbook(self, alert: str) -> str:
        """Return the address of an alert's page."""
        return f"{self.runbook_url}/{alert}.md"


class RuntimeUpdate(StrEnum):
    """Who asks for a candidate on the images that the operator has now."""

    MANUAL = "Manual"
    """A person: `r1plus refresh`."""
    AUTOMATIC = "Automatic"
    """The operator, in waves."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """What the chart decides for every deployment."""

    monitor_image: str
    triton_image: str
    default_family: str
    operator_namespace: str
    monitoring_namespace: str
    scrape_interval: str = "15s"
    prometheus_url: str = ""
    """Where the operator asks whether rules and targets are in place; empty: it does not ask."""
    has_registry: bool = False
    image_pull_secrets: tuple[str, ...] = ()
    gpu_runtimes: Mapping[str, GpuRuntime] = field(default_factory=dict)
    """Backend -> what serves it; `triton_image` serves the CPU's."""
    suite_trust: SuiteTrust = SuiteTrust()
    volumes: VolumeTerms = VolumeTerms()
    isolation: IsolationTerms = IsolationTerms()
    alerts: AlertTerms = AlertTerms()
    dns: DnsTerms = DnsTerms()
    pod_user: PodUser = PodUser()
    bake_seconds: float = BAKE_SECONDS
    cooldown_seconds: float = COOLDOWN_SECONDS
    runtime_update: RuntimeUpdate = RuntimeUpdate.MANUAL
    max_concurrent: int = 2
    """Deployments of the cluster that are refreshed, or get a newer engine, at once."""
    vulnerable: frozenset[str] = frozenset()
    """Images, or their digests (`sha256:...`), that must serve no longer."""

    def reserved(self, namespace: str) -> bool:
        """Whether a namespace can be no tenant, however labelled: a default deny there would stop the cluster."""
        own = ("default", self.operator_namespace, self.monitoring_namespace)
        return namespace.startswith("kube-") or namespace in own or namespace in self.isolation.reserved_namespaces

    def in_namespace(self, *, assigns_users: bool) -> "OperatorConfig":
        """Return the settings for a namespace; where it has a range of users, pods name none."""
        return replace(self, pod_user=PodUser(None, None, None)) if assigns_users else self

    @property
    def runtimes(self) -> Mapping[str, str | None]:
        """Backend that is served -> version of its runtime in the Triton image; None: any will do."""
        return {**RUNTIMES, **{backend: runtime.version for backend, runtime in self.gpu_runtimes.items()}}

    def image_for(self, backend: str) -> str:
        """The Triton image that serves a backend."""
        runtime = self.gpu_runtimes.get(backend)
        return runtime.image if runtime else self.triton_image

    def is_vulnerable(self, image: str) -> bool:
        """Whether the platform team has marked this image, by its reference or by its digest."""
        return image in self.vulnerable or image.rpartition("@")[2] in self.vulnerable
