"""From the raw spec to the engine that it asks for: read, fit, or say why not. Called by the plan, once a pass.

While the spec has a Problem, what serves goes on under the last valid spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine import delivery
from r1plus_operator.plan.engine.feasibility import Incumbent
from r1plus_operator.plan.engine.placement import check_placement, check_readable
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.observation import Json, Observation
from r1plus_operator.plan.revision.factory import is_made_for
from r1plus_operator.plan.revision.incumbents import prefer_incumbents
from r1plus_operator.plan.revision.last_valid import dump_spec, readable_spec, with_switches, with_threshold
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.settings import OperatorConfig


@dataclass(frozen=True, slots=True)
class Resolution:
    """The spec that holds in this pass, and what it asks for."""

    spec: R1PlusDeploymentSpec | None
    """None: it cannot be read, and nothing serves by an earlier one. Then `target` is a Problem."""
    target: Target | Problem
    newer: Target | None = None
    """A newer engine of the catalog that the spec asks for as well, where `target` is what serves."""

    @property
    def problem(self) -> Problem | None:
        """Why the spec yields no revision."""
        return self.target if isinstance(self.target, Problem) else None


def resolve_spec(observed: Observation, config: OperatorConfig, revisions: Mapping[str, Revision]) -> Resolution:
    """Return what the spec asks for, fitted to the nodes; a Problem where it cannot be read or served."""
    current = find_current_revision(revisions.values())
    former = _former_spec(current, observed)
    spec, problem = _read_spec(observed.cr.get("spec") or {}, former, current)
    if spec is None:
        assert problem is not None
        return Resolution(None, problem)
    tenant = observed.tenant
    if tenant is not None and not tenant.is_tenant:
        problem = Problem(ConditionType.ISOLATION_VERIFIED, Reason(tenant.reason), tenant.message)
    target = problem or _fit(spec, observed, config, revisions, current)
    if isinstance(target, Problem):
        former_threshold = (former.get("accuracy") or {}).get("threshold")
        is_raised = isinstance(former_threshold, int | float) and spec.accuracy.threshold > former_threshold
        if is_raised or target.reason is Reason.THRESHOLD_UNREACHABLE:
            # What serves may never have reached it, and nothing new is made to reach it.
            spec = with_threshold(spec, former)
        return Resolution(spec, target)
    incumbent = _keep_engine(target, spec, observed, config, revisions, current)
    return Resolution(spec, incumbent, target) if incumbent else Resolution(spec, target)


def _read_spec(raw: Json, former: Json, current: Revision | None) -> tuple[R1PlusDeploymentSpec | None, Problem | None]:
    """Return the spec, or what is left of it and a Problem; no spec where nothing serves by an earlier one."""
    try:
        return R1PlusDeploymentSpec.model_validate(raw), None
    except ValidationError as error:
        message = "; ".join(spec_problems(error, R1PlusDeploymentSpec))
        problem = Problem(ConditionType.READY, Reason.INVALID_SPEC, message)
    # The former spec as a whole: what is left of a spec after a slip may ask for something else.
    valid_part = readable_spec(former, {}) if current and current.last_valid else readable_spec(raw, former)
    if current is None or valid_part is None:
        return None, problem
    return with_switches(valid_part, raw), problem


def _former_spec(current: Revision | None, observed: Observation) -> Json:
    """Return the newest spec that could be read; where none is recorded, what the running objects show of it."""
    if current is None:
        return {}
    if current.last_valid:
        return current.last_valid.spec
    spec: Json = {}
    live = observed.children.get(("Deployment", current.name)) or {}
    if replicas := (live.get("spec") or {}).get("replicas"):
        spec["replicas"] = replicas
    if current.valid_verdicts:
        spec["accuracy"] = {"threshold": current.valid_verdicts[-1].threshold}
    tiers = [engine.spec.tier.value for engine in observed.engines if engine.name == current.engine]
    return spec | ({"tier": tiers[0]} if tiers else {})


def _fit(
    spec: R1PlusDeploymentSpec,
    observed: Observation,
    config: OperatorConfig,
    revisions: Mapping[str, Revision],
    current: Revision | None,
) -> Target | Problem:
    engine = current.engine if current else ""
    newest = max(revisions.values(), key=lambda r: r.number, default=None)
    products = [r.identity.gpu_product for r in (current, newest) if r and r.identity.gpu_product]
    volumes = [volume for r in revisions.values() if (volume := r.volume)]
    ready_volumes = frozenset(volume.revision_key for volume in volumes if delivery.is_delivered(volume, observed))
    ready_volumes |= {name for name, facts in observed.volumes.items() if facts.delivered_digest}
    suites = dict(observed.suites)

    def fit_for(incumbent: Incumbent | None) -> Target | Problem:
        return resolve(
            spec, observed.engines, suites, observed.nodes, config, engine, ready_volumes, products, incumbent=incumbent
        )

    target = prefer_incumbents(fit_for, spec, observed.name, current, revisions.values())
    if isinstance(target, Problem):
        target = _mention_embedding_engine(target, spec, observed)
    tenant = observed.tenant
    if (
        tenant
        and tenant.placement
        and isinstance(target, Target)
        and not (current and is_made_for(current, observed.name, spec, target))
    ):
        # What serves keeps its place, whatever the platform team allows by now.
        return check_readable(tenant) or check_placement(spec.placement, tenant.placement) or target
    return target


def _mention_embedding_engine(problem: Problem, spec: R1PlusDeploymentSpec, observed: Observation) -> Problem:
    """Say so where the family that the spec names is that of an engine for embeddings."""
    names = [engine.name for engine in observed.embedding_engines if engine.spec.family == spec.engine.family]
    if problem.reason is not Reason.ENGINE_NOT_FOUND or not names:
        return problem
    text = (
        f". R1PlusEngine {names[0]} of that family is of kind embedding, so it answers no prompts: name another family"
        " here, and that engine in spec.gateway.embedding of the R1PlusTenant"
    )
    return replace(problem, message=problem.message + text)


def _keep_engine(
    target: Target,
    spec: R1PlusDeploymentSpec,
    observed: Observation,
    config: OperatorConfig,
    revisions: Mapping[str, Revision],
    current: Revision | None,
) -> Target | None:
    """Return what serves, where the spec still asks for it and only the catalog has a newer engine; else None.

    An edit of the spec does not wait, nor does a rollout that has begun.
    """
    if current is None or target.engine.name == current.engine:
        return None
    same = [r for r in revisions.values() if is_made_for(r, observed.name, spec, target)]
    last = current.last_valid
    is_edited = last is not None and last.spec.get("engine") != dump_spec(spec).get("engine")
    if is_edited or any(r.candidate_since or r.refresh or r.rollback for r in same):
        return None
    own = tuple(engine for engine in observed.engines if engine.name == current.engine)
    incumbent = _fit(spec, replace(observed, engines=own), config, revisions, current)
    fits = isinstance(incumbent, Target) and is_made_for(current, observed.name, spec, incumbent)
    return incumbent if fits and isinstance(incumbent, Target) else None
