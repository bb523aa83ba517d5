"""R1PlusDeployment: the pydantic models are the single source of the CRD, of defaults and of validation.

Generated from here: charts/r1plus-operator/crds (`make generate`). The API server refuses what the schema and the CEL
rules can refuse; the same models validate again in every pass, since an object may be older than its CRD.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from r1plus_contract.verdict import Gate
from r1plus_model_repo.catalog.types import Tier
from r1plus_model_repo.catalog.wire import (
    DNS_LABEL,
    DNS_SUBDOMAIN,
    LABEL_VALUE,
    WHOLE,
    ApiModel,
    Number,
    Rule,
    build_rules_config,
    drop_nulls,
)
from r1plus_policies.rollback.response import OnBreach
from r1plus_policies.rollout import Strategy

MAX_NAME = 40
"""A deployment's name is a prefix of every child's; 40 leaves room for `-<hash>` within 63 characters."""
DNS_1035 = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""The name becomes a Service's, which must start with a letter."""
LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
PUBLIC_KEY = r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
"""32 bytes in base64, written the one canonical way: two bits of the last digit are left over."""
TIME = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"
"""A pattern, not `format: date-time`: with a format kube-apiserver takes a list for a string (1.34)."""

DeploymentName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=DNS_1035)]
"""`metadata.name`, to which the CRD's CEL rules hold it."""
Count = Annotated[int, Field(ge=0), WHOLE]
NOT_OBSERVED = -1
"""`observedGeneration` of an object that the operator has not seen: no generation, so kstatus says InProgress."""
ObservedGeneration = Annotated[int, Field(ge=NOT_OBSERVED), WHOLE]
Flag = Annotated[bool, Field(strict=True)]
"""true or false; the API server takes no other word or number for them."""
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
LabelKey = Annotated[str, Field(min_length=1, max_length=253, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]
PublicKey = Annotated[str, Field(min_length=44, max_length=44, pattern=PUBLIC_KEY)]


class EngineSelector(ApiModel):
    """Narrows the choice of the engine; without it the newest measured engine of the tier is taken."""

    family: DnsLabel | None = Field(
        None, description="Model family, e.g. `r1plus` or `smollm2`. Default: the chart's `defaultFamily`."
    )
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", max_length=32)] | None = Field(
        None, description="Exact version of the engine. Default: the newest."
    )
    precision: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=16)] | None = Field(
        None,
        description="Precision of the weights, e.g. FP16, Q8_0. Default: that of the newest measured engine that fits.",
    )


class Batching(ApiModel):
    """How many requests run at once."""

    max_batch_size: Annotated[int, Field(ge=1, le=1024), WHOLE] | None = Field(
        None, description="Most requests that run at once. Default: the largest that fits, at most the engine's best."
    )


class Context(ApiModel):
    """How long prompt and answer may be together."""

    max_tokens: Annotated[int, Field(ge=16, le=1_048_576), WHOLE] | None = Field(
        None, description="Most tokens of prompt and answer together. Default: the engine's own."
    )


_KEY_RULE = Rule(
    "has(self.key) || has(self.operator) && self.operator == 'Exists'", "key is needed unless operator is Exists"
)
_EXISTS_ALONE = Rule(
    "!has(self.value) || self.value == '' || !has(self.operator) || self.operator != 'Exists'",
    "value must be empty where operator is Exists",
)
_FOR_A_WHILE = Rule(
    "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
    "tolerationSeconds needs effect NoExecute",
)


class Toleration(ApiModel):
    """As in a pod's `spec.tolerations`, and held to the same rules: a pod template is refused long after this."""

    model_config = build_rules_config(_KEY_RULE, _EXISTS_ALONE, _FOR_A_WHILE)

    key: LabelKey | None = Field(None, description="Taint key; without one operator Exists matches all keys.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="Exists or Equal. Default: Equal.")
    value: LabelValue | None = Field(None, description="Taint value to match.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint effect; without one all effects match."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] | None = Field(
        None, description="How long a NoExecute taint is tolerated."
    )

    @model_validator(mode="after")
    def _check_toleration(self) -> "Toleration":
        exists = self.operator == "Exists"
        if self.key is None and not exists:
            raise ValueError(_KEY_RULE.message)
        if self.value and exists:
            raise ValueError(f"{_EXISTS_ALONE.message}: {self.value}")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(f"{_FOR_A_WHILE.message}: {self.effect}")
        return self


class Placement(ApiModel):
    """Which nodes may serve."""

    node_selector: Annotated[dict[LabelKey, LabelValue], BeforeValidator(drop_nulls)] = Field(
        default_factory=dict, max_length=32, description="Labels a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field((), max_length=32, description="Taints that the pods tolerate.")


class Accuracy(ApiModel):
    """Which accuracy is required, and what happens below it."""

    suite: Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_SUBDOMAIN)] | None = Field(
        None,
        description="Golden suite: a shipped one, or a ConfigMap of this namespace. Default: the engine's own.",
    )
    suite_keys: tuple[PublicKey, ...] = Field(
        (),
        max_length=8,
        description="Ed25519 public keys (base64) that may sign this deployment's suite, as the platform's may.",
    )
    threshold: Number = Field(
        0.98,
        gt=0,
        le=1,
        description="Lowest share of the suite's items that must be right: N(1-threshold), rounded down, may be lost.",
    )
    gate: Gate = Field(
        Gate.ENFORCE,
        description="Enforce: a revision takes traffic only after a Pass. Observe: it serves without one, monitored.",
    )
    on_breach: OnBreach = Field(
        OnBreach.ALERT,
        description=(
            "What happens when accuracy falls below the threshold. Alert: alerts only. Rollback: a single bad pod is"
            " quarantined and replaced; a bad revision is rolled back to the last good one, if that passes again."
        ),
    )
    allow_lower: Flag = Field(
        False,
        description=(
            "Allow an engine that scored lower on the same suite than the one that serves. Otherwise it is skipped, or"
            " rejected if the spec asks for it (ReferenceLower)."
        ),
    )
    probes_per_minute: Annotated[int, Field(ge=1, le=6000), WHOLE] = Field(
        6, description="Rate of the continuous check, per pod. The gate itself, before traffic, is not limited."
    )


_UP_TO_A_DAY = r"^([1-9][0-9]{0,3}s|[1-9][0-9]{0,2}m|([1-9]|1[0-9]|2[0-4])h)$"


class RolloutTerms(ApiModel):
    """How a new revision takes over."""

    strategy: Strategy = Field(
        Strategy.BLUE_GREEN,
        description="BlueGreen: both revisions run, no outage. InPlace: the current one stops first, to make room.",
    )
    deadline: Annotated[str, Field(pattern=_UP_TO_A_DAY, max_length=5)] = Field(
        "1h",
        description=(
            "Time for a candidate to be promoted, e.g. 90s, 30m, 2h; at most 24h. After it the candidate is withdrawn."
        ),
    )
    drain: Annotated[str, Field(pattern=_UP_TO_A_DAY, max_length=5)] = Field(
        "10m",
        description=(
            "Most time for which pods that lose traffic stay for the requests that they run, e.g. 90s, 10m, 2h; at most"
            " 24h. A pod that is deleted waits by the value that its revision was made with."
        ),
    )
    pinned: Flag = Field(
        False,
        description=(
            "Traffic stays at the current revision: neither a new spec nor a rollback moves it. A first revision still"
            " comes up."
        ),
    )

    paused: Flag = Field(
        False,
        description=(
            "The operator rolls out, promotes, rolls back, quarantines and repairs nothing except network policies."
            " Probes and alerts go on. The time counts towards the deadline of a candidate."
        ),
    )

    @property
    def deadline_seconds(self) -> float:
        """`deadline` in seconds."""
        return _read_duration(self.deadline)

    @property
    def drain_seconds(self) -> float:
        """`drain` in seconds."""
        return _read_duration(self.drain)


def _read_duration(text: str) -> float:
    """Return the seconds of a whole number with its unit."""
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


class DeliveryMode(StrEnum):
    """By which way an engine's files get to its pods."""

    IMAGE = "Image"
    VOLUME = "Volume"


class Delivery(ApiModel):
    """How the engine's files get to the pods."""

    mode: DeliveryMode | None = Field(
        None,
        description=(
            "Image: each pod copies the files from the engine's image. Volume: a Job fetches them once to a volume of"
            " this namespace, and the pods mount it. Default: Image where the engine has one, else Volume."
        ),
    )


class AccessTerms(ApiModel):
    """Who may call the model."""

    namespaces: tuple[DnsLabel, ...] = Field(
        (), max_length=64, description="Other namespaces whose pods may call; this namespace always may."
    )


class R1PlusDeploymentSpec(ApiModel):
    """What a tenant asks for. Only `tier` is required."""

    tier: Tier = Field(description="Service level: full (12B), lite (3B) or edge (0.7B).")
    engine: EngineSelector = Field(default_factory=EngineSelector, description="Narrows the choice of the engine.")
    batching: Batching = Field(default_factory=Batching, description="How many requests run at once.")
    context: Context = Field(default_factory=Context, description="How long prompt and answer may be.")
    replicas: Annotated[int, Field(ge=0, le=100), WHOLE] = Field(1, description="Serving pods of the current revision.")
    placement: Placement = Field(default_factory=Placement, description="Which nodes may serve.")
    accuracy: Accuracy = Field(default_factory=Accuracy, description="Required accuracy, and the response.")
    rollout: RolloutTerms = Field(default_factory=RolloutTerms, description="How a new revision takes over.")
    access: AccessTerms = Field(default_factory=AccessTerms, description="Who may call the model.")
    delivery: Delivery = Field(default_factory=Delivery, description="How the engine's files get to the pods.")


class Condition(ApiModel):
    """As in metav1.Condition."""

    type: Annotated[str, Field(max_length=64)] = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, Field(max_length=128)] = Field(description="Stable CamelCase reason.")
    message: Annotated[str, Field(max_length=4096)] = Field(
        "", description="What is wrong, why, and what to do; for people."
    )
    observed_generation: Count = Field(0, description="metadata.generation that this was computed from.")
    last_transition_time: Annotated[str, Field(max_length=20, pattern=TIME)] = Field(
        description="When `status` last changed; RFC 3339, UTC, whole seconds."
    )


class Incident(ApiModel):
    """An accuracy drop: the score before and now, what was tried, what comes next."""

    since: Annotated[str, Field(max_length=20, pattern=TIME)] = Field(description="When it was first seen.")
    revision: Annotated[str, Field(max_length=63)] = Field(description="Revision whose accuracy dropped.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why the operator acts, or does not; CamelCase.")
    before: Annotated[str, Field(max_length=32)] = Field("", description="Right / all items at the gate.")
    now: Annotated[str, Field(max_length=32)] = Field("", description="Right / all items as last counted.")
    lost: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        (), max_length=32, description="Items lost since the gate, a line per stratum."
    )
    tried: tuple[Annotated[str, Field(max_length=512)], ...] = Field(
        (), max_length=8, description="What the operator did about it."
    )
    next: Annotated[str, Field(max_length=2048)] = Field(
        "", description="What the operator does next, or what a person must do."
    )
    runbook: Annotated[str, Field(max_length=256)] = Field("", description="URL of the runbook.")


class RuntimeStatus(ApiModel):
    """Which images serve, the engine's apart, and whether newer ones are available."""

    triton: Annotated[str, Field(max_length=512)] = Field("", description="Image of Triton.")
    monitor: Annotated[str, Field(max_length=512)] = Field("", description="Image of the accuracy monitor.")
    outdated: Flag = Field(False, description="Whether newer images are available: see `r1plus refresh`.")
    vulnerable: Flag = Field(False, description="Whether the chart's `runtime.vulnerable` names one of them.")
    reason: Annotated[str, Field(max_length=64)] = Field(
        "", description="Current, RuntimeOutdated, RefreshWaits, RefreshUnderWay or RefreshFailed."
    )
    message: Annotated[str, Field(max_length=1024)] = Field(
        "", description="What happens with newer images, for people."
    )


class R1PlusDeploymentStatus(ApiModel):
    """Derived from the cluster in every pass; only `accuracy_configs` is read back, as what was written before."""

    observed_generation: ObservedGeneration = Field(
        NOT_OBSERVED, description="The generation last acted on; -1: none yet, so that GitOps tools wait."
    )
    revision: Annotated[str, Field(max_length=63)] | None = Field(None, description="Revision that takes traffic.")
    candidate: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Revision being brought up or refused."
    )
    engine: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Engine of the revision that takes traffic."
    )
    gpu: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="GPU product that it runs on; absent on CPU."
    )
    batch: Annotated[int, Field(ge=1), WHOLE] | None = Field(None, description="Most requests that run at once.")
    context: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="Most tokens of prompt and answer together."
    )
    suite: Annotated[str, Field(max_length=63)] | None = Field(None, description="Golden suite in force.")
    accuracy: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="Right / all items of the suite, as last counted."
    )
    verdict: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="Pass, Fail, Inconclusive, NoData or Error."
    )
    reason: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Why it does not serve. If it serves: why the spec is not rolled out. A condition's reason.",
    )
    last_good: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Rollback target: the newest earlier revision that passed this suite and served for the bake time.",
    )
    rollback_blockers: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        (), max_length=8, description="Without a rollback target: why each earlier revision cannot be one."
    )
    last_request: Annotated[str, Field(max_length=256)] | None = Field(
        None,
        description="The last requested rollback, pin, unpin, pause, resume, ack or refresh: its time and its user.",
    )
    accuracy_configs: tuple[Annotated[str, Field(max_length=64)], ...] = Field(
        (),
        max_length=16,
        description="Digests of what ConfigMap NAME-accuracy held, the newest last. A Pass counts if it ran under one.",
    )
    requests: Count = Field(0, description="Number of the newest request: each has the next one.")
    acknowledged: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Time and number of the newest ack: it remains in force without its annotation."
    )
    unpinned: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Time and number of the newest unpin: it remains in force without its annotation."
    )
    request_refused: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Why the requested rollback is not carried out, and what to do."
    )
    refresh_refused: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Why the requested refresh is not carried out, and what to do."
    )
    runtime: RuntimeStatus | None = Field(None, description="Which images serve, and whether newer ones are available.")
    incident: Incident | None = Field(None, description="The accuracy drop that is being handled, if any.")
    replicas: Count = Field(0, description="Pods of the current revision.")
    ready_replicas: Count = Field(0, description="Ready pods of the current revision.")
    endpoint: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="host:port of Triton's gRPC inside the cluster."
    )
    conditions: tuple[Condition, ...] = Field(
        (), max_length=16, description="What holds and what does not, why, and what to do."
    )

    @model_validator(mode="after")
    def _check_condition_types(self) -> "R1PlusDeploymentStatus":
        """`x-kubernetes-list-type: map`, keyed by type."""
        types = [condition.type for condition in self.conditions]
        if len(types) != len(set(types)):
            raise ValueError("conditions: one type twice")
        return self
