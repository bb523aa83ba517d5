"""Judges a run of the isolation test: each attempt together with its control.

The operator calls it after the containers of the run have ended; a container may have left no findings. A blocked
attempt alone proves nothing, since a pod without a network is blocked everywhere. So it counts only if the same attempt
succeeded from the control, a pod that is allowed. The pod's own allowed connection must succeed, too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from r1plus_contract.monitor.isolation import Against, ApiRequest, AttemptOutcome, ConnectionTarget, Findings

OutcomesByName = Mapping[str, frozenset[AttemptOutcome]]
"""Name -> outcomes under it. Several where it was reported more than once; all of them count."""


class IsolationVerdict(StrEnum):
    """Whether isolation is enforced. Only HELD is good news."""

    HELD = "held"
    OPEN = "open"
    """At least one forbidden attempt succeeded."""
    NOT_ENFORCED = "notEnforced"
    """Every connection to the decoy succeeded: nothing enforces NetworkPolicies."""
    UNPROVEN = "unproven"
    """No attempt succeeded, and that proves nothing: no network, no control, no report, or no attempts."""


@dataclass(frozen=True, slots=True)
class IsolationJudgement:
    """Names of attempts in the order of the Job, connections first. Each is in one of the four tuples, except the pod's
    own allowed connection if it succeeded."""

    verdict: IsolationVerdict
    held: tuple[str, ...] = ()
    """Blocked, and the control's succeeded."""
    open: tuple[str, ...] = ()
    """Succeeded, whatever the control found."""
    unseen: tuple[str, ...] = ()
    """Blocked for the control, too, which proves nothing. Not every platform has every target."""
    failed: tuple[str, ...] = ()
    """No conclusive finding from the test or its control; or the pod's own connection failed; or the name is in the Job
    twice, or not at all."""
    late: int = 0
    """Milliseconds: the longest time for which a forbidden connection succeeded at the pod's start."""


class _Fate(StrEnum):
    HELD = "held"
    OPEN = "open"
    UNSEEN = "unseen"
    FAILED = "failed"
    RIGHT = "right"
    """The pod's own connection, which succeeded as it should."""


def judge_isolation(
    connections: tuple[ConnectionTarget, ...],
    requests: tuple[ApiRequest, ...],
    connection_findings: Findings | None,
    request_findings: Findings | None,
    control_connection_findings: Findings | None,
    control_request_findings: Findings | None,
) -> IsolationJudgement:
    """Judge a run. Findings are None if a container left none, and may lack any attempt of the Job."""
    connection_outcomes, control_connection_outcomes = (
        _collect_outcomes(connection_findings),
        _collect_outcomes(control_connection_findings),
    )
    request_outcomes, control_request_outcomes = (
        _collect_outcomes(request_findings),
        _collect_outcomes(control_request_findings),
    )
    fates = _merge_fates(
        [
            *(
                (connection.name, _judge_connection(connection, connection_outcomes, control_connection_outcomes))
                for connection in connections
            ),
            *(
                (request.name, _judge_forbidden(request.name, request_outcomes, control_request_outcomes))
                for request in requests
            ),
            *((name, _Fate.FAILED) for name in _find_unordered(connection_outcomes, connections)),
            *((name, _Fate.FAILED) for name in _find_unordered(request_outcomes, requests)),
        ]
    )

    def names_of(fate: _Fate) -> tuple[str, ...]:
        return tuple(name for name, name_fate in fates.items() if name_fate is fate)

    verdict = (
        IsolationVerdict.NOT_ENFORCED
        if _is_unenforced(connections, connection_outcomes, control_connection_outcomes)
        else _choose_verdict(connections, fates)
    )
    return IsolationJudgement(
        verdict,
        names_of(_Fate.HELD),
        names_of(_Fate.OPEN),
        names_of(_Fate.UNSEEN),
        names_of(_Fate.FAILED),
        _find_longest_late(connections, connection_findings),
    )


def _collect_outcomes(findings: Findings | None) -> OutcomesByName:
    outcomes: dict[str, frozenset[AttemptOutcome]] = {}
    for one in findings.tries if findings else ():
        outcomes[one.n] = outcomes.get(one.n, frozenset()) | {one.o}
    return outcomes


def _judge_connection(connection: ConnectionTarget, outcomes: OutcomesByName, control: OutcomesByName) -> _Fate:
    if connection.against is not Against.OWN:
        return _judge_forbidden(connection.name, outcomes, control)
    return _Fate.RIGHT if _is_only(connection.name, outcomes, AttemptOutcome.OPEN) else _Fate.FAILED


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
    """Return names that were reported and are not in the Job: that container may have run other arguments."""
    names = {one.name for one in targets}
    return (name for name in outcomes if name not in names)


def _merge_fates(fates: list[tuple[str, _Fate]]) -> dict[str, _Fate]:
    """Return one fate for each name. A name of two attempts proves nothing, unless one of them succeeded."""
    times = Counter(name for name, _ in fates)
    open_names = {name for name, fate in fates if fate is _Fate.OPEN}
    return {
        name: _Fate.OPEN if name in open_names else fate if times[name] == 1 else _Fate.FAILED for name, fate in fates
    }


def _is_unenforced(
    connections: tuple[ConnectionTarget, ...], outcomes: OutcomesByName, control: OutcomesByName
) -> bool:
    """Return whether the test reached every decoy connection that its control reached, and at least one."""
    decoys = (connection.name for connection in connections if connection.against is Against.DECOY)
    seen_names = [name for name in decoys if _is_only(name, control, AttemptOutcome.OPEN)]
    return bool(seen_names) and all(AttemptOutcome.OPEN in outcomes.get(name, ()) for name in seen_names)


def _choose_verdict(connections: tuple[ConnectionTarget, ...], fates: Mapping[str, _Fate]) -> IsolationVerdict:
    """Choose the verdict. A forbidden connection that succeeded decides, whatever else is missing."""
    if _Fate.OPEN in fates.values():
        return IsolationVerdict.OPEN
    may_be_unseen = {connection.name for connection in connections if connection.against is Against.PLATFORM}
    unseen_names = {name for name, fate in fates.items() if fate is _Fate.UNSEEN} - may_be_unseen
    tried_kinds = {connection.against for connection in connections}
    if unseen_names or _Fate.FAILED in fates.values() or not tried_kinds >= {Against.DECOY, Against.OWN}:
        return IsolationVerdict.UNPROVEN
    return IsolationVerdict.HELD


def _find_longest_late(connections: tuple[ConnectionTarget, ...], findings: Findings | None) -> int:
    forbidden_names = {connection.name for connection in connections if connection.against is not Against.OWN}
    return max((one.late for one in (findings.tries if findings else ()) if one.n in forbidden_names), default=0)
