"""Whether the spec still asks for what serves, or for what is on its way, though the nodes are others by now."""

from collections.abc import Callable, Iterable
from itertools import product

from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.feasibility import Incumbent
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.revision.factory import is_made_for
from r1plus_operator.plan.revision.record import Revision


def prefer_incumbents(
    resolve_for: Callable[[Incumbent | None], Target | Problem],
    spec: R1PlusDeploymentSpec,
    deployment: str,
    current: Revision | None,
    revisions: Iterable[Revision],
) -> Target | Problem:
    """Return what the spec asks for: what serves or is on its way, while that fits; else what fits the nodes now.

    An incumbent counts only where the spec, with its batch, yields this very revision: another spec is fitted again.
    """
    target = resolve_for(None)
    candidates = [r for r in revisions if r.candidate_since is not None and r is not current]
    for revision in filter(None, (current, *candidates)):
        if isinstance(target, Target) and is_made_for(revision, deployment, spec, target):
            return target
        limits = spec.batching.max_batch_size, spec.context.max_tokens
        has_fewer = isinstance(target, Target) and target.fit.batch < revision.batch and revision is not current
        if has_fewer or limits not in product((None, revision.batch), (None, revision.context)):
            continue  # Not so many of its pods would find room, or the spec names another batch or context.
        incumbent = resolve_for(Incumbent(revision.engine, revision.batch))
        if isinstance(incumbent, Target) and is_made_for(revision, deployment, spec, incumbent):
            return incumbent
    return target
