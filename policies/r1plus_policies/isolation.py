"""What a run of the prober of walls has shown: the tries, each beside its control.

The operator calls it once the run's containers have said their last words, and whatever is missing of them is passed as
missing. Shut doors alone prove nothing: a pod without a network finds every door shut. So a door counts as held only
where the same try from an allowed pod found it open, and only if a door that is open by right was open.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from r1plus_contract.isolation import Against, Door, Findings, Outcome, Question

Said = Mapping[str, frozenset[Outcome]]
"""Name -> what was found under it. Several where it was said more than once; none of them may be overheard."""


class Verdict(StrEnum):
    """Whether the walls stand. Only HELD is good news."""

    HELD = "held"
    OPEN = "open"
    """Some try got through."""
    NOT_ENFORCED = "notEnforced"
    """Every door of the decoy's that could be open was: nothing here enforces NetworkPolicies."""
    UNPROVEN = "unproven"
    """None got through, and that shows nothing: no network, no control, no word, or nothing tried."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Names as they were ordered, doors first; each door and question in one of the four, except a door of the pod's
    own that is open, as it should be."""

    verdict: Verdict
    held: tuple[str, ...] = ()
    """Shut, and its control found it open."""
    open: tuple[str, ...] = ()
    """Open, whatever its control found."""
    unseen: tuple[str, ...] = ()
    """Not open, nor for its control: no proof of a wall. A platform that lacks such a door is none the worse for it."""
    failed: tuple[str, ...] = ()
    """No word on it from the prober or its control, or none that decides; a door of the pod's own that is not open; a
    name ordered twice, or found and never ordered."""
    late: int = 0
    """Milliseconds: the longest for which a door that must be shut was open at the pod's start."""


class _Fate(StrEnum):
    HELD = "held"
    OPEN = "open"
    UNSEEN = "unseen"
    FAILED = "failed"
    RIGHT = "right"
    """Open, as a door of the pod's own should be."""


def judge(
    doors: tuple[Door, ...],
    questions: tuple[Question, ...],
    knocked: Findings | None,
    asked: Findings | None,
    control_knocked: Findings | None,
    control_asked: Findings | None,
) -> Judgement:
    """The run's judgement. Findings are None where a container left none; they may lack any of what was ordered."""
    knocks, control_knocks = _said(knocked), _said(control_knocked)
    answers, control_answers = _said(asked), _said(control_asked)
    fates = _told_apart(
        [
            *((door.name, _door(door, knocks, control_knocks)) for door in doors),
            *((question.name, _walled(question.name, answers, control_answers)) for question in questions),
            *((name, _Fate.FAILED) for name in _never_ordered(knocks, doors)),
            *((name, _Fate.FAILED) for name in _never_ordered(answers, questions)),
        ]
    )

    def of(fate: _Fate) -> tuple[str, ...]:
        return tuple(name for name, came in fates.items() if came is fate)

    verdict = Verdict.NOT_ENFORCED if _nothing_held(doors, knocks, control_knocks) else _verdict(doors, fates)
    return Judgement(verdict, of(_Fate.HELD), of(_Fate.OPEN), of(_Fate.UNSEEN), of(_Fate.FAILED), _late(doors, knocked))


def _said(findings: Findings | None) -> Said:
    said: dict[str, frozenset[Outcome]] = {}
    for one in findings.tries if findings else ():
        said[one.n] = said.get(one.n, frozenset()) | {one.o}
    return said


def _door(door: Door, tried: Said, control: Said) -> _Fate:
    if door.against is not Against.OWN:
        return _walled(door.name, tried, control)
    return _Fate.RIGHT if _only(door.name, tried, Outcome.OPEN) else _Fate.FAILED


def _walled(name: str, tried: Said, control: Said) -> _Fate:
    """What became of a try that must find a wall."""
    if Outcome.OPEN in tried.get(name, ()):
        return _Fate.OPEN
    if name not in tried or name not in control:
        return _Fate.FAILED
    if not _only(name, control, Outcome.OPEN):
        return _Fate.UNSEEN
    return _Fate.HELD if _only(name, tried, Outcome.SHUT) else _Fate.FAILED


def _only(name: str, said: Said, outcome: Outcome) -> bool:
    return said.get(name) == frozenset({outcome})


def _never_ordered(said: Said, ordered: tuple[Door, ...] | tuple[Question, ...]) -> Iterable[str]:
    """Who answers what was not asked may not have heard what was."""
    names = {one.name for one in ordered}
    return (name for name in said if name not in names)


def _told_apart(fates: list[tuple[str, _Fate]]) -> dict[str, _Fate]:
    """One fate a name. A name that stands for two tries says nothing of either, unless one of them got through."""
    times = Counter(name for name, _ in fates)
    opened = {name for name, fate in fates if fate is _Fate.OPEN}
    return {name: _Fate.OPEN if name in opened else fate if times[name] == 1 else _Fate.FAILED for name, fate in fates}


def _nothing_held(doors: tuple[Door, ...], knocks: Said, control: Said) -> bool:
    """Whether every door of the decoy's that its control saw was open to the prober; one at least."""
    decoys = (door.name for door in doors if door.against is Against.DECOY)
    seen = [name for name in decoys if _only(name, control, Outcome.OPEN)]
    return bool(seen) and all(Outcome.OPEN in knocks.get(name, ()) for name in seen)


def _verdict(doors: tuple[Door, ...], fates: Mapping[str, _Fate]) -> Verdict:
    """What is open is said first: it is certain, whatever else the run failed to show."""
    if _Fate.OPEN in fates.values():
        return Verdict.OPEN
    may_be_unseen = {door.name for door in doors if door.against is Against.PLATFORM}
    unseen = {name for name, fate in fates.items() if fate is _Fate.UNSEEN} - may_be_unseen
    tried = {door.against for door in doors}
    if unseen or _Fate.FAILED in fates.values() or not tried >= {Against.DECOY, Against.OWN}:
        return Verdict.UNPROVEN
    return Verdict.HELD


def _late(doors: tuple[Door, ...], knocked: Findings | None) -> int:
    walled = {door.name for door in doors if door.against is not Against.OWN}
    return max((one.late for one in (knocked.tries if knocked else ()) if one.n in walled), default=0)
