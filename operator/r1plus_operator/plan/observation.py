"""What a pass plans from: values that `observe` gathered. Nothing here talks to anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1plus_contract.engine_fetch import FillProgress
from r1plus_contract.suite import Suite
from r1plus_contract.suite_baseline import Measured
from r1plus_contract.verdict import MonitorReport
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.tenants import TenantPlacement
from r1plus_policies.engine.hardware import Gpus

Json = dict[str, Any]
JOB_ENDED = "ended"
"""Key of a kept Job, beside its own, once it has ended: `type` (Complete, Failed), `at` (seconds since the epoch), and
`final`: the same would fail again."""
REFUSED_PODS = "refusedPods"
"""Key of a kept Deployment, beside its own: why the API server lets it make no pods."""


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
    """What its quarantine says (`rollback.quarantine`); None where it is in none."""
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
    """Pods whose monitors report a Pass that nothing proves (`accuracy.proof`); it is taken out of their reports."""
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
