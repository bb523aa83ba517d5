"""The observation: what one reconcile pass has read. These are values; `observe` gathers them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1plus_contract.engine.engine_fetch import FillProgress
from r1plus_contract.suites.suite import Suite
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_contract.verdict import MonitorReport
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.tenants import TenantPlacement
from r1plus_policies.engine.hardware import Gpus

Json = dict[str, Any]
JOB_ENDED = "ended"
"""Additional key of a cached Job that has ended: `type` (Complete, Failed), `at` (seconds since the epoch), and
`final` (a retry would fail the same way)."""
RESTORED = "restored"
"""Additional key of a ControllerRevision that was made again from other objects (`plan.revision.restored`)."""
REFUSED_PODS = "refusedPods"
"""Additional key of a cached Deployment: why the API server refuses its pods."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint that keeps pods away."""

    key: str
    value: str
    effect: str
    """NoSchedule or NoExecute."""

    @property
    def text(self) -> str:
        """The taint as kubectl prints it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node's properties that decide what fits on it. Bytes and cores are allocatable ones."""

    name: str
    memory_bytes: int
    cores: float
    labels: Mapping[str, str]
    gpus: tuple[Gpus, ...] = ()
    addresses: tuple[str, ...] = ()
    """IP addresses."""
    taints: tuple[Taint, ...] = ()
    is_ready: bool = True
    is_cordoned: bool = False
    storage_bytes: int | None = None
    """Ephemeral storage; None: the node does not report it, and takes no pod that requests any."""


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A namespace's properties that matter for a tenant."""

    name: str
    uid: str
    is_tenant: bool
    """Whether it has the label that the platform team sets on tenants."""
    pod_security: str
    """Pod Security level that is enforced; empty: none."""
    is_terminating: bool = False
    created_at: str = ""
    """RFC 3339, as the API server wrote it."""
    assigns_users: bool = False
    """Whether it assigns users from its own range and refuses pods that set others (OpenShift)."""


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Who issues ServiceAccounts' tokens, and with which keys, as the API server says."""

    issuer: str
    jwks: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class GatewayView:
    """What the passes over a tenant's deployments need to know about its gateway."""

    is_exclusive: bool = False
    """Whether only the gateway may call the models."""
    unreachable: frozenset[str] = frozenset()
    """Deployments without a headless Service, because another deployment has its name."""


@dataclass(frozen=True, slots=True)
class TenantView:
    """What the passes over a tenant's deployments need to know about the tenant."""

    status: str
    reason: str
    message: str
    """Status, reason and message of the namespace's condition IsolationVerified."""
    is_tenant: bool = True
    """Whether new revisions may be rolled out in it."""
    callers: frozenset[str] = frozenset()
    """Namespaces that a deployment may accept calls from."""
    placement: TenantPlacement | None = field(default_factory=TenantPlacement)
    """Nodes that its models may run on; None: no cluster is at hand."""
    unreadable: str = ""
    """Why its R1PlusTenant cannot be read, so that its limits are unknown; empty: it can, or there is none."""
    assigns_users: bool = False
    """Whether the namespace assigns users (`NamespaceFacts`)."""
    run_as_user: int | None = None
    """User of its pods; None: the same as everywhere."""
    gateway: GatewayView | None = None
    """Its gateway; None: there is none."""


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A container or init container of a pod."""

    name: str
    ready: bool
    waiting_reason: str = ""
    terminated_reason: str = ""
    message: str = ""
    """Message of the waiting or last terminated state, such as the termination log of `verify`."""
    exit_code: int | None = None
    image_digest: str = ""
    """Digest of the image that its node runs; empty: the node reports none that is valid in every registry."""
    runs_again: bool = False
    """Whether it runs after an end, of which the message and the exit code are."""

    @property
    def is_running(self) -> bool:
        """Whether it has started and not ended."""
        return self.runs_again or (self.exit_code is None and not self.waiting_reason)

    @property
    def has_pull_error(self) -> bool:
        """Whether its node cannot pull its image."""
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
    """The scheduler's message while it finds no node; empty: it finds one."""
    containers: tuple[ContainerFacts, ...] = ()
    replica_set: str = ""
    """Name of its controller, if that is a ReplicaSet."""
    fingerprint: str = ""
    """Hash of what it runs (`pod.hash_pod_spec`)."""
    images: tuple[str, ...] = ()
    """Images of its containers (`pod.list_images`)."""
    owner_uid: str = ""
    """uid of the R1PlusDeployment that it was created for."""
    uid: str = ""
    node: str = ""
    """Its node; empty before it is scheduled."""
    quarantine: str | None = None
    """The quarantine record (`plan.rollback.quarantine`); None: it is not in quarantine."""
    failure_reason: str = ""
    """Why its node rejected or evicted it; empty: it did not. Such a pod has ended, perhaps without containers."""
    grace_ends_at: float = 0.0
    """End of its grace period, seconds since the epoch; 0: it is not deleted."""
    unschedulable_since: float | None = None
    """Seconds since the epoch."""
    ready_since: float | None = None
    """Seconds since the epoch; None while it is not ready."""
    volumes_pending_since: float | None = None
    """When it was scheduled, seconds since the epoch, while its node has not prepared it; None: the node has.

    Preparing is mounting volumes, for which Secrets and ConfigMaps must exist, and creating the pod's network.
    """

    def is_made_by(self, revision: str) -> bool:
        """Whether the Deployment of a revision created it, by its label and its ReplicaSet.

        A ReplicaSet releases a pod in quarantine.
        """
        is_released = self.quarantine is not None and not self.replica_set
        return self.revision == revision and (is_released or self.replica_set.rpartition("-")[0] == revision)


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """An engine volume, and the Job that fetches the engine onto it."""

    delivered_digest: str = ""
    """Digest of the engine that is verified on the volume; empty: none yet."""
    has_failed: bool = False
    """Whether the Job, or the TrainJob, has given up."""
    has_train_job: bool = False
    """Whether a TrainJob trains the engine, or has."""
    train_job_message: str = ""
    """Why it has ended; empty: it runs, or there is none."""
    pods: tuple[PodFacts, ...] = ()
    """Pods of the Job, sorted by name."""
    progress: FillProgress | None = None
    """The Job's last progress report."""


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """An alerting rule that Prometheus has loaded."""

    name: str
    query: str
    error: str
    """Error of its last evaluation; empty: it succeeded."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """An endpoint of a pod that Prometheus scrapes."""

    endpoint: str
    health: str
    """up, down, or unknown before the first scrape."""
    error: str


@dataclass(frozen=True, slots=True)
class PrometheusView:
    """The last answers of Prometheus about its rules and targets."""

    url: str
    error: str = ""
    """Why it did not answer; then the rest is empty."""
    rules: Mapping[str, tuple[RuleFacts, ...]] = field(default_factory=dict)
    """Rule group -> its alerting rules."""
    targets: Mapping[tuple[str, str], tuple[TargetFacts, ...]] = field(default_factory=dict)
    """(namespace, pod) -> its scraped endpoints."""


@dataclass(frozen=True, slots=True)
class PrometheusState:
    """The part of a `PrometheusView` about one deployment."""

    url: str
    error: str
    rules: tuple[RuleFacts, ...] = ()
    targets: Mapping[str, tuple[TargetFacts, ...]] = field(default_factory=dict)
    """Pod -> its scraped endpoints."""


@dataclass(frozen=True, slots=True)
class SuiteSource:
    """A golden suite, or why it cannot be read."""

    name: str
    header_text: str
    items_text: str
    suite: Suite | None = None
    problem: str = ""
    reference_text: str = ""
    digest: str = ""
    """Digest of all its files."""
    signer: str = ""
    """Public key of its valid signature; empty: it has none."""
    reference_result: Measurement | None = None
    """Result of its reference engine in the condition with the lowest score; None: none is recorded."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """State of a revision's pooled detector. Evidence is a share of what raises the alarm."""

    revision: str
    suite_hash: str
    evidence: float = 0.0
    without_worst: float = 0.0
    """The least evidence that remains when one pod is left out."""
    worst: str = ""
    """That pod; empty: there are fewer than two."""
    before_alarm: Mapping[str, str] = field(default_factory=dict)
    """Pod -> end of its last sweep at the moment when `without_worst` reached its alarm."""
    checkpoint: str = ""
    """The checkpoint to store now; the last stored one while none is due."""
    acknowledged: str = ""
    """The acknowledgement since which it collects evidence."""

    def is_of(self, revision: str, suite_hash: str, acknowledged: str) -> bool:
        """Whether it is evidence about this revision under the current suite and acknowledgement."""
        return (self.revision, self.suite_hash, self.acknowledged) == (revision, suite_hash, acknowledged)


@dataclass(frozen=True, slots=True)
class WaveView:
    """Whether a deployment may begin a candidate of a wave, given the other deployments (`waves.Waves`)."""

    is_granted: bool = True
    """Whether it has a slot until the end of this pass."""
    stopped_waves: frozenset[str] = frozenset()
    """Waves with a failed candidate that is not acknowledged yet."""


@dataclass(frozen=True, slots=True)
class AgeBounds:
    """How old something is that a monitor reports, in seconds by the operator's clock."""

    least: float = 0.0
    """Since this leader first read it."""
    most: float = math.inf
    """Since this leader read a report without it; infinite: it never has."""

    def date(self, ended_at: float, now: float) -> float:
        """Return when it ended, in seconds since the epoch: what the monitor says, within the bounds."""
        return min(max(ended_at, now - self.most), now - self.least)


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that a pass has read about one R1PlusDeployment."""

    cr: Json
    engines: tuple[Engine, ...]
    suites: Mapping[str, SuiteSource]
    """Name -> suite that may be needed; a tenant's own suite takes precedence over a shipped one."""
    nodes: tuple[NodeFacts, ...]
    children: Mapping[tuple[str, str], Json]
    """(kind, name) -> live object that this CR owns."""
    pods: tuple[PodFacts, ...] = ()
    reports: Mapping[str, MonitorReport] = field(default_factory=dict)
    """Pod name -> last report of its monitor."""
    kinds: frozenset[str] = frozenset()
    """Optional kinds that the cluster has: PodMonitor, PrometheusRule."""
    prometheus_state: PrometheusState | None = None
    """What Prometheus reports about this deployment; None: it was not queried."""
    pool: PoolView | None = None
    """Pooled detector of the revision that was monitored last; None: there is none yet."""
    endpoints: frozenset[str] | None = None
    """Names of the Service's ready endpoints; None: there is no EndpointSlice yet."""
    write_error: str = ""
    """The write that the API server refused in the last pass, with its message; empty: none."""
    write_objection: str = ""
    """Why this pass may write nothing but the status, with the remedy; empty: it may."""
    tenant: TenantView | None = None
    """The namespace as a tenant; None: no cluster is at hand."""
    foreign_pods: tuple[PodFacts, ...] = ()
    """Pods that have a revision's labels but were not created by it; their reports are ignored."""
    unproven: frozenset[str] = frozenset()
    """Pods whose monitors report a Pass without proof (`plan.accuracy.proof`); it is removed from their reports."""
    volumes: Mapping[str, VolumeFacts] = field(default_factory=dict)
    """Name -> engine volume of the namespace."""
    volume_write_errors: Mapping[str, str] = field(default_factory=dict)
    """Name of an engine volume -> the write that the API server refused, with its message."""
    mounted: tuple[SuiteSource, ...] = ()
    """Suites in the ConfigMap that the monitors mount, trusted or not, where one of them is not in `suites`."""
    wave: WaveView = WaveView()
    suite_names: frozenset[str] = frozenset()
    """Names of all existing suites, for the message about a suite that does not exist."""
    embedding_engines: tuple[EmbeddingEngine, ...] = ()
    """Engines that answer no prompts, for the message about an engine that does not exist."""
    count_ages: Mapping[str, AgeBounds] = field(default_factory=dict)
    """Pod name -> age of the count or the gate by which the pod's report stands."""
    sweep_ages: Mapping[str, AgeBounds] = field(default_factory=dict)
    """Pod name -> age of the last sweep in the pod's report."""

    @property
    def name(self) -> str:
        """The CR's name."""
        return str(self.cr["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The tenant's namespace."""
        return str(self.cr["metadata"]["namespace"])


def read_count_time(report: MonitorReport) -> str:
    """Return when the count or the gate ended by which the report stands, RFC 3339; empty: it does not say."""
    if report.watch and report.watch.confirmation:
        return report.watch.confirmation.finished_at
    return report.gate.decided_at if report.gate else ""
