"""From a valid spec to what shall serve: engine, batch, context, suite; or the first reason why not."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from r1plus_contract import names
from r1plus_contract.suite import Suite
from r1plus_contract.suite_files import key_id
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.delivery import EngineVolume, Undeliverable, delivery_of
from r1plus_operator.plan.engine.feasibility import Incumbent, Seat, condition_of, is_away, seated
from r1plus_operator.plan.observation import NodeFacts, SuiteSource
from r1plus_operator.plan.settings import OperatorConfig, SuiteTrust
from r1plus_policies.engine.hardware import Gpus
from r1plus_policies.engine.memory_fit import Fit
from r1plus_policies.engine.selection import (
    Choice,
    EngineCandidate,
    EngineRequest,
    Obstacle,
    ReferenceSource,
    SuiteScore,
    choose_engine,
)
from r1plus_policies.gate.reach import find_shortfall

MOST_LISTED = 20
"""Names of suites in a message."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the spec asks for, resolved."""

    engine: Engine
    fit: Fit
    suite: Suite
    source: SuiteSource
    choice: Choice
    volume: EngineVolume | None = None
    """Where the engine's files lie; None: in its image."""
    gpus: Gpus | None = None
    """Those that its pods are bound to; None: it runs on CPU, or no cluster is at hand."""
    counts_storage: bool = False
    """Whether its nodes count their ephemeral storage, so that its pods can ask for some."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the spec cannot be served now: the condition it falsifies, with reason and message."""

    condition: ConditionType
    reason: Reason
    message: str
    choice: Choice | None = None
    """Where no engine is taken: what stands before each."""


def resolve(
    spec: R1PlusDeploymentSpec,
    engines: tuple[Engine, ...],
    suites: dict[str, SuiteSource],
    nodes: tuple[NodeFacts, ...] | None,
    config: OperatorConfig,
    serving: str = "",
    delivered: Collection[str] = (),
    products: Sequence[str] = (),
    suite_names: Collection[str] = (),
    incumbent: Incumbent | None = None,
) -> Target | Problem:
    """The chain engine and fit -> delivery -> suite; the first that fails is the answer.

    `nodes=None`: no cluster is at hand. `serving` names the engine that takes traffic, whose reference is not lowered;
    `delivered` volumes (by name, or `EngineVolume.wish`) hold their engine; `products` are the GPUs of what serves and
    of what is on its way, the first first; `suite_names` are those of all suites, where `suites` has a part of them.
    `incumbent`: whether this one still fits, where the spec leaves its batch open.
    """
    found: dict[str, Seat] = {}
    obstacles: dict[str, Obstacle] = {}
    by_name = {engine.name: engine for engine in engines}

    def obstacle(offer: EngineCandidate) -> Obstacle | None:
        seat = seated(spec, by_name[offer.name], nodes, config.runtimes, products, incumbent)
        if isinstance(seat, Obstacle):
            obstacles[offer.name] = seat
            return seat
        found[offer.name] = seat
        return None

    choice = choose_engine(
        [offer_of(engine) for engine in engines], wish_of(spec, config, by_name.get(serving)), obstacle
    )
    waits = obstacles.get(serving)
    if waits and waits.reason == Reason.GPU_NOT_FOUND and is_away(spec, by_name[serving], nodes or (), products):
        # Another engine would be a large answer to a device plugin that starts anew.
        return Problem(ConditionType.CAPACITY_FITS, Reason.GPU_NOT_FOUND, waits.message, choice)
    if choice.engine is None:
        reason = Reason(choice.obstacle.reason) if choice.obstacle else Reason.ENGINE_NOT_FOUND
        return Problem(condition_of(reason), reason, choice.why, choice)
    engine = by_name[choice.engine]
    seat = found[engine.name]
    volume = delivery_of(spec, engine, seat, config, nodes, delivered)
    if isinstance(volume, Undeliverable):
        return Problem(volume.condition, volume.reason, volume.message, choice)
    suite = resolve_suite(spec.accuracy.suite or engine.spec.reference.suite, suites, suite_names)
    if isinstance(suite, Problem):
        return suite
    assert suite.suite is not None
    if problem := untrusted(spec, suite, config.suite_trust) or out_of_reach(spec, suite):
        return problem
    return Target(engine, seat.fit, suite.suite, suite, choice, volume, seat.gpus, seat.counts_storage)


def wish_of(spec: R1PlusDeploymentSpec, config: OperatorConfig, serving: Engine | None = None) -> EngineRequest:
    """The choice's question; `serving` is what takes traffic now."""
    return EngineRequest(
        spec.tier.value,
        spec.engine.family or config.default_family,
        spec.engine.version,
        spec.engine.precision,
        serving=_score(serving.spec) if serving else None,
        allow_lower=spec.accuracy.allow_lower,
    )


def offer_of(engine: Engine) -> EngineCandidate:
    """The choice's view of an engine."""
    spec = engine.spec
    standing = ReferenceSource.INHERITED if spec.reference.inherited_from else ReferenceSource.CLAIMED
    score = _score(spec)
    if score is not None:
        standing = ReferenceSource.MEASURED
    return EngineCandidate(engine.name, spec.family, spec.tier.value, spec.version, spec.precision, standing, score)


def _score(spec: EngineSpec) -> SuiteScore | None:
    """What the engine reached on its suite, in the condition that it did worst in; None: nobody measured it."""
    measured = spec.reference.measured
    if measured is None:
        return None
    return SuiteScore(spec.reference.suite, min(measured.correct_at_batch, measured.correct_at_batch_1), measured.items)


def resolve_suite(
    name: str, suites: dict[str, SuiteSource], suite_names: Collection[str] = ()
) -> SuiteSource | Problem:
    """The suite of that name, or what is wrong with it and what to do."""
    source = suites.get(name)
    if source is None:
        known = _listed(sorted({*suites, *suite_names}))
        text = (
            f"spec.accuracy.suite: {name}: no such suite is shipped, and this namespace has no ConfigMap {name} with"
            f" the label {names.LABEL_SUITE}; there are: {known}"
        )
        return Problem(ConditionType.QUALITY_VERIFIED, Reason.SUITE_NOT_FOUND, text)
    if source.suite is None:
        reason = Reason.SUITE_HASH_MISMATCH if "sha256 is" in source.problem else Reason.SUITE_INVALID
        text = f"spec.accuracy.suite: {source.problem}; build the suite again or name another"
        return Problem(ConditionType.QUALITY_VERIFIED, reason, text)
    return source


def _listed(suites: Sequence[str]) -> str:
    """The first of these names: a tenant may have thousands, and a condition is short."""
    more = len(suites) - MOST_LISTED
    return (", ".join(suites[:MOST_LISTED]) or "none") + (f" and {more} more" if more > 0 else "")


def untrusted(spec: R1PlusDeploymentSpec, source: SuiteSource, trust: SuiteTrust) -> Problem | None:
    """Why nobody vouches for this suite. It decides what may serve, which whoever may write a ConfigMap must not.

    The tenant's own keys stand in the deployment's spec: whoever may edit that decides suite and threshold anyhow,
    and a key in a ConfigMap beside the suite could be exchanged together with it.
    """
    known = trust.keys | frozenset(spec.accuracy.suite_keys)
    if not trust.required or source.digest in trust.shipped or source.signer in known:
        return None
    if source.signer:
        ids = ", ".join(sorted(map(key_id, known))) or "none"
        said = f"signed by key {key_id(source.signer)}, which is not trusted (trusted are: {ids})"
    else:
        said = "not signed"
    remedy = (
        "sign it with a trusted key (r1plus suite sign), or list the signer's public key in spec.accuracy.suiteKeys;"
        " for all tenants, in the chart's suites.trustedKeys"
    )
    text = f"spec.accuracy.suite: {source.name}: {said}; {remedy}"
    return Problem(ConditionType.QUALITY_VERIFIED, Reason.SUITE_INVALID, text)


def out_of_reach(spec: R1PlusDeploymentSpec, source: SuiteSource) -> Problem | None:
    """Why no engine could ever pass: the suite's own reference did not reach the threshold when it was measured."""
    best, threshold = source.reached, spec.accuracy.threshold
    missed = find_shortfall(best.lost_by_stratum(), threshold) if best else None
    if best is None or missed is None:
        return None
    where = f" of stratum {missed.stratum}" if missed.stratum else ""
    text = (
        f"spec.accuracy.threshold: {threshold:g} lets {missed.allowed} of {missed.items} items{where} be lost, and the"
        f" reference {best.engine} itself lost {missed.lost} of them: it reached {best.correct} of {best.items} ="
        f" {best.correct / best.items:.4f} on suite {source.name} ({best.condition}); lower the threshold to"
        f" {missed.reachable:g} or less, or build the suite without those items"
    )
    return Problem(ConditionType.QUALITY_VERIFIED, Reason.THRESHOLD_UNREACHABLE, text)
