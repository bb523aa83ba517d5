"""`r1plus wait`: how a wait ends, with what exit status, and what a pipeline reads of it. The time is a test's own."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest

from r1plus_cli.errors import CliError, UnavailableError
from r1plus_cli.promotion import wait
from r1plus_cli.promotion.outcome import PromotionOutcome, PromotionResult
from r1plus_cli.promotion.wait import WATCH_SECONDS, WaitClock, wait_for_promotion
from support.cli.command import run
from support.cli.deployments import READY, VERIFIED, Json, condition, cr
from support.tables import for_each

KEY = "team-credit/credit"
TIMEOUT = 2400.0
FIGURES = "TooManyLost: lost 97 of 211 items, 4 allowed at threshold 0.98"
SERVING = {"revision": "credit-aaaa", "accuracy": "211/211", "verdict": "Pass", "readyReplicas": 1}
COMPLETE = condition("Progressing", "False", "Complete", "Revision credit-aaaa (smollm2-full-f16) takes traffic")
ROLLING = condition("Progressing", "True", "RollingOut", "Revision credit-bbbb is being gated")
RECONCILING = condition("Reconciling", "True", "RollingOut", "Revision credit-bbbb is being gated")
RUNNING = condition("QualityVerified", "Unknown", "GateRunning", "sweep 1 of 3")
Moment = tuple[float, Json | Exception | None]


def promoted(generation: int = 1) -> Json:
    return cr(READY, VERIFIED, COMPLETE, generation=generation, observed=generation, **SERVING)


def gating(generation: int = 1, observed: int | None = None) -> Json:
    conditions = (READY, RUNNING, ROLLING, RECONCILING)
    return cr(*conditions, generation=generation, observed=observed or generation, candidate="credit-bbbb", **SERVING)


def stalled(reason: str, message: str, progress: str = "CandidateRefused") -> Json:
    conditions = (READY, condition("Progressing", "False", progress), condition("Stalled", "True", reason, message))
    return cr(*conditions, candidate="credit-bbbb", **SERVING)


def resting(reason: str, message: str) -> Json:
    return cr(READY, VERIFIED, condition("Progressing", "False", reason, message), **SERVING)


def with_metadata(body: Json, **metadata: str) -> Json:
    return body | {"metadata": body["metadata"] | metadata}


class ScriptedCluster:
    """Shows one object as it is at each moment of a script; an error breaks the connection at its moment."""

    def __init__(self, *moments: Moment) -> None:
        self.now = 0.0
        self.left = list(moments)
        self.body: Json | None = None

    @property
    def clock(self) -> WaitClock:
        return WaitClock(lambda: self.now, self.pass_time)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def watch_deployment(self, namespace: str, name: str, seconds: float) -> Iterator[Json | None]:
        assert (f"{namespace}/{name}", 0 < seconds <= WATCH_SECONDS) == (KEY, True)
        end = self.now + seconds
        while self.left and self.left[0][0] <= self.now:
            self.show(self.left.pop(0)[1])
        yield self.body
        while self.left and self.left[0][0] <= end:
            moment, content = self.left.pop(0)
            self.now = max(self.now, moment)
            self.show(content)
            yield self.body
        self.now = max(self.now, end)

    def show(self, content: Json | Exception | None) -> None:
        if isinstance(content, Exception):
            raise content
        self.body = content


def wait_on(*moments: Moment) -> tuple[PromotionOutcome, float, list[str]]:
    """Return the outcome, the seconds that it took, and the lines of progress."""
    cluster, lines = ScriptedCluster(*moments), list[str]()
    outcome = wait_for_promotion(cluster, "team-credit", "credit", TIMEOUT, lines.append, cluster.clock)
    return outcome, cluster.now, [line.partition("  ")[2] for line in lines]


LOST = UnavailableError("Could not watch: the API server does not answer (reset)")
ENDS: dict[str, tuple[tuple[Moment, ...], PromotionResult, str, float]] = {
    "what is promoted already ends at once": ([(0, promoted())], PromotionResult.PROMOTED, "Complete", 0),
    "a gate that passes is a promotion": (
        [(0, gating()), (700.5, promoted())], PromotionResult.PROMOTED, "Complete", 700.5,
    ),
    "a status of the spec before does not count": (
        [(0, cr(READY, COMPLETE, generation=2, observed=1)), (5, gating(2)), (60, promoted(2))], PromotionResult.PROMOTED, "Complete", 60,
    ),
    "a refusal ends in the write that reports it": (
        [(0, gating()), (120, stalled("CandidateRefused", FIGURES))], PromotionResult.REFUSED, "CandidateRefused", 120,
    ),
    "accuracy that dropped is a refusal": (
        [(0, stalled("BelowThreshold", "4 of 211", "Complete"))], PromotionResult.REFUSED, "BelowThreshold", 0,
    ),
    "what waits for a person is not waited for": (
        [(0, stalled("NoNodeFits", "add a node", "Blocked"))], PromotionResult.STALLED, "NoNodeFits", 0,
    ),
    "a pause ends it": ([(0, gating()), (9, resting("Paused", "it is paused"))], PromotionResult.STALLED, "Paused", 9),
    "a pin that holds another spec ends it": ([(0, resting("Pinned", "it is pinned"))], PromotionResult.STALLED, "Pinned", 0),
    "no replicas end it": (
        [(0, cr(condition("Ready", "False", "ScaledToZero"), COMPLETE))], PromotionResult.STALLED, "ScaledToZero", 0,
    ),
    "what is promoted and has no ready pod is waited for": (
        [(0, cr(condition("Ready", "False", "NotServing"), COMPLETE)), (40, promoted())], PromotionResult.PROMOTED, "Complete", 40,
    ),
    "what serves and is gated again is waited for": (
        [(0, cr(READY, RUNNING, COMPLETE, RECONCILING)), (40, promoted())], PromotionResult.PROMOTED, "Complete", 40,
    ),
    "an object that comes later is waited for": (
        [(100, gating()), (200, promoted())], PromotionResult.PROMOTED, "Complete", 200,
    ),
    "a deletion ends it": ([(0, gating()), (7, None)], PromotionResult.DELETED, "", 7),
    "a deletion that finalizers hold ends it": (
        [(0, gating()), (7, with_metadata(gating(), deletionTimestamp="2026-11-24T17:00:00Z"))], PromotionResult.DELETED, "Deleting", 7,
    ),
    "an object that was made again while the connection was lost is another one": (
        [(0, with_metadata(gating(), uid="1")), (5, LOST), (6, with_metadata(promoted(), uid="2"))], PromotionResult.DELETED, "", 7,
    ),
    "a newer spec is waited for instead": (
        [(0, gating(2)), (50, gating(3, observed=2)), (90, promoted(3))], PromotionResult.PROMOTED, "Complete", 90,
    ),
    "a connection that is lost is made again": (
        [(0, gating()), (5, LOST), (5, LOST), (6, promoted())], PromotionResult.PROMOTED, "Complete", 9,
    ),
    "time ends with what it waits for": ([(0, gating())], PromotionResult.TIMED_OUT, "GateRunning", TIMEOUT),
    "time ends without an operator": ([(0, cr())], PromotionResult.TIMED_OUT, "", TIMEOUT),
    "time ends without an object": ([], PromotionResult.TIMED_OUT, "", TIMEOUT),
    "time ends without an answer": ([(0, LOST)] * 2000, PromotionResult.TIMED_OUT, "", TIMEOUT),
}  # fmt: skip


@for_each("moments, result, reason, seconds", ENDS)
def test_a_wait_ends_where_it_is_decided(
    moments: tuple[Moment, ...], result: PromotionResult, reason: str, seconds: float
) -> None:
    outcome, waited, _ = wait_on(*moments)
    assert (outcome.result, outcome.reason, waited) == (result, reason, seconds)


def test_progress_is_a_line_for_each_change() -> None:
    _, _, lines = wait_on((40, gating(1)), (50, LOST), (50, LOST), (60, gating(2, observed=1)), (90, promoted(2)))
    assert lines[0] == f"{KEY} does not exist yet"
    assert "GateRunning: sweep 1 of 3" in lines[1]
    assert lines[2].endswith("does not answer (reset); trying again")
    assert lines[3] == "The spec changed: generation 2 is waited for instead of 1"
    assert "has not processed the newest spec yet" in lines[4]
    assert len(lines) == 5


def test_what_will_not_change_by_waiting_is_no_reason_to_wait() -> None:
    with pytest.raises(CliError, match="you lack the permission"):
        wait_on((0, CliError("403: you lack the permission")))


class CommandCluster(ScriptedCluster):
    """What the command connects to."""

    def get_default_namespace(self) -> str:
        return "team-credit"

    def is_operator_ready(self) -> bool | None:
        return False


def run_wait(monkeypatch: pytest.MonkeyPatch, *words: str, moments: tuple[Moment, ...]) -> tuple[int, str, str]:
    cluster = CommandCluster(*moments)
    monkeypatch.setattr(wait, "connect", lambda _: cluster)
    monkeypatch.setattr(wait, "WaitClock", lambda: cluster.clock)
    result = run("wait", "credit", *words)
    return result.exit_code, result.stdout, result.stderr


REFUSED: tuple[Moment, ...] = ((0, gating()), (120, stalled("CandidateRefused", FIGURES)))
STATUSES: dict[str, tuple[tuple[Moment, ...], int, str]] = {
    "0: it is promoted": (((700, promoted()),), 0, f"{KEY}: promoted after 11m 40s: Revision credit-aaaa"),
    "1: it is refused, with the figures": (REFUSED, 1, f"{KEY}: refused after 2m 0s: CandidateRefused: {FIGURES}"),
    "1: it waits for a person": (((0, resting("Paused", "`r1plus resume NAME -n NAMESPACE --reason x`")),), 1, "resume credit -n team-credit --"),
    "1: it was deleted": (((0, gating()), (3, None)), 1, f"{KEY}: deleted after 3s: it was deleted"),
    "2: it is not decided in time": (((0, gating()),), 2, f"{KEY}: not promoted within 40m 0s: GateRunning: serves"),
}  # fmt: skip


@for_each("moments, status, text", STATUSES)
def test_the_exit_status_says_how_it_ended(
    moments: tuple[Moment, ...], status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run_wait(monkeypatch, moments=moments)
    assert code == status
    assert text in out
    assert "No pod of the operator is Ready" in err


def test_figures_of_what_serves_stand_apart_from_those_of_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run_wait(monkeypatch, moments=REFUSED)
    assert out.splitlines()[1] == "revision credit-aaaa serves: 211/211 right, threshold 0.98, verdict Pass"


def test_json_has_the_result_and_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run_wait(monkeypatch, "-o", "json", moments=REFUSED)
    expected: dict[str, Any] = {"result": "Refused", "reason": "CandidateRefused", "message": FIGURES, "generation": 1}
    expected |= {"waitedSeconds": 120.0, "threshold": "0.98", "accuracy": "211/211", "candidate": "credit-bbbb"}
    assert code == 1
    assert json.loads(out).items() >= (expected | {"namespace": "team-credit", "name": "credit"}).items()


JUNIT: dict[str, tuple[tuple[Moment, ...], tuple[str, str], str, str]] = {
    "a promotion is a test that passes": (((0, promoted()),), ("0", "0"), "system-out", ""),
    "a refusal is a failure": (REFUSED, ("1", "0"), "failure", "CandidateRefused"),
    "a deletion is an error": (((0, gating()), (3, None)), ("0", "1"), "error", "Deleted"),
    "no decision is an error": (((0, stalled("Blocked", 'a <b> & "c"')),), ("0", "1"), "error", "Blocked"),
}


@for_each("moments, counts, tag, kind", JUNIT)
def test_junit_is_one_test(
    moments: tuple[Moment, ...], counts: tuple[str, str], tag: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run_wait(monkeypatch, "-o", "junit", moments=moments)
    suite = ET.fromstring(out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", *counts)
    case = suite[0]
    assert (case.get("name"), case[0].tag, case[0].get("type", "")) == (KEY, tag, kind)


@pytest.mark.parametrize("words", [("--timeout", "0s"), ("--timeout", "soon"), ("--for", "deleted"), ("-o", "yaml")])
def test_words_that_it_does_not_know_are_usage_errors(words: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run_wait(monkeypatch, *words, moments=())
    assert (code != 0, out) == (True, "")
