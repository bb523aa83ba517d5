"""Facts for the registry: final observations of the operator. `POST /v1/facts` takes a `Facts`.

Each fact has a natural key, named at its class: the same fact sent again is recorded once. The registry answers with
the same types. Ids of items, never their texts.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from r1plus_contract.verdict import GateReport

AUDIENCE: Final = "r1plus-registry"
"""Audience of the tokens for the registry; they are valid nowhere else."""
PORT: Final = 8080
MOST_BODY_BYTES: Final = 4 * 1024 * 1024
"""Of a delivery."""
MOST_LISTED: Final = 500
"""Evaluations in one answer, and entries of each kind in a history: the newest."""


class RolloutEvent(StrEnum):
    """What happened to a revision."""

    CANDIDATE = "Candidate"
    """It was requested and created; it does not serve yet."""
    PROMOTED = "Promoted"
    """Traffic went to it."""
    CONTROL_BEGAN = "ControlBegan"
    """Accuracy dropped or a person requested it: `to` starts without traffic and is gated again."""
    CONTROL_PASSED = "ControlPassed"
    CONTROL_FAILED = "ControlFailed"
    ROLLED_BACK = "RolledBack"
    """Traffic went from it back to `to`."""
    REQUESTED = "Requested"
    """A person requested something about it, or about the deployment: `cause` is the verb."""


@dataclass(frozen=True, slots=True)
class DeploymentFact:
    """An R1PlusDeployment from its creation to its end. Key: uid."""

    uid: str
    namespace: str
    name: str
    namespace_uid: str = ""
    """A namespace created again under the same name is another tenant's. Empty: not known yet."""


@dataclass(frozen=True, slots=True)
class EngineFact:
    """An R1PlusEngine as the catalog had it. Key: name and digest of the spec."""

    name: str
    spec_digest: str
    family: str
    tier: str
    version: str
    precision: str
    backend: str
    image: str
    """Image with the files; empty where only the shape is published."""
    sha256: str
    """Of the files; empty where only the shape is published."""
    suite: str
    """Golden suite of the engine."""
    inherited_from: str = ""
    """Engine whose reference it claims to reach; empty where its own was measured."""
    claimed_by: str = ""
    """Source of its figures, where they were not measured here."""
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """An item of a golden suite, without its text."""

    id: str
    stratum: str


@dataclass(frozen=True, slots=True)
class SuiteFact:
    """A golden suite. Key: namespace and sha256, which covers items, sampling and scorer version."""

    namespace: str
    """Of the tenant that owns it; empty for a shipped one."""
    name: str
    version: str
    sha256: str
    scorer_version: str
    reference_engine: str
    signer: str = ""
    """Public key of its signature; empty: none."""
    items: tuple[SuiteItem, ...] = ()


@dataclass(frozen=True, slots=True)
class RevisionFact:
    """A revision of a deployment. Key: deployment and name."""

    deployment: str
    """uid of the R1PlusDeployment."""
    name: str
    number: int
    engine: str
    engine_digest: str
    """sha256 of the engine's files."""
    batch: int
    """Most requests that run at once."""
    context: int
    """Most tokens of prompt and answer together."""
    identity_digest: str
    identity: dict[str, Any] = field(default_factory=dict)
    """The serving identity, as the revision stores it."""
    monitor_image: str = ""


@dataclass(frozen=True, slots=True)
class EvaluationFact:
    """A gate's report on a revision. The report has identity, suite and scorer.

    Key: deployment, revision, and of the report suite hash, scorer version, threshold, batch, control, acknowledged,
    verdict, lost and when it was decided.
    """

    deployment: str
    revision: str
    report: GateReport


@dataclass(frozen=True, slots=True)
class RolloutFact:
    """A step of a rollout or of a rollback. Key: deployment, revision, event and time."""

    deployment: str
    revision: str
    event: RolloutEvent
    at: float
    """Seconds since the epoch."""
    to: str = ""
    """The revision that traffic goes back to; empty for steps forward."""
    cause: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class AlarmFact:
    """An accuracy drop as reported, or a detector's alarm. Key: deployment, revision, source, reason and since."""

    deployment: str
    revision: str
    source: str
    """`deployment`, or `pod/NAME`."""
    reason: str
    since: str
    """RFC 3339."""
    before: str = ""
    """Right / all items at the gate."""
    now: str = ""
    lost: tuple[str, ...] = ()
    """Items lost since the gate."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One delivery, recorded atomically. Facts about a deployment come with it or after it."""

    deployments: tuple[DeploymentFact, ...] = ()
    engines: tuple[EngineFact, ...] = ()
    suites: tuple[SuiteFact, ...] = ()
    revisions: tuple[RevisionFact, ...] = ()
    evaluations: tuple[EvaluationFact, ...] = ()
    rollouts: tuple[RolloutFact, ...] = ()
    alarms: tuple[AlarmFact, ...] = ()
    live: tuple[str, ...] | None = None
    """uids of all existing R1PlusDeployments: every other one has ended. None: not reported this time."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How many of the facts were new, by kind. All facts are recorded when this is returned."""

    recorded: dict[str, int]


@dataclass(frozen=True, slots=True)
class History:
    """All that is recorded of one deployment, oldest first."""

    deployment: DeploymentFact
    ended: bool = False
    revisions: tuple[RevisionFact, ...] = ()
    evaluations: tuple[EvaluationFact, ...] = ()
    rollouts: tuple[RolloutFact, ...] = ()
    alarms: tuple[AlarmFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Histories:
    """The answer to `GET /v1/namespaces/NS/deployments/NAME`: the newest of that name first."""

    items: tuple[History, ...]


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item of an evaluation. `right` is None where the report does not name every item that was lost."""

    item: str
    stratum: str
    right: bool | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation with the names of what was evaluated."""

    namespace: str
    deployment: str
    """Name of the R1PlusDeployment."""
    revision: str
    engine: str
    report: GateReport
    items: tuple[ItemResult, ...] = ()
    """Item by item, where that was requested and the suite is known."""


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The answer to `GET /v1/evaluations`, newest first."""

    items: tuple[Evaluation, ...]


@dataclass(frozen=True, slots=True)
class RecordedEngine:
    """An engine of the catalog, now or formerly, and when it was first seen."""

    engine: EngineFact
    recorded_at: str
    evaluations: int = 0
    """Its gates in all deployments."""
    passed: int = 0


@dataclass(frozen=True, slots=True)
class RecordedEngines:
    """The answer to `GET /v1/engines`, by name, the newest first."""

    items: tuple[RecordedEngine, ...]
