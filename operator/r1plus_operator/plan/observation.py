"""What a pass plans from: values that `observe` gathered. Nothing here talks to anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from r1plus_contract.engine_fetch import FillProgress
from r1plus_contract.suite import Suite
from r1plus_contract.suite_baseline import Measured
from r1plus_contract.verdict import MonitorReport
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.tenants import TenantPlacement
from r1plus_policies.engine.hardware import Gpus
from r1plus_policies.rollback.response import BAKE_SECONDS, COOLDOWN_SECONDS

Json = dict[str, Any]
JOB_ENDED = "ended"
"""Key of a kept Job, beside its own, once it has ended: `type` (Complete, Failed), `at` (seconds since the epoch), and
`final`: the same would fail again."""
REFUSED_PODS = "refusedPods"
"""Key of a kept Deployment, beside its own: why the API server lets it make no pods."""


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


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint that keeps pods away."""

    key: str
    value: str
    effect: str
    """NoSchedule or NoExecute."""

    @property
    def text(self) -> str:
        """Return it as kubectl writes it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node, as far as fitting needs it. Bytes and cores, allocatable."""

    name: str
    memory_bytes: int
    cores: float
    labels: Mapping[str, str]
    gpus: tuple[Gpus, ...] = ()
    addresses: tuple[str, ...] = ()
    """IPs."""
    taints: tuple[Taint, ...] = ()
    is_ready: bool = True
    is_cordoned: bool = False
    storage_bytes: int | None = None
    """Ephemeral storage; None where the node does not count it, and takes no pod that asks for any."""


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A namespace, as far as it is a tenant."""

    name: str
    uid: str
    tenant: bool
    """Whether the platform team has labelled it as one."""
    pod_security: str
    """Which Pod Security level is enforced; empty: none."""
    terminating: bool = False
    created: str = ""
    """RFC 3339, as the API server wrote it."""
    assigns_users: bool = False
    """Whether it has a range of users of its own, and pods that name another are refused (OpenShift)."""


@dataclass(frozen=True, slots=True)
class TenantView:
    """Of a namespace as a tenant, what decides the passes of its deployments."""

    status: str
    reason: str
    message: str
    """What IsolationVerified says of the namespace's walls (`Finding`)."""
    is_tenant: bool = True
    """Whether anything new may be rolled out in it."""
    callers: frozenset[str] = frozenset()
    """Namespaces that a deployment may let in."""
    placement: TenantPlacement | None = field(default_factory=TenantPlacement)
    """On which nodes its models may run; None: no cluster was asked."""
    unreadable: str = ""
    """Why its R1PlusTenant cannot be read, and so nobody knows what it allows; empty: it can, or there is none."""
    assigns_users: bool = False
    """As its namespace does (`NamespaceFacts`)."""


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container (or init container) of a pod."""

    name: str
    ready: bool
    waiting_reason: str = ""
    terminated_reason: str = ""
    message: str = ""
    """Of the waiting or last terminated state; the termination log of `verify` arrives here."""
    exit_code: int | None = None
    image_digest: str = ""
    """Of the image that its node runs; empty where the node does not say one that holds everywhere."""

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.exit_code is None and not self.waiting_reason

    @property
    def unpullable(self) -> bool:
        """Whether its node cannot get its image."""
        return self.waiting_reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A serving pod."""

    name: str
    revision: str
    ip: str
    ready: bool
    terminating: bool
    unschedulable: str
    """The scheduler's own words while it finds no node."""
    containers: tuple[ContainerFacts, ...] = ()
    replica_set: str = ""
    """Its controller, where that is a ReplicaSet."""
    fingerprint: str = ""
    """What it runs (`pod.fingerprint`)."""
    images: tuple[str, ...] = ()
    """Of its containers (`pod.container_images`)."""
    owner_uid: str = ""
    """Of the R1PlusDeployment that it was made for."""
    uid: str = ""
    node: str = ""
    """Where it runs; empty before it is scheduled."""
    quarantine: str | None = None
    """What its quarantine says (`plan.quarantine`); None where it is in none."""
    turned_away: str = ""
    """Why its node did not take or keep it; such a pod is over, and of its containers there may be nothing."""
    gone_by: float = 0.0
    """When its grace is over, seconds since the epoch; 0 while nobody has deleted it."""
    unschedulable_since: float | None = None
    """Seconds since the epoch."""
    ready_since: float | None = None
    """Seconds since the epoch; None while it is not ready."""

    def is_made_by(self, revision: str) -> bool:
        """Return whether the Deployment of a revision made it, by its label and by its ReplicaSet.

        A ReplicaSet lets a pod in quarantine go.
        """
        is_released = self.quarantine is not None and not self.replica_set
        return self.revision == revision and (is_released or self.replica_set.rpartition("-")[0] == revision)


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume for an engine, and the Job that fills it."""

    delivered: str = ""
    """Digest of the engine that has been proved to be on it; empty: none yet."""
    failed: bool = False
    """The Job has given up."""
    pods: tuple[PodFacts, ...] = ()
    """Of the Job, in the order of their names."""
    progress: FillProgress | None = None
    """What the Job said last."""


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """An alerting rule as Prometheus has loaded it."""

    name: str
    query: str
    error: str
    """Of its last evaluation; empty when that went well."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """One endpoint of a pod as Prometheus scrapes it."""

    endpoint: str
    health: str
    """up, down, or unknown before the first scrape."""
    error: str


@dataclass(frozen=True, slots=True)
class PrometheusView:
    """What Prometheus said of itself last."""

    url: str
    error: str = ""
    """Why it said nothing; then the rest is empty."""
    rules: Mapping[str, tuple[RuleFacts, ...]] = field(default_factory=dict)
    """Rule group -> its alerting rules."""
    targets: Mapping[tuple[str, str], tuple[TargetFacts, ...]] = field(default_factory=dict)
    """(namespace, pod) -> what is scraped of it."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """Of a `PrometheusView`, what concerns one deployment."""

    url: str
    error: str
    rules: tuple[RuleFacts, ...] = ()
    targets: Mapping[str, tuple[TargetFacts, ...]] = field(default_factory=dict)
    """Pod -> what is scraped of it."""


@dataclass(frozen=True, slots=True)
class SuiteSource:
    """A golden suite as found: read well, or why not."""

    name: str
    header_text: str
    items_text: str
    suite: Suite | None = None
    problem: str = ""
    reference_text: str = ""
    digest: str = ""
    """Of all its files."""
    signer: str = ""
    """Public key whose signature it bears and which fits; empty: it bears none."""
    reached: Measured | None = None
    """What its reference engine reached on it, in the condition that it did worst in; None where none is recorded."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """Of the pooled detector of a revision, what a pass decides by. Evidence is a share of what raises the alarm."""

    revision: str
    suite_hash: str
    evidence: float = 0.0
    without_worst: float = 0.0
    """The least that is left when any one pod is left out."""
    worst: str = ""
    """That pod; empty where there are not two."""
    before_alarm: Mapping[str, str] = field(default_factory=dict)
    """Pod -> when its last sweep ended, as it stood when `without_worst` reached its alarm."""
    checkpoint: str = ""
    """What is to be written down now; what was written last, while nothing is due."""
    acknowledged: str = ""
    """The acknowledgement since which it hears."""

    def is_of(self, revision: str, suite_hash: str, acknowledged: str) -> bool:
        """Whether it is evidence on this revision under what is in force now."""
        return (self.revision, self.suite_hash, self.acknowledged) == (revision, suite_hash, acknowledged)


@dataclass(frozen=True, slots=True)
class WaveView:
    """What the other deployments of the cluster leave one to begin (`waves.Waves`)."""

    is_granted: bool = True
    """Whether it has a slot, from now to the end of this pass."""
    stopped: frozenset[str] = frozenset()
    """Waves of which a candidate has failed, and nobody has looked since."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that a pass knows of one R1PlusDeployment."""

    cr: Json
    engines: tuple[Engine, ...]
    suites: Mapping[str, SuiteSource]
    """By name: those that may be needed, the tenant's own before the shipped ones."""
    nodes: tuple[NodeFacts, ...]
    children: Mapping[tuple[str, str], Json]
    """(kind, name) -> live object, owned by this CR."""
    pods: tuple[PodFacts, ...] = ()
    reports: Mapping[str, MonitorReport] = field(default_factory=dict)
    """Pod name -> what its monitor said last."""
    kinds: frozenset[str] = frozenset()
    """Optional kinds that this cluster has: PodMonitor, PrometheusRule."""
    wiring: Wiring | None = None
    """What Prometheus says of this deployment; None while nobody asks it or it was not asked yet."""
    pool: PoolView | None = None
    """The pooled detector of the revision that was watched last; None before there is one."""
    endpoints: frozenset[str] | None = None
    """Names of the pods to which the Service leads; None while no EndpointSlice tells of it."""
    refused: str = ""
    """Which write the API server refused in the pass before, in its words."""
    tenant: TenantView | None = None
    """The namespace as a tenant; None: no cluster is at hand."""
    strangers: tuple[PodFacts, ...] = ()
    """Pods that bear the labels of a revision and were not made by it; nobody believes them."""

    unproven: frozenset[str] = frozenset()
    """Pods whose monitors report a Pass that nothing proves (`plan.proof`); it is taken out of their reports."""
    volumes: Mapping[str, VolumeFacts] = field(default_factory=dict)
    """By name: the namespace's volumes for engines."""
    volumes_refused: Mapping[str, str] = field(default_factory=dict)
    """By name: which write for a volume the API server refused, in its words."""
    mounted: tuple[SuiteSource, ...] | None = None
    """The suites in the ConfigMap that the monitors have mounted, trusted or not; None: they were not read."""
    wave: WaveView = WaveView()
    suite_names: frozenset[str] = frozenset()
    """Of all suites that there are, for who named another one."""

    @property
    def name(self) -> str:
        """The CR's name."""
        return str(self.cr["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The tenant."""
        return str(self.cr["metadata"]["namespace"])
