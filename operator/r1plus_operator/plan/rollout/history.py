"""Which revisions are no longer kept."""

from collections.abc import Mapping

from r1plus_operator.plan.engine import delivery
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.revision.record import KEPT_REVISIONS, Revision
from r1plus_policies.rollout import Rollout


def select_surplus(
    inputs: PassInputs, revisions: Mapping[str, Revision], rollout: Rollout, spec_revision: str | None
) -> frozenset[str]:
    """Return the names of the revisions beyond the history, the oldest ones.

    Never what runs, what the spec asks for, or the last one that served before.
    """
    in_use = {*rollout.replicas, rollout.current, spec_revision}
    earlier = [r for r in revisions.values() if r.promoted_at and r.name != rollout.current]
    in_use |= {max(earlier, key=lambda r: r.promoted_at or 0.0).name} if earlier else set()
    old = sorted((r for r in revisions.values() if r.name not in in_use), key=lambda r: r.number)
    # Where the spec can be served, an engine that it no longer asks for is not built: its Job would keep a GPU busy.
    can_serve = spec_revision and not inputs.problem
    unbuilt = {r.name for r in old if can_serve and not r.promoted_at and is_unbuilt(r, inputs.observed)}
    old = [r for r in old if r.name not in unbuilt]
    beyond = old[: max(0, len(revisions) - len(unbuilt) - KEPT_REVISIONS)]
    return frozenset(unbuilt | {r.name for r in beyond})


def is_unbuilt(revision: Revision, observed: Observation) -> bool:
    """Whether a Job has yet to build the revision's engine."""
    volume = revision.volume
    return volume is not None and volume.is_built and not delivery.can_start_pods(volume, revision.name, observed)
