"""The operator's configuration as values, as the chart sets it. `config` reads it from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from r1plus_contract.remedies import CLUSTER, Wording
from r1plus_model_repo.catalog.types import VLLM_ON_CPU, Backend
from r1plus_policies.rollback.response import BAKE_SECONDS, COOLDOWN_SECONDS

RUNTIMES: Mapping[str, str] = MappingProxyType({"openvino": "2026.4"})
"""`EngineSpec.runtime` of our image -> its version, as pyproject.toml pins it."""
CPU_RUNTIMES: Mapping[str, str] = MappingProxyType(
    {Backend.VLLM.value: VLLM_ON_CPU, Backend.TORCH.value: Backend.TORCH.value}
)
"""Backend that `images.cpu` may name -> `EngineSpec.runtime` of its engines on CPU."""


@dataclass(frozen=True, slots=True)
class TritonRuntime:
    """A Triton image with a backend that ours has not, from the chart's `images.gpu` or `images.cpu`."""

    image: str
    version: str | None
    """Version of TensorRT-LLM, vLLM or torch in the image; None: it is not checked."""


@dataclass(frozen=True, slots=True)
class SuiteTrust:
    """Which golden suites are trusted."""

    required: bool = True
    """Whether a suite must be shipped or signed by a trusted key."""
    keys: frozenset[str] = frozenset()
    """Public keys that every deployment trusts. A deployment may add its own in spec.accuracy.suiteKeys."""
    shipped_digests: frozenset[str] = frozenset()
    """Digests of the suites that this version ships: they are trusted without a signature."""


class AccessMode(StrEnum):
    """How many nodes may mount a volume at once."""

    ONE_NODE = "ReadWriteOnce"
    MANY_NODES = "ReadWriteMany"
    MANY_READERS = "ReadOnlyMany"
    """Many nodes may read what one node wrote before: the Job mounts it alone, and pods mount it after the Job."""

    @property
    def claim_modes(self) -> list[str]:
        """Access modes of the PersistentVolumeClaim."""
        write_modes = [AccessMode.ONE_NODE.value] if self is AccessMode.MANY_READERS else []
        return [*write_modes, self.value]


@dataclass(frozen=True, slots=True)
class ProxyTerms:
    """The proxy for fetching archives."""

    url: str
    """http://HOST:PORT, without credentials: a tenant can read the settings of its Jobs."""
    cidrs: tuple[str, ...]
    """Networks of the proxy."""
    no_proxy: tuple[str, ...] = ()
    """Servers to connect to without the proxy: hosts, domains and networks."""


@dataclass(frozen=True, slots=True)
class VolumeTerms:
    """Settings of engine volumes, and of the Jobs that fetch engines onto them."""

    storage_class: str = ""
    """Empty: the cluster's default class."""
    access_mode: AccessMode = AccessMode.ONE_NODE
    cidrs: tuple[str, ...] = ()
    """Networks of the servers from which archives may be fetched."""
    require_signature: bool = True
    """Whether one of `trusted_keys` must have signed an engine's files."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys, PEM."""
    ca_pem: str = ""
    """CA certificates of those servers, PEM; empty: those of the image."""
    proxy: ProxyTerms | None = None
    """None: archives are fetched directly from their servers."""


@dataclass(frozen=True, slots=True)
class IsolationTerms:
    """Settings of the isolation test."""

    decoy_namespace: str = ""
    """Namespace of the decoy that it attacks; empty: isolation is not tested."""
    interval: float = 3600.0
    """Seconds from the end of a run to the next, while no network policy changes."""
    api_ports: tuple[int, ...] = (443, 6443)
    """Ports of the API server, before and after the translation of its Service's address."""
    api_cidrs: tuple[str, ...] = ()
    """Networks of the API server; empty: any network, on those ports only."""
    other_targets: Mapping[str, str] = field(default_factory=dict)
    """Name -> address of other services that no tenant's model may reach."""
    reserved_namespaces: tuple[str, ...] = ()
    """Other namespaces that cannot be tenants, even if they have the label."""
    has_enforced_policies: bool = True
    """Whether the chart's admission policies refuse what they do not allow. Else tenants can undo what was tested."""


@dataclass(frozen=True, slots=True)
class DnsPods:
    """Pods of the cluster's DNS: those of a namespace with these labels."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DnsTerms:
    """Addresses of the cluster's DNS: pods, and networks where a cache listens on the node."""

    pods: tuple[DnsPods, ...] = (DnsPods("kube-system", MappingProxyType({"k8s-app": "kube-dns"})),)
    cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodUser:
    """User and group of the pods' processes and volumes. None: the cluster's admission assigns them."""

    run_as_user: int | None = 1000
    run_as_group: int | None = 1000
    fs_group: int | None = 1000

    @property
    def security_fields(self) -> dict[str, int]:
        """Fields of a pod's security context that set the user."""
        fields = {"runAsUser": self.run_as_user, "runAsGroup": self.run_as_group, "fsGroup": self.fs_group}
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class AlertTerms:
    """Settings of alerts."""

    runbook_url: str = "https://github.com/r1plus/r1plus/blob/main/monitoring/runbooks"
    """Base URL; it has a page NAME.md for each alert."""
    labels: Mapping[str, str] = field(default_factory=lambda: {"team": "platform"})
    """Labels of every alert, for routing; an alert's own labels take precedence."""
    severities: Mapping[str, str] = field(default_factory=dict)
    """Severity here -> severity in the rule. An absent one keeps its name."""

    def build_runbook_url(self, alert: str) -> str:
        """Return the URL of an alert's runbook."""
        return f"{self.runbook_url}/{alert}.md"


class RuntimeUpdate(StrEnum):
    """Who requests a candidate on the operator's current images."""

    MANUAL = "Manual"
    """A person: `r1plus refresh`."""
    AUTOMATIC = "Automatic"
    """The operator, in waves."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """Settings for all deployments."""

    monitor_image: str
    triton_image: str
    default_family: str
    operator_namespace: str
    monitoring_namespace: str
    scrape_interval: str = "15s"
    prometheus_url: str = ""
    """Prometheus that the operator queries for rules and targets; empty: it does not query any."""
    has_registry: bool = False
    gateway_image: str = ""
    """Image of tenants' gateways; empty: there are none."""
    trainer_image: str = ""
    """Image that distils engines, with torch; empty: none is distilled."""
    has_train_jobs: bool = False
    """Whether the operator may write TrainJobs, which distil engines on several machines."""
    image_pull_secrets: tuple[str, ...] = ()
    gpu_runtimes: Mapping[str, TritonRuntime] = field(default_factory=dict)
    """Backend -> its Triton image for GPUs."""
    cpu_runtimes: Mapping[str, TritonRuntime] = field(default_factory=dict)
    """Backend -> its Triton image for CPU, where `triton_image` has not that backend."""
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
    """Maximum number of deployments in the cluster that get newer images or a newer engine at once."""
    vulnerable_images: frozenset[str] = frozenset()
    """Images, or their digests (`sha256:...`), that should not serve any more."""
    wording: Wording = field(default_factory=lambda: CLUSTER)
    """The words of remedies in conditions: those of the front that shows them."""
    readmits_in_place: bool = True
    """Whether in place what serves is let in again though it answers otherwise. Not where another release can serve."""

    def is_reserved(self, namespace: str) -> bool:
        """Whether a namespace cannot be a tenant: a default deny there would break the cluster."""
        own = ("default", self.operator_namespace, self.monitoring_namespace)
        return namespace.startswith("kube-") or namespace in own or namespace in self.isolation.reserved_namespaces

    def for_namespace(self, *, assigns_users: bool, run_as_user: int | None = None) -> "OperatorConfig":
        """Return the settings for a namespace. If it assigns users, pods do not set any.

        `run_as_user`: its tenant's; None: the same as everywhere.
        """
        if assigns_users:
            return replace(self, pod_user=PodUser(None, None, None))
        return replace(self, pod_user=replace(self.pod_user, run_as_user=run_as_user)) if run_as_user else self

    @property
    def runtimes(self) -> Mapping[str, str | None]:
        """Supported `EngineSpec.runtime` -> its version in the Triton image; None: any version is accepted."""
        return {**RUNTIMES, **{name: runtime.version for name, runtime in self._named_runtimes.items()}}

    @property
    def triton_images(self) -> frozenset[str]:
        """Every Triton image that new pods may get."""
        return frozenset({self.triton_image, *(runtime.image for runtime in self._named_runtimes.values())})

    def select_image(self, runtime: str) -> str:
        """Return the Triton image of an `EngineSpec.runtime`."""
        named = self._named_runtimes.get(runtime)
        return named.image if named else self.triton_image

    @property
    def _named_runtimes(self) -> Mapping[str, TritonRuntime]:
        return {**self.gpu_runtimes, **{CPU_RUNTIMES[backend]: one for backend, one in self.cpu_runtimes.items()}}

    def is_vulnerable(self, image: str) -> bool:
        """Whether the platform team has marked this image, by its reference or by its digest."""
        return image in self.vulnerable_images or image.rpartition("@")[2] in self.vulnerable_images
