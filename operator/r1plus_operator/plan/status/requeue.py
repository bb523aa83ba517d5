"""When time alone changes a plan. Everything else that it depends on is an event that asks for a pass."""

import math
from collections.abc import Iterator

from r1plus_operator.plan.accuracy.proof import read_configs
from r1plus_operator.plan.engine.nodes import compute_seconds_until_lost
from r1plus_operator.plan.revision.refresh import SLOT_SECONDS
from r1plus_operator.plan.rollback import quarantine
from r1plus_operator.plan.status.conditions import ALERTS_GRACE_SECONDS, compute_endpoints_wait, is_just_ready
from r1plus_operator.plan.status.context import StatusContext

AT_ONCE_SECONDS = 0.001
"""Another pass follows a promotion: accuracy drops, rollback targets and drains are derived again from there."""


def seconds_to_next_pass(situation: StatusContext) -> float | None:
    """Return the seconds until the first of these moments; None where there is none."""
    return min(filter(None, _moments(situation)), default=None)


def _moments(situation: StatusContext) -> Iterator[float | None]:
    observed, now, rollout = situation.observation, situation.now, situation.rollout
    for pod in observed.pods:
        yield quarantine.seconds_to_next_look(pod, now)
        seconds = compute_seconds_until_lost(pod, now)
        yield seconds if 0 < seconds < math.inf else None
    if rollout:
        yield AT_ONCE_SECONDS if rollout.promote else rollout.requeue_after
    yield _seconds_to_delivery_check(situation)
    yield compute_endpoints_wait(situation)
    yield _seconds_to_slot_end(situation)
    if observed.unproven and situation.config_digests != read_configs(observed.cr):
        # The operator was away, or the status was lost: what is remembered only now may prove a gate.
        yield AT_ONCE_SECONDS
    if situation.outcome:
        yield situation.outcome.response.recheck_after


def _seconds_to_delivery_check(situation: StatusContext) -> float | None:
    """Return the seconds until Prometheus should have loaded the rules of what serves, and scraped its new pods.

    None once it should have done both.
    """
    current, now = situation.current, situation.now
    if current is None:
        return None
    new = (pod for pod in situation.observation.pods if pod.revision == current.name and is_just_ready(pod, now))
    starts = (current.promoted_at or 0.0, *(pod.ready_since or 0.0 for pod in new))
    return min((seconds for start in starts if (seconds := start + ALERTS_GRACE_SECONDS - now) > 0), default=None)


def _seconds_to_slot_end(situation: StatusContext) -> float | None:
    """Return the seconds until the deployment's slot goes to the next one; None while it has none."""
    refreshes = (revision.refresh for revision in situation.revisions.values())
    starts = [refresh.began_at for refresh in refreshes if refresh and refresh.outcome is None]
    seconds = min(starts, default=-math.inf) + SLOT_SECONDS - situation.now
    return seconds if seconds > 0 else None
