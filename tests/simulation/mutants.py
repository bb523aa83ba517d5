"""Mutants of the operator and its monitors: each breaks one promise, and the promise's invariant has to find it.

`python -m simulation --mutant NAME` changes this process alone, and runs the mutant's own schedule. A defect of the
product in `known/` shows the same for the invariant that it breaks, for as long as it is not mended.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_monitoring.session import evaluation
from r1plus_operator import main
from r1plus_operator.api.conditions import Reason
from r1plus_operator.plan import deployment
from r1plus_operator.plan.accuracy import verdict_order
from r1plus_operator.plan.manifests import children, stages
from r1plus_operator.plan.revision import storage
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.rollback import breach
from r1plus_operator.plan.rollout import decision
from r1plus_operator.plan.status import conditions
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.fairness import Contention
from r1plus_policies.rollback.response import Action, BreachResponse, RollbackReason
from simulation.schedule import Happening, Schedule, Start

NAMESPACES: Final = ("team-a", "team-b")
NAME: Final = "credit"
CALLS: Final = 20
BAD, GOOD, OTHER = 1024.0, 2048.0, 512.0
"""Contexts: the first is refused, the second serves from the start, the third is good, too."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is changed, and what happens then."""

    breaks: str
    apply: Callable[[], None]
    happenings: tuple[Happening, ...]
    replicas: int = 1

    @property
    def schedule(self) -> Schedule:
        """The schedule: one deployment in each of two namespaces."""
        spec = {
            "tier": "full",
            "replicas": self.replicas,
            "context": {"maxTokens": int(GOOD)},
            "accuracy": {"threshold": 0.9, "gate": "Enforce", "onBreach": "Rollback", "probesPerMinute": 12},
            "rollout": {"deadline": "10m", "drain": "30s"},
        }
        lost = {str(int(GOOD)): 1, str(int(OTHER)): 1, str(int(BAD)): 4}
        return Schedule(0, tuple(Start(one, NAME, spec, lost) for one in NAMESPACES), self.happenings)


def _happen(at: float, do: str, value: float = 0.0) -> Happening:
    return Happening(at, do, NAMESPACES[0], NAME, value)


def _change_state(change: Callable[[Any], Any]) -> Callable[[], None]:
    """Change what the rollout's policy is told of each revision."""
    original: Any = decision.RevisionState

    def apply() -> None:
        decision.RevisionState = lambda **facts: change(original(**facts))  # type: ignore[assignment, misc]

    return apply


def _change_response(change: Callable[[Any, BreachResponse], BreachResponse]) -> Callable[[], None]:
    original = breach.respond

    def apply() -> None:
        breach.respond = lambda health: change(health, original(health))

    return apply


def _block(reason: RollbackReason) -> Callable[[], None]:
    def change(_: Any, response: BreachResponse) -> BreachResponse:
        is_step = response.action in (Action.CONTROL, Action.SWITCH)
        return BreachResponse(Action.BLOCKED, reason, "blocked by a mutant") if is_step else response

    return _change_response(change)


def _quarantine_the_last(health: Any, response: BreachResponse) -> BreachResponse:
    if response.reason is not RollbackReason.LAST_THAT_SERVES:
        return response
    name = health.pods_below_threshold[0].name
    return BreachResponse(Action.QUARANTINE, RollbackReason.ONE_BAD_POD, "quarantined by a mutant", pod=name)


def _write_no_network_policy() -> None:
    original = deployment.build_manifests

    def build(*arguments: Any) -> Any:
        first, pods, last = original(*arguments)
        return [obj for obj in first if obj["kind"] != "NetworkPolicy"], pods, last

    deployment.build_manifests = build


def _ignore_the_lease() -> None:
    async def hold(*_: Any) -> None:
        await asyncio.Event().wait()

    main.hold = hold  # type: ignore[assignment]
    original = ApiClient._apply_fence

    def apply_fence(client: ApiClient, call: Any) -> Any:
        client.fence = None
        return original(client, call)

    ApiClient._apply_fence = apply_fence  # type: ignore[method-assign]


def _record_fails_as_passes() -> None:
    original = verdict_order.clip_report
    verdict_order.clip_report = lambda gate: replace(original(gate), verdict=Verdict.PASS)


def _name_the_first_owner() -> None:
    original = children.ChildOwner.build_metadata
    first: dict[str, str] = {}

    def build(owner: Any, *arguments: Any) -> Any:
        meta = original(owner, *arguments)
        reference = meta["ownerReferences"][0]
        meta["ownerReferences"] = [{**reference, "uid": first.setdefault("uid", reference["uid"])}]
        return meta

    children.ChildOwner.build_metadata = build  # type: ignore[method-assign]


def _count_in_the_service() -> None:
    original, counter = stages.children.build_service, itertools.count()

    def build(*arguments: Any) -> Any:
        service = original(*arguments)
        service["metadata"]["annotations"] = {"r1plus.ai/counter": str(next(counter))}
        return service

    stages.children.build_service = build


def _forget_rollbacks() -> None:
    """Forget a rollback some passes after its end: by then the pods of what dropped are gone."""
    calls = itertools.count()

    def is_in_force(record: RollbackRecord) -> bool:
        return record.switched_at is not None and not record.lifted and next(calls) < CALLS

    RollbackRecord.is_in_force = property(is_in_force)  # type: ignore[method-assign, assignment]


def _forget_fails() -> None:
    original = Revision.verdict_for

    def verdict_for(revision: Revision, suite_hash: str, threshold: float) -> Any:
        verdict = original(revision, suite_hash, threshold)
        return None if verdict and verdict.verdict is Verdict.FAIL else verdict

    Revision.verdict_for = verdict_for  # type: ignore[method-assign]


def _count_no_tries() -> None:
    decision.count_missing_passes = lambda *_: 0


def _calm_down() -> None:
    original, reports = evaluation.build_watch_report, itertools.count()

    def build(*arguments: Any) -> Any:
        report = original(*arguments)
        has_dropped = report.standing is WatchStanding.BELOW_THRESHOLD
        return replace(report, standing=WatchStanding.STEADY) if has_dropped and next(reports) > 0 else report

    evaluation.build_watch_report = build


def _drop_the_pass_of_what_serves() -> None:
    original = storage._select_verdicts

    def select(revision: Revision) -> Any:
        return () if revision.promoted_at is not None else original(revision)

    storage._select_verdicts = select


def _share_one_pace() -> None:
    """Let all namespaces take turns as one that is not alone."""
    original = main.Pace

    class Crowded(Contention):
        def is_alone(self, *_: Any) -> bool:
            return False

    main.Pace = lambda *_: original(lambda _key: "", Crowded())  # type: ignore[assignment, misc]


def _tell_and_do_nothing() -> None:
    _block(RollbackReason.NO_LAST_GOOD)()
    original = deployment.build_status

    def build(context: Any) -> Any:
        status = original(context)
        for condition in status["conditions"]:
            if condition["type"] == "QualityVerified":
                condition |= {"status": "Unknown", "reason": "NotYetKnown"}
        return status

    deployment.build_status = build


def _drop_standing(reason: Reason) -> Callable[[], None]:
    """Let a status have neither Reconciling nor Stalled for a reason."""
    original = conditions.derive_deployment_standing

    def derive(*arguments: Any) -> Any:
        return {kind: one for kind, one in original(*arguments).items() if one.reason is not reason}

    def apply() -> None:
        conditions.derive_deployment_standing = derive

    return apply


_REFUSED = (_happen(200, "set_context", BAD),)
_REFUSED_TWICE = (*_REFUSED, _happen(300, "set_context", GOOD), _happen(400, "set_context", BAD))
_RETURN = (_happen(200, "set_context", OTHER), _happen(400, "set_context", GOOD))
_DROP = (_happen(200, "set_context", OTHER), _happen(400, "degrade_serving", 8.0))
_DROP_OF_ONE = (
    *_DROP[:1],
    _happen(400, "fill_node", 3000.0),
    _happen(410, "set_replicas", 2.0),
    _happen(500, "degrade_serving", 8.0),
)

MUTANTS: Final[Mapping[str, Mutant]] = {
    "every revision has passed": Mutant(
        "only_a_pass_takes_traffic",
        _change_state(lambda state: replace(state, verdict=Verdict.PASS, ready=max(state.ready, 1))),
        _REFUSED,
    ),
    "every revision is ready": Mutant(
        "traffic_moves_to_ready_pods", _change_state(lambda state: replace(state, ready=max(state.ready, 1))), _RETURN
    ),
    "a Fail is forgotten": Mutant("refused_stays_refused", _forget_fails, _REFUSED_TWICE),
    "tries are not counted": Mutant(
        "failed_tries_are_counted", _count_no_tries, (*_REFUSED, _happen(500, "set_context", OTHER))
    ),
    "a rollback is forgotten": Mutant("rolled_back_stays_away", _forget_rollbacks, _DROP),
    "the Pass of what serves is dropped": Mutant(
        "what_serves_keeps_its_pass", _drop_the_pass_of_what_serves, _DROP[:1]
    ),
    "all namespaces share one pace": Mutant(
        "edits_pass_busy_namespaces", _share_one_pace, (Happening(190, "busy_namespace", NAMESPACES[1], NAME, 60.0), *_RETURN[:1], _happen(215, "set_threshold", 0.8999))
    ),
    "no network policy is written": Mutant("network_policies_come_first", _write_no_network_policy, ()),
    "the Lease is ignored": Mutant(
        "only_the_leader_writes", _ignore_the_lease, (_happen(100, "set_context", OTHER), _happen(200, "set_context", GOOD))
    ),
    "a Fail is recorded as a Pass": Mutant("scores_belong_to_what_was_scored", _record_fails_as_passes, _REFUSED),
    "the first deployment owns everything": Mutant("tenants_are_apart", _name_the_first_owner, ()),
    "the last pod that serves is quarantined": Mutant(
        "quarantine_spares_the_last", _change_response(_quarantine_the_last), _DROP_OF_ONE
    ),
    "a monitor calms down": Mutant("drops_are_latched", _calm_down, (_happen(100, "set_on_breach", 0.0), *_DROP, _happen(700, "set_threshold", 0.8999))),
    "a rollback waits for a candidate that is none": Mutant(
        "drops_are_answered", _block(RollbackReason.ROLLOUT_UNDER_WAY), _DROP
    ),
    "the only pod is never answered": Mutant(
        "the_only_pod_is_answered", _block(RollbackReason.LAST_THAT_SERVES), _DROP
    ),
    "the status tells nothing of accuracy": Mutant("status_tells_of_drops", _tell_and_do_nothing, _DROP),
    "a candidate that is gated shows nowhere": Mutant(
        "current_means_promoted", _drop_standing(Reason.ROLLING_OUT), _DROP[:1]
    ),
    "a refusal does not stall": Mutant("a_refusal_is_failed", _drop_standing(Reason.CANDIDATE_REFUSED), _REFUSED),
    "each pass writes": Mutant("everything_converges", _count_in_the_service, ()),
    "nothing passes": Mutant(
        "good_candidates_are_promoted", _change_state(lambda state: replace(state, verdict=None)), ()
    ),
}  # fmt: skip
"""What the mutant does -> the mutant. Every invariant has one."""
