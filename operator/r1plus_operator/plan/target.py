"""From a valid spec to what shall serve: engine, batch, context, suite; or the first reason why not."""

from dataclasses import dataclass

from r1plus_contract import names
from r1plus_contract.suite import Suite
from r1plus_contract.suite_files import key_id
from r1plus_model_repo.catalog.quantity import bytes_of, cores_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.inputs import NodeFacts, OperatorConfig, SuiteSource, SuiteTrust
from r1plus_policies.choice import Choice, Offer, Wish, choose
from r1plus_policies.reach import shortfall
from r1plus_policies.sizing import Fit, Misfit, Shape, fit


@dataclass(frozen=True, slots=True)
class Target:
    """What the spec asks for, resolved."""

    engine: Engine
    fit: Fit
    suite: Suite
    source: SuiteSource
    choice: Choice


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the spec cannot be served now: the condition it falsifies, with reason and message."""

    condition: ConditionType
    reason: Reason
    message: str


def resolve(
    spec: R1PlusDeploymentSpec,
    engines: tuple[Engine, ...],
    suites: dict[str, SuiteSource],
    nodes: tuple[NodeFacts, ...] | None,
    config: OperatorConfig,
) -> Target | Problem:
    """The chain engine -> fit -> suite; the first that fails is the answer. `nodes=None`: no cluster is at hand."""
    choice = choose([offer_of(engine) for engine in engines], wish_of(spec, config))
    engine = next((e for e in engines if e.name == choice.engine), None)
    if engine is None:
        return Problem(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_FOUND, choice.why)
    memory = None if nodes is None else largest_memory(spec, engine, nodes)
    if memory == 0:
        return Problem(ConditionType.CAPACITY_FITS, Reason.NO_NODE_FITS, _no_node(spec, engine))
    fitted = fit(
        shape_of(engine),
        batch=spec.batching.max_batch_size,
        context=spec.context.max_tokens,
        memory_bytes=memory,
    )
    if isinstance(fitted, Misfit):
        return Problem(ConditionType.CAPACITY_FITS, Reason(fitted.reason), fitted.message)
    suite = resolve_suite(spec.accuracy.suite or engine.spec.reference.suite, suites)
    if isinstance(suite, Problem):
        return suite
    assert suite.suite is not None
    if problem := untrusted(spec, suite, config.suite_trust) or out_of_reach(spec, suite):
        return problem
    return Target(engine, fitted, suite.suite, suite, choice)


def _no_node(spec: R1PlusDeploymentSpec, engine: Engine) -> str:
    cores = f"{engine.spec.requirements.cpu} CPU, which {engine.name} needs"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(spec.placement.node_selector.items()))
    if not labels:
        return f"no node has {cores}; add a larger node"
    return f"spec.placement.nodeSelector: no node has {labels} and {cores}; change the labels or add such a node"


def wish_of(spec: R1PlusDeploymentSpec, config: OperatorConfig) -> Wish:
    """The choice's question."""
    return Wish(
        spec.tier.value, spec.engine.family or config.default_family, spec.engine.version, spec.engine.precision
    )


def offer_of(engine: Engine) -> Offer:
    """The choice's view of an engine."""
    spec = engine.spec
    measured = spec.reference.inherited_from is None
    return Offer(engine.name, spec.family, spec.tier.value, spec.version, spec.precision, measured)


def shape_of(engine: Engine) -> Shape:
    """The fit's view of an engine."""
    spec = engine.spec
    return Shape(
        layers=spec.architecture.layers,
        kv_heads=spec.architecture.kv_heads,
        head_size=spec.architecture.head_size,
        context_length=spec.architecture.context_length,
        weights_bytes=bytes_of(spec.requirements.weights_memory),
        runtime_bytes=bytes_of(spec.requirements.runtime_memory),
        best_batch=spec.batch.best,
        max_batch=spec.batch.max,
    )


def largest_memory(spec: R1PlusDeploymentSpec, engine: Engine, nodes: tuple[NodeFacts, ...]) -> int:
    """Allocatable bytes of the largest node that the placement admits and that has the cores; 0 where there is none.

    A cordoned node counts: a cordon is no change of capacity, and must not give the deployment another batch.
    """
    wanted = spec.placement.node_selector
    cores = cores_of(engine.spec.requirements.cpu)
    return max(
        (
            node.memory_bytes
            for node in nodes
            if node.cores >= cores and all(node.labels.get(k) == v for k, v in wanted.items())
        ),
        default=0,
    )


def resolve_suite(name: str, suites: dict[str, SuiteSource]) -> SuiteSource | Problem:
    """The suite of that name, or what is wrong with it and what to do."""
    source = suites.get(name)
    if source is None:
        known = ", ".join(sorted(suites)) or "none"
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
    missed = shortfall(best.lost_by_stratum(), threshold) if best else None
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
