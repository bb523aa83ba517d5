"""Judges a run of the isolation test: each attempt together with its control.

The operator calls it once the containers of the run have ended; absent findings are passed as absent. Shut doors
alone
prove nothing: a pod without a network finds every door shut. So a door counts as held only where the same attempt
from
an allowed pod found it open. An allowed door must also have been open.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from r1plus_contract.isolation import Against, ApiRequest, AttemptOutcome, ConnectionTarget, Findings

OutcomesByName = Mapping[str, frozenset[AttemptOutcome]]
"""Name -> outcomes under it. Several where it was reported more than once; all of them count."""


class IsolationVerdict(StrEnum):
    """Whether isolation is enforced. Only HELD is good news."""

    HELD = "held"
    OPEN = "open"
    """Some attempt got through."""
    NOT_ENFORCED = "notEnforced"
    """Every decoy door that could be open was: nothing here enforces NetworkPolicies."""
    UNPROVEN = "unproven"
    """None got through, and that proves nothing: no network, no control, no report, or nothing tried."""


@dataclass(frozen=True, slots=True)
class IsolationJudgement:
    """Names as they were ordered, doors first. Each door and question is in one of the four, except an open door of
    the
        pod's own, as it should be."""

    verdict: IsolationVerdict
    held: tuple[str, ...] = ()
    """Shut, and its control found it open."""
    open: tuple[str, ...] = ()
    """Open, whatever the control found."""
    unseen: tuple[str, ...] = ()
    """Not open, and not open for the control: no proof. A platform without such a door is not at fault."""
    failed: tuple[str, ...] = ()
    """No finding from the probe or its control, or an inconclusive one; a door of the pod's own that is not open; a
        name ordered twice, or reported and never ordered."""
    late: int = 0
    """Milliseconds: the longest for which a door that must be shut was open at the pod's start."""


class _Fate(StrEnum):
    HELD = "held"
    OPEN = "open"
    UNSEEN = "unseen"
    FAILED = "failed"
    RIGHT = "right"
    """Open, as a door of the pod's own should be."""


def judge_isolation(
    doors: tuple[ConnectionTarget, ...],
    questions: tuple[ApiRequest, ...],
    door_findings: Findings | None,
    question_findings: Findings | None,
    control_door_findings: Findings | None,
    control_question_findings: Findings | None,
) -> IsolationJudgement:
    """Judge a run. Findings are None where a container left none; they may lack any of what was ordered."""
    door_outcomes, control_door_outcomes = _collect_outcomes(door_findings), _collect_outcomes(control_door_findings)
    question_outcomes, control_question_outcomes = (
        _collect_outcomes(question_findings),
        _collect_outcomes(control_question_findings),
    )
    fates = _merge_fates(
        [
            *((door.name, _judge_door(door, door_outcomes, control_door_outcomes)) for door in doors),
            *(
                (question.name, _judge_forbidden(question.name, question_outcomes, control_question_outcomes))
                for question in questions
            ),
            *((name, _Fate.FAILED) for name in _find_unordered(door_outcomes, doors)),
            *((name, _Fate.FAILED) for name in _find_unordered(question_outcomes, questions)),
        ]
    )

    def names_of(fate: _Fate) -> tuple[str, ...]:
        return tuple(name for name, name_fate in fates.items() if name_fate is fate)

    verdict = (
        IsolationVerdict.NOT_ENFORCED
        if _is_unenforced(doors, door_outcomes, control_door_outcomes)
        else _choose_verdict(doors, fates)
    )
    return IsolationJudgement(
        verdict,
        names_of(_Fate.HELD),
        names_of(_Fate.OPEN),
        names_of(_Fate.UNSEEN),
        names_of(_Fate.FAILED),
        _find_longest_late(doors, door_findings),
    )


def _collect_outcomes(findings: Findings | None) -> OutcomesByName:
    outcomes: dict[str, frozenset[AttemptOutcome]] = {}
    for one in findings.tries if findings else ():
        outcomes[one.n] = outcomes.get(one.n, frozenset()) | {one.o}
    return outcomes


def _judge_door(door: ConnectionTarget, outcomes: OutcomesByName, control: OutcomesByName) -> _Fate:
    if door.against is not Against.OWN:
        return _judge_forbidden(door.name, outcomes, control)
    return _Fate.RIGHT if _is_only(door.name, outcomes, AttemptOutcome.OPEN) else _Fate.FAILED


def _judge_forbidden(name: str, outcomes: OutcomesByName, control: OutcomesByName) -> _Fate:
    """Judge an attempt that must be blocked."""
    if AttemptOutcome.OPEN in outcomes.get(name, ()):
        return _Fate.OPEN
    if name not in outcomes or name not in control:
        return _Fate.FAILED
    if not _is_only(name, control, AttemptOutcome.OPEN):
        return _Fate.UNSEEN
    return _Fate.HELD if _is_only(name, outcomes, AttemptOutcome.SHUT) else _Fate.FAILED


def _is_only(name: str, outcomes: OutcomesByName, outcome: AttemptOutcome) -> bool:
    return outcomes.get(name) == frozenset({outcome})


def _find_unordered(
    outcomes: OutcomesByName, targets: tuple[ConnectionTarget, ...] | tuple[ApiRequest, ...]
) -> Iterable[str]:
    """Return names that were reported and not ordered: such a probe may not have received the order."""
    names = {one.name for one in targets}
    return (name for name in outcomes if name not in names)


def _merge_fates(fates: list[tuple[str, _Fate]]) -> dict[str, _Fate]:
    """Return one fate a name. A name of two attempts proves nothing of either, unless one of them got through."""
    times = Counter(name for name, _ in fates)
    open_names = {name for name, fate in fates if fate is _Fate.OPEN}
    return {
        name: _Fate.OPEN if name in open_names else fate if times[name] == 1 else _Fate.FAILED for name, fate in fates
    }


def _is_unenforced(doors: tuple[ConnectionTarget, ...], outcomes: OutcomesByName, control: OutcomesByName) -> bool:
    """Return whether every decoy door that the control saw was open to the probe; at least one."""
    decoys = (door.name for door in doors if door.against is Against.DECOY)
    seen_names = [name for name in decoys if _is_only(name, control, AttemptOutcome.OPEN)]
    return bool(seen_names) and all(AttemptOutcome.OPEN in outcomes.get(name, ()) for name in seen_names)


def _choose_verdict(doors: tuple[ConnectionTarget, ...], fates: Mapping[str, _Fate]) -> IsolationVerdict:
    """Choose the verdict. An open door comes first: it is certain, whatever else is missing."""
    if _Fate.OPEN in fates.values():
        return IsolationVerdict.OPEN
    may_be_unseen = {door.name for door in doors if door.against is Against.PLATFORM}
    unseen_names = {name for name, fate in fates.items() if fate is _Fate.UNSEEN} - may_be_unseen
    tried_kinds = {door.against for door in doors}
    if unseen_names or _Fate.FAILED in fates.values() or not tried_kinds >= {Against.DECOY, Against.OWN}:
        return IsolationVerdict.UNPROVEN
    return IsolationVerdict.HELD


def _find_longest_late(doors: tuple[ConnectionTarget, ...], findings: Findings | None) -> int:
    forbidden_names = {door.name for door in doors if door.against is not Against.OWN}
    return max((one.late for one in (findings.tries if findings else ()) if one.n in forbidden_names), default=0)
