"""The judge of a run of the prober: what is held, what is open, and what nobody can say."""

from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.monitor.isolation import (
    Against,
    ApiRequest,
    AttemptFinding,
    AttemptOutcome,
    ConnectionTarget,
    Findings,
)
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict, judge_isolation
from support.tables import for_each

pytestmark = pytest.mark.first_run_counts

SHUT, OPEN, FAILED = AttemptOutcome.SHUT, AttemptOutcome.OPEN, AttemptOutcome.FAILED
HTTP = ConnectionTarget("decoy-http", "decoy", 8000, Against.DECOY)
POD = ConnectionTarget("decoy-pod", "decoy-pods", 8001, Against.DECOY)
METADATA = ConnectionTarget("metadata", "169.254.169.254", 80, Against.PLATFORM)
DNS = ConnectionTarget("own-dns", "kube-dns", 53, Against.OWN)
DOORS = (HTTP, POD, METADATA, DNS)
SECRET = ApiRequest("secrets", "GET", "/api/v1/namespaces/r1plus-decoy/secrets/decoy")
NOBODY = ApiRequest("secrets-anonymous", "GET", SECRET.path, anonymous=True)
QUESTIONS = (SECRET, NOBODY)


def found(**tries: AttemptOutcome | None) -> Findings:
    return Findings(tuple(AttemptFinding(name.replace("_", "-"), o) for name, o in tries.items() if o is not None))


KNOCKED = {"decoy_http": SHUT, "decoy_pod": SHUT, "metadata": SHUT, "own_dns": OPEN}
ASKED = {"secrets": SHUT, "secrets_anonymous": SHUT}
SEEN = {"decoy_http": OPEN, "decoy_pod": OPEN, "metadata": OPEN}
ANSWERED = {"secrets": OPEN, "secrets_anonymous": OPEN}
GOOD_KNOCKS, GOOD_ANSWERS = found(**KNOCKED), found(**ASKED)
GOOD_CONTROL_KNOCKS, GOOD_CONTROL_ANSWERS = found(**SEEN), found(**ANSWERED)
ISOLATED = ("decoy-http", "decoy-pod", "metadata", "secrets", "secrets-anonymous")


@dataclass(frozen=True)
class Run:
    """A run, as its four containers tell it; as a good one does, unless said otherwise."""

    connections: tuple[ConnectionTarget, ...] = DOORS
    requests: tuple[ApiRequest, ...] = QUESTIONS
    knocked: Findings | None = GOOD_KNOCKS
    asked: Findings | None = GOOD_ANSWERS
    control_knocked: Findings | None = GOOD_CONTROL_KNOCKS
    control_asked: Findings | None = GOOD_CONTROL_ANSWERS

    def judged(self) -> IsolationJudgement:
        return judge_isolation(
            self.connections, self.requests, self.knocked, self.asked, self.control_knocked, self.control_asked
        )


def said(usual: dict[str, AttemptOutcome], **tries: AttemptOutcome | None) -> Findings:
    """What a container of a good run finds, but for these."""
    return found(**{**usual, **tries})


knocked, asked, seen, answered = (partial(said, usual) for usual in (KNOCKED, ASKED, SEEN, ANSWERED))


def besides(*names: str) -> tuple[str, ...]:
    return tuple(name for name in ISOLATED if name not in names)


def expect(verdict: IsolationVerdict, **others: tuple[str, ...]) -> IsolationJudgement:
    """Return the judgement in which everything behind a wall is held, except these."""
    return IsolationJudgement(verdict, besides(*(name for names in others.values() for name in names)), **others)


HELD, OPENED, NOT_ENFORCED, UNPROVEN = (
    IsolationVerdict.HELD,
    IsolationVerdict.OPEN,
    IsolationVerdict.NOT_ENFORCED,
    IsolationVerdict.UNPROVEN,
)

CASES = {
    "all shut, and all seen open by the control": (Run(), expect(HELD)),
    "a platform without that connection is none the worse":
        (Run(control_knocked=seen(metadata=SHUT)), expect(HELD, unseen=("metadata",))),
    "nor one whose name does not resolve for anybody": (
        Run(knocked=knocked(metadata=FAILED), control_knocked=seen(metadata=FAILED)),
        expect(HELD, unseen=("metadata",)),
    ),
    "a platform's connection that is open is open, though the control saw nothing":
        (Run(knocked=knocked(metadata=OPEN), control_knocked=seen(metadata=SHUT)), expect(OPENED, open=("metadata",))),
    "a platform's connection that the control never tried is not excused":
        (Run(control_knocked=seen(metadata=None)), expect(UNPROVEN, failed=("metadata",))),
    "a platform's connection on which the prober failed and the control did not":
        (Run(knocked=knocked(metadata=FAILED)), expect(UNPROVEN, failed=("metadata",))),
    "one of the decoy's connections is open": (Run(knocked=knocked(decoy_pod=OPEN)), expect(OPENED, open=("decoy-pod",))),
    "all the decoy's connections are open":
        (Run(knocked=knocked(decoy_pod=OPEN, decoy_http=OPEN)), expect(NOT_ENFORCED, open=("decoy-http", "decoy-pod"))),
    "all of them that the control saw are open": (
        Run(knocked=knocked(decoy_pod=OPEN), control_knocked=seen(decoy_http=SHUT)),
        expect(NOT_ENFORCED, open=("decoy-pod",), unseen=("decoy-http",)),
    ),
    "all are open, and the control saw none": (
        Run(knocked=knocked(decoy_pod=OPEN, decoy_http=OPEN), control_knocked=None),
        expect(OPENED, open=("decoy-http", "decoy-pod"), failed=("metadata",)),
    ),
    "no policy is enforced, whatever else is missing": (
        Run(knocked=found(decoy_http=OPEN, decoy_pod=OPEN), asked=None),
        expect(
            NOT_ENFORCED,
            open=("decoy-http", "decoy-pod"),
            failed=("metadata", "own-dns", "secrets", "secrets-anonymous"),
        ),
    ),
    "a request is answered": (Run(asked=asked(secrets=OPEN)), expect(OPENED, open=("secrets",))),
    "a request is answered to nobody in particular": (
        Run(asked=asked(secrets_anonymous=OPEN), control_asked=None),
        expect(OPENED, open=("secrets-anonymous",), failed=("secrets",)),
    ),
    "the control is refused its request":
        (Run(control_asked=answered(secrets=SHUT)), expect(UNPROVEN, unseen=("secrets",))),
    "the control of the anonymous request is refused":
        (Run(control_asked=answered(secrets_anonymous=SHUT)), expect(UNPROVEN, unseen=("secrets-anonymous",))),
    "the API server did not answer the prober":
        (Run(asked=asked(secrets=FAILED)), expect(UNPROVEN, failed=("secrets",))),
    "the decoy does not listen": (Run(control_knocked=seen(decoy_http=SHUT)), expect(UNPROVEN, unseen=("decoy-http",))),
    "another than the decoy answers the control":
        (Run(control_knocked=seen(decoy_http=FAILED)), expect(UNPROVEN, unseen=("decoy-http",))),
    "the decoy's name does not resolve for the prober":
        (Run(knocked=knocked(decoy_http=FAILED)), expect(UNPROVEN, failed=("decoy-http",))),
    "the pod had no network": (Run(knocked=knocked(own_dns=SHUT)), expect(UNPROVEN, failed=("own-dns",))),
    "the pod could not find its own connection":
        (Run(knocked=knocked(own_dns=FAILED)), expect(UNPROVEN, failed=("own-dns",))),
    "its own connection was ordered, and it says nothing of it":
        (Run(knocked=knocked(own_dns=None)), expect(UNPROVEN, failed=("own-dns",))),
    "that the control has its own connection shut says nothing": (Run(control_knocked=seen(own_dns=SHUT)), expect(HELD)),
    "a connection was ordered, and nobody says a word on it": (
        Run(knocked=knocked(decoy_pod=None), control_knocked=seen(decoy_pod=None)),
        expect(UNPROVEN, failed=("decoy-pod",)),
    ),
    "a connection was ordered, and the prober says nothing of it":
        (Run(knocked=knocked(decoy_pod=None)), expect(UNPROVEN, failed=("decoy-pod",))),
    "no container says anything": (
        Run(knocked=None, asked=None, control_knocked=None, control_asked=None),
        expect(UNPROVEN, failed=("decoy-http", "decoy-pod", "metadata", "own-dns", "secrets", "secrets-anonymous")),
    ),
    "the containers say nothing in many words": (
        Run(knocked=Findings(()), asked=Findings(()), control_knocked=Findings(()), control_asked=Findings(())),
        expect(UNPROVEN, failed=("decoy-http", "decoy-pod", "metadata", "own-dns", "secrets", "secrets-anonymous")),
    ),
    "the knocking container says nothing":
        (Run(knocked=None), expect(UNPROVEN, failed=("decoy-http", "decoy-pod", "metadata", "own-dns"))),
    "the asking container says nothing": (Run(asked=None), expect(UNPROVEN, failed=("secrets", "secrets-anonymous"))),
    "the control that knocks says nothing":
        (Run(control_knocked=None), expect(UNPROVEN, failed=("decoy-http", "decoy-pod", "metadata"))),
    "the control that asks says nothing":
        (Run(control_asked=None), expect(UNPROVEN, failed=("secrets", "secrets-anonymous"))),
    "nothing was ordered": (
        Run(connections=(), requests=(), knocked=None, asked=None, control_knocked=None, control_asked=None),
        IsolationJudgement(UNPROVEN),
    ),
    "no connection of the decoy's was ordered":
        (Run(connections=(DNS,), requests=(), knocked=found(own_dns=OPEN), asked=None), IsolationJudgement(UNPROVEN)),
    "no connection was ordered that is open by right": (
        Run(connections=(HTTP,), requests=(), knocked=found(decoy_http=SHUT), asked=None),
        IsolationJudgement(UNPROVEN, ("decoy-http",)),
    ),
    "no platform was ordered to be tried": (
        Run(connections=(HTTP, DNS), requests=(), knocked=found(decoy_http=SHUT, own_dns=OPEN), asked=None),
        IsolationJudgement(HELD, ("decoy-http",)),
    ),
    "no request was ordered, and none answered":
        (Run(requests=(), asked=None, control_asked=None), IsolationJudgement(HELD, ("decoy-http", "decoy-pod", "metadata"))),
    "a connection was found that nobody ordered": (Run(knocked=knocked(another=SHUT)), expect(UNPROVEN, failed=("another",))),
    "a request was answered that nobody asked":
        (Run(asked=asked(another=SHUT)), expect(UNPROVEN, failed=("another",))),
    "the control may have tried more":
        (Run(control_knocked=seen(another=OPEN), control_asked=answered(another=OPEN)), expect(HELD)),
    "two connections of one name": (Run(connections=(*DOORS, HTTP)), expect(UNPROVEN, failed=("decoy-http",))),
    "two connections of one name, one of them open":
        (Run(connections=(*DOORS, ConnectionTarget("own-dns", "decoy", 53, Against.PLATFORM))), expect(OPENED, open=("own-dns",))),
    "a connection and a request of one name": (
        Run(
            connections=(*DOORS, ConnectionTarget("secrets", "decoy", 8002, Against.DECOY)),
            knocked=knocked(secrets=SHUT),
            control_knocked=seen(secrets=OPEN),
        ),
        expect(UNPROVEN, failed=("secrets",)),
    ),
}  # fmt: skip


@for_each("run, expected", CASES)
def test_a_run_is_judged(run: Run, expected: IsolationJudgement) -> None:
    assert run.judged() == expected


def twice(name: str, first: AttemptOutcome, second: AttemptOutcome) -> Findings:
    others = [AttemptFinding(n.replace("_", "-"), o) for n, o in KNOCKED.items() if n != name]
    return Findings(
        (AttemptFinding(name.replace("_", "-"), first), *others, AttemptFinding(name.replace("_", "-"), second))
    )


@for_each("name, first, second, expected", {
    "shut twice is shut": ("metadata", SHUT, SHUT, HELD),
    "shut and then open is open": ("metadata", SHUT, OPEN, OPENED),
    "open and then shut is open": ("metadata", OPEN, SHUT, OPENED),
    "shut and failed decides nothing": ("metadata", SHUT, FAILED, UNPROVEN),
    "its own connection open twice is open": ("own_dns", OPEN, OPEN, HELD),
    "its own connection open and shut decides nothing": ("own_dns", OPEN, SHUT, UNPROVEN),
})  # fmt: skip
def test_what_is_said_twice_counts_as_the_worse(
    name: str, first: AttemptOutcome, second: AttemptOutcome, expected: IsolationVerdict
) -> None:
    assert Run(knocked=twice(name, first, second)).judged().verdict is expected


def test_a_control_that_says_both_saw_nothing() -> None:
    both = Findings((*found(**SEEN).tries, AttemptFinding("decoy-http", SHUT)))
    assert Run(control_knocked=both).judged().unseen == ("decoy-http",)


def late(**by: int) -> Findings:
    return Findings(tuple(AttemptFinding(n.replace("_", "-"), o, late=by.get(n, 0)) for n, o in KNOCKED.items()))


@for_each("findings, expected", {
    "nothing said": (None, 0),
    "nothing found": (Findings(()), 0),
    "never open": (late(), 0),
    "the longest counts": (late(decoy_http=900, decoy_pod=1700, metadata=200), 1700),
    "a platform's connection counts": (late(metadata=200), 200),
    "its own connection may stay open": (late(own_dns=5000, metadata=200), 200),
    "not a connection that was never ordered": (Findings((AttemptFinding("another", SHUT, late=9),)), 0),
})  # fmt: skip
def test_for_how_long_a_policy_was_late(findings: Findings | None, expected: int) -> None:
    assert Run(knocked=findings).judged().late == expected


# Whatever the four containers say, with words missing, doubled and never asked for.
NAMES = st.sampled_from([*ISOLATED, "own-dns", "another"])
TRIES = st.lists(st.builds(AttemptFinding, NAMES, st.sampled_from(AttemptOutcome), st.integers(0, 9)), max_size=8)
FINDINGS = st.none() | st.builds(Findings, TRIES.map(tuple))
CONFUSED = st.builds(
    Run,
    st.lists(st.sampled_from(DOORS), max_size=5).map(tuple),
    st.lists(st.sampled_from(QUESTIONS), max_size=3).map(tuple),
    FINDINGS,
    FINDINGS,
    FINDINGS,
    FINDINGS,
)


def nearly(tries: dict[str, AttemptOutcome]) -> st.SearchStrategy[Findings | None]:
    """What a good run says, with a few words changed: random ones are hardly ever good."""
    good = found(**tries).tries
    changed = st.lists(
        st.tuples(st.integers(0, len(good) - 1), st.none() | st.sampled_from(AttemptOutcome)), max_size=2
    )

    def edit(changes: list[tuple[int, AttemptOutcome | None]]) -> Findings:
        by = dict(changes)
        edited = (AttemptFinding(t.n, o) for k, t in enumerate(good) if (o := by.get(k, t.o)) is not None)
        return Findings(tuple(edited))

    return changed.map(edit)


RUNS = CONFUSED | st.builds(
    Run, st.just(DOORS), st.just(QUESTIONS), nearly(KNOCKED), nearly(ASKED), nearly(SEEN), nearly(ANSWERED)
)


def outcomes(findings: Findings | None, name: str) -> set[AttemptOutcome]:
    return {t.o for t in (findings.tries if findings else ()) if t.n == name}


@given(RUNS)
def test_everything_ordered_is_told_once(run: Run) -> None:
    judged = run.judged()
    told = [*judged.held, *judged.open, *judged.unseen, *judged.failed]
    assert len(told) == len(set(told))
    isolated = {d.name for d in run.connections if d.against is not Against.OWN} | {q.name for q in run.requests}
    assert isolated <= set(told)


@given(RUNS)
def test_what_is_held_was_found_shut_and_seen_open(run: Run) -> None:
    names = {d.name: (run.knocked, run.control_knocked) for d in run.connections}
    names |= {q.name: (run.asked, run.control_asked) for q in run.requests}
    for name in run.judged().held:
        tried, control = names[name]
        assert (outcomes(tried, name), outcomes(control, name)) == ({SHUT}, {OPEN})


@given(RUNS)
def test_what_was_open_is_never_good_news(run: Run) -> None:
    opened = {d.name for d in run.connections if d.against is not Against.OWN and OPEN in outcomes(run.knocked, d.name)}
    opened |= {q.name for q in run.requests if OPEN in outcomes(run.asked, q.name)}
    judged = run.judged()
    assert set(judged.open) == opened
    assert (judged.verdict in (OPENED, NOT_ENFORCED)) == bool(opened)


@given(RUNS)
def test_held_means_that_everything_was_shown(run: Run) -> None:
    judged = run.judged()
    if judged.verdict is not HELD:
        return
    assert not judged.open
    assert not judged.failed
    assert set(judged.unseen) <= {d.name for d in run.connections if d.against is Against.PLATFORM}
    assert {Against.DECOY, Against.OWN} <= {d.against for d in run.connections}
    assert all(outcomes(run.knocked, d.name) == {OPEN} for d in run.connections if d.against is Against.OWN)


def without(findings: Findings | None, name: str) -> Findings | None:
    return Findings(tuple(t for t in findings.tries if t.n != name)) if findings else None


@given(
    RUNS,
    st.sampled_from([*ISOLATED, "own-dns"]),
    st.sampled_from(["knocked", "asked", "control_knocked", "control_asked"]),
)
def test_a_word_that_is_missing_never_makes_good_news(run: Run, name: str, where: str) -> None:
    """Taking away what was ordered and said: what did not hold does not hold then, either."""
    words = {w: getattr(run, w) for w in ("knocked", "asked", "control_knocked", "control_asked")}
    fewer = Run(run.connections, run.requests, **{**words, where: without(words[where], name)})
    contradicted = len(outcomes(words[where], name)) > 1
    ordered = name in {d.name for d in run.connections} | {q.name for q in run.requests}
    if ordered and not contradicted and run.judged().verdict is not HELD:
        assert fewer.judged().verdict is not HELD
