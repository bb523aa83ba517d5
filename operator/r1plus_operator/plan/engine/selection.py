"""Resolve a valid spec to engine, batch, context and suite, or to the first problem."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from r1plus_contract import names
from r1plus_contract.remedies import Remedy, word
from r1plus_contract.suites.suite import Suite
from r1plus_contract.suites.suite_files import key_id
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.delivery import EngineVolume, Undeliverable, resolve_delivery
from r1plus_operator.plan.engine.feasibility import (
    EnginePlacement,
    Incumbent,
    find_placement,
    is_gpu_unavailable,
    select_condition,
)
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

MAX_LISTED = 20
"""Maximum number of suite names in a message."""


@dataclass(frozen=True, slots=True)
class Target:
    """The resolved spec: what should serve."""

    engine: Engine
    fit: Fit
    suite: Suite
    source: SuiteSource
    choice: Choice
    volume: EngineVolume | None = None
    """Volume with the engine's files; None: they are in its image."""
    gpus: Gpus | None = None
    """GPUs that its pods are bound to; None: it runs on CPU, or no cluster is at hand."""
    counts_storage: bool = False
    """Whether its nodes report their ephemeral storage, so that its pods can request some."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the spec cannot be served now: the condition that becomes False, with reason and message."""

    condition: ConditionType
    reason: Reason
    message: str
    choice: Choice | None = None
    """If no engine is selected: the rejection of each."""


def resolve(
    spec: R1PlusDeploymentSpec,
    engines: tuple[Engine, ...],
    suites: dict[str, SuiteSource],
    nodes: tuple[NodeFacts, ...] | None,
    config: OperatorConfig,
    serving_engine: str = "",
    delivered_volumes: Collection[str] = (),
    products: Sequence[str] = (),
    suite_names: Collection[str] = (),
    incumbent: Incumbent | None = None,
) -> Target | Problem:
    """Resolve engine and fit, then delivery, then suite. Return the target, or the first problem.

    `nodes=None`: no cluster is at hand. `serving_engine` takes traffic; an engine with a lower score is rejected.
    `delivered_volumes` (names, or `EngineVolume.revision_key`) have their engine. `products` are the GPUs of what
    serves and of candidates, in order of preference. `suite_names` has all suites, if `suites` has only some.
    `incumbent`: check whether this one still fits, if the spec leaves the batch open. Remedies are those of the
    caller's `use_wording`.
    """
    placements: dict[str, EnginePlacement] = {}
    obstacles: dict[str, Obstacle] = {}
    by_name = {engine.name: engine for engine in engines}

    def find_obstacle(offer: EngineCandidate) -> Obstacle | None:
        placement = find_placement(spec, by_name[offer.name], nodes, config.runtimes, products, incumbent)
        if isinstance(placement, Obstacle):
            obstacles[offer.name] = placement
            return placement
        placements[offer.name] = placement
        return None

    choice = choose_engine(
        [build_engine_candidate(engine) for engine in engines],
        build_engine_request(spec, config, by_name.get(serving_engine)),
        find_obstacle,
    )
    obstacle = obstacles.get(serving_engine)
    if (
        obstacle
        and obstacle.reason == Reason.GPU_NOT_FOUND
        and is_gpu_unavailable(spec, by_name[serving_engine], nodes or (), products)
    ):
        # A restart of the device plugin is no reason to select another engine.
        return Problem(ConditionType.CAPACITY_FITS, Reason.GPU_NOT_FOUND, obstacle.message, choice)
    if choice.engine is None:
        reason = Reason(choice.obstacle.reason) if choice.obstacle else Reason.ENGINE_NOT_FOUND
        return Problem(select_condition(reason), reason, choice.why, choice)
    engine = by_name[choice.engine]
    placement = placements[engine.name]
    volume = resolve_delivery(spec, engine, placement, config, nodes, delivered_volumes)
    if isinstance(volume, Undeliverable):
        return Problem(volume.condition, volume.reason, volume.message, choice)
    suite = resolve_suite(spec.accuracy.suite or engine.spec.reference.suite, suites, suite_names)
    if isinstance(suite, Problem):
        return suite
    assert suite.suite is not None
    if problem := check_trust(spec, suite, config.suite_trust) or check_threshold(spec, suite):
        return problem
    return Target(engine, placement.fit, suite.suite, suite, choice, volume, placement.gpus, placement.counts_storage)


def build_engine_request(
    spec: R1PlusDeploymentSpec, config: OperatorConfig, serving_engine: Engine | None = None
) -> EngineRequest:
    """Return the request to the engine selection.

    The reference score of `serving_engine`, which takes traffic now, is the minimum, unless `allowLower` is set.
    """
    return EngineRequest(
        spec.tier.value,
        spec.engine.family or config.default_family,
        spec.engine.version,
        spec.engine.precision,
        serving_score=_read_score(serving_engine.spec) if serving_engine else None,
        allow_lower=spec.accuracy.allow_lower,
    )


def build_engine_candidate(engine: Engine) -> EngineCandidate:
    """Return the candidate of the engine selection for an engine."""
    spec = engine.spec
    source_kind = ReferenceSource.INHERITED if spec.reference.inherited_from else ReferenceSource.CLAIMED
    score = _read_score(spec)
    if score is not None:
        source_kind = ReferenceSource.MEASURED
    return EngineCandidate(
        engine.name,
        spec.family,
        spec.tier.value,
        spec.version,
        spec.precision,
        source_kind,
        score,
        is_sparse=spec.attention is not None,
    )


def _read_score(spec: EngineSpec) -> SuiteScore | None:
    """Return the engine's lowest score on its suite over all conditions; None: it was not measured."""
    measured = spec.reference.measured
    if measured is None:
        return None
    return SuiteScore(spec.reference.suite, min(measured.correct_at_batch, measured.correct_at_batch_1), measured.items)


def resolve_suite(
    name: str, suites: dict[str, SuiteSource], suite_names: Collection[str] = ()
) -> SuiteSource | Problem:
    """Return the suite of that name, or what is wrong with it and the remedy."""
    source = suites.get(name)
    if source is None:
        available = _list_some(sorted({*suites, *suite_names}))
        text = f"spec.accuracy.suite: {name}: no such suite is shipped"
        text = f"{text}{word(Remedy.PROVIDE_SUITE, name=name, label=names.LABEL_SUITE)}: {available}"
        return Problem(ConditionType.QUALITY_VERIFIED, Reason.SUITE_NOT_FOUND, text)
    if source.suite is None:
        reason = Reason.SUITE_HASH_MISMATCH if "sha256 is" in source.problem else Reason.SUITE_INVALID
        text = f"spec.accuracy.suite: {source.problem}; or name another suite"
        return Problem(ConditionType.QUALITY_VERIFIED, reason, text)
    return source


def _list_some(suites: Sequence[str]) -> str:
    """Return the first of these names; a tenant may have thousands of suites, too many for a message."""
    more = len(suites) - MAX_LISTED
    return (", ".join(suites[:MAX_LISTED]) or "none") + (f" and {more} more" if more > 0 else "")


def check_trust(spec: R1PlusDeploymentSpec, source: SuiteSource, trust: SuiteTrust) -> Problem | None:
    """Return why the suite is not trusted; None: it is. A suite decides what may serve, so ConfigMap writers must not.

    The tenant's own keys are in the deployment's spec, whose editors choose suite and threshold anyway. A key in a
    ConfigMap next to the suite could be exchanged together with it.
    """
    trusted_keys = trust.keys | frozenset(spec.accuracy.suite_keys)
    if not trust.required or source.digest in trust.shipped_digests or source.signer in trusted_keys:
        return None
    if source.signer:
        ids = ", ".join(sorted(map(key_id, trusted_keys))) or "none"
        problem = f"signed by key {key_id(source.signer)}, which is not trusted (trusted keys: {ids})"
    else:
        problem = "not signed"
    remedy = (
        "sign it with a trusted key (r1plus suite sign), or list the signer's public key in spec.accuracy.suiteKeys;"
        " for all tenants, in the chart's suites.trustedKeys"
    )
    text = f"spec.accuracy.suite: {source.name}: {problem}; {remedy}"
    return Problem(ConditionType.QUALITY_VERIFIED, Reason.SUITE_INVALID, text)


def check_threshold(spec: R1PlusDeploymentSpec, source: SuiteSource) -> Problem | None:
    """Return why no engine can pass: the suite's own reference is below the threshold; None: it is not."""
    best, threshold = source.reference_result, spec.accuracy.threshold
    gap = find_shortfall(best.count_lost_by_stratum(), threshold) if best else None
    if best is None or gap is None:
        return None
    where = f" of stratum {gap.stratum}" if gap.stratum else ""
    text = (
        f"spec.accuracy.threshold: {threshold:g} allows {gap.lost_limit} of {gap.items} items{where} to be lost,"
        f" but the reference {best.engine} itself lost {gap.lost_items} of them: it reached {best.correct} of"
        f" {best.items} = {best.correct / best.items:.4f} on suite {source.name} ({best.condition}); lower the"
        f" threshold to {gap.reachable:g} or less, or build the suite without those items"
    )
    return Problem(ConditionType.QUALITY_VERIFIED, Reason.THRESHOLD_UNREACHABLE, text)
