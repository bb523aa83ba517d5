"""A deployment's alerts, judged by the real promtool: when they fire, when they are silent, and that a rule with any
comparison, selector or duration changed would be found out."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract import metrics
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_operator.plan.manifests.alerts import AlertScope, build_rules
from r1plus_operator.plan.manifests.promql import escape_template, format_series, quote
from r1plus_operator.plan.settings import AlertTerms
from support.plan.world import ROOT
from support.promtool import Case, Judged, failures, firing_summary, mutants

ABOUT = AlertScope("team", "credit", "credit-1")
OTHERS = {
    "another tenant's": {"namespace": "other"},
    "another deployment's": {"deployment": "debit"},
    "a revision's that takes no traffic": {"revision": "credit-2"},
    "a pod's in quarantine": {"serving": "false"},
}


def of(metric: str, pod: str = "p1", **labels: str) -> str:
    """A series of one of the deployment's pods."""
    mine = {"namespace": "team", "deployment": "credit", "revision": "credit-1", "serving": "true", "pod": pod}
    return format_series(metric, **(mine | labels))


def upper(**labels: str) -> str:
    return of(metrics.ACCURACY_UPPER_BOUND_RATIO, **labels)


def standing(which: WatchStanding, **labels: str) -> str:
    return of(metrics.STANDING, **labels, standing=which.value)


def verdict(which: Verdict, **labels: str) -> str:
    return of(metrics.GATE_VERDICT, **labels, verdict=which.value)


def ratio(**labels: str) -> str:
    return of(metrics.ACCURACY_RATIO, **labels)


def confirmed(**labels: str) -> str:
    return of(metrics.CONFIRMED_RATIO, **labels)


def errors(**labels: str) -> str:
    return of(metrics.DETECTOR_EVIDENCE_RATIO, **({"detector": "errors"} | labels))


def replay(**labels: str) -> str:
    return of(metrics.SCORER_REPLAY, **labels)


def scored(**labels: str) -> str:
    """When a probe was last scored."""
    return of(metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS, **labels)


def loaded(**labels: str) -> str:
    """Is there once the engine has loaded, whatever it does."""
    return of(metrics.ENGINE_RUNNING_REQUESTS, **labels)


def up(**labels: str) -> str:
    return of("up", **labels)


def ready(**labels: str) -> str:
    of_operator = {"namespace": "team", "deployment": "credit", "type": "Ready", "pod": "operator-1"}
    return format_series(metrics.DEPLOYMENT_CONDITION, **(of_operator | labels))


def waiting(**labels: str) -> str:
    return of(metrics.ENGINE_WAITING_REQUESTS, **labels)


def requests(result: str = "queue_full", **labels: str) -> str:
    return of(metrics.ENGINE_REQUESTS_TOTAL, result=result, **labels)


DAY = 1440


def first_tokens(bounds: dict[str, int], start: int = 0, minutes: int = 60, **labels: str) -> dict[str, str]:
    """A histogram: so many more answers a minute at or below each bound, from minute `start` on."""
    before = f"_x{start} " if start else ""
    name = metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS + "_bucket"
    return {of(name, le=bound, **labels): f"{before}0+{count}x{minutes}" for bound, count in bounds.items()}


FAST = {"0.1": 10, "1": 100, "2.5": 100, "5": 100, "10": 100, "+Inf": 100}
"""The 95th of 100 is at 0.95 s."""
TWO_SECONDS = {"0.1": 0, "1": 0, "2.5": 140, "5": 140, "10": 140, "+Inf": 140}
FIVE_SECONDS = {"0.1": 600, "1": 3000, "2.5": 5400, "5": 5700, "10": 6000, "+Inf": 6000}
"""To the bit: whole numbers a second."""
OVER_FIVE_SECONDS = {"0.1": 0, "1": 0, "2.5": 0, "5": 94, "10": 100, "+Inf": 100}
"""The 95th of 100 is at 5.83 s."""
SEVEN_SECONDS = {"0.1": 0, "1": 0, "2.5": 0, "5": 90, "10": 100, "+Inf": 100}
VERY_FAST = {"0.1": 100, "1": 100, "2.5": 100, "5": 100, "10": 100, "+Inf": 100}


def days(yesterday: dict[str, int], today: dict[str, int], **labels: str) -> dict[str, str]:
    """The histogram of yesterday's revision, then of today's."""
    old = first_tokens(yesterday, minutes=120, **({"revision": "credit-0", "pod": "p0"} | labels))
    return old | first_tokens(today, start=DAY)


def gauges(name: Callable[..., str], value: str, silent: dict[str, str]) -> list[Case]:
    """Cases of an alert about a gauge of the pods that serve: `value` fires, each of `silent` does not."""
    return [
        Case("one pod of two", {name(): value, name(pod="p2"): next(iter(silent.values()))}, 1, labels={"revision": "credit-1"}),
        Case("both pods: one alert", {name(): value, name(pod="p2"): value}, 1),
        Case("no series", {}, 0),
        *(Case(said, {name(): values}, 0) for said, values in silent.items()),
        *(Case(f"{whose} is none of ours", {name(**labels): value}, 0) for whose, labels in OTHERS.items()),
    ]  # fmt: skip


def _standing(which: WatchStanding) -> list[Case]:
    others = [one for one in WatchStanding if one is not which]
    return [
        *gauges(partial(standing, which), "1x60", {"not so": "0x60", "not a number": "NaNx60"}),
        Case("every other standing", {standing(one): "1x60" for one in others} | {standing(which): "0x60"}, 0),
        Case("at once: it was decided already", {standing(which): "1x60"}, 1, at="0m"),
    ]  # fmt: skip


BELOW = [
    *_standing(WatchStanding.BELOW_THRESHOLD),
    *(replace(case, said=f"by the bound: {case.said}") for case in gauges(upper, "0.62x60", {"at the threshold": "0.98x60", "sound": "1x60", "not a number": "NaNx60"})),
    Case("a pod that says both is one alert", {standing(WatchStanding.BELOW_THRESHOLD): "1x60", upper(): "0.62x60"}, 1),
    Case("an outage is no drop, though its sweep got no answer", {upper(): "0.01x60", errors(): "1x60"}, 0),
    *(Case(f"an outage that is {whose} hides no drop", {upper(): "0.62x60", errors(**labels): "1x60"}, 1) for whose, labels in OTHERS.items()),
    Case("nor does the evidence of wrong answers", {upper(): "0.62x60", errors(detector="accuracy"): "1x60"}, 1),
    Case("nor errors as often as ever", {upper(): "0.62x60", errors(): "0.5x60"}, 1),
    Case("an outage of another pod hides no drop", {upper(): "0.62x60", errors(pod="p2"): "1x60"}, 1),
    Case("errors beside a drop that was counted", {standing(WatchStanding.BELOW_THRESHOLD): "1x60", errors(): "1x60"}, 1),
    Case("a pod in doubt, and a sweep that is still fine", {standing(WatchStanding.BELOW_THRESHOLD): "1x60", upper(): "1x60"}, 1),
]  # fmt: skip

NOT_VERIFIED = [
    Case("a failed gate that serves", {verdict(Verdict.PASS): "0x60", verdict(Verdict.FAIL): "1x60"}, 1, labels={"revision": "credit-1"}),
    Case("passed", {verdict(Verdict.PASS): "1x60", verdict(Verdict.FAIL): "0x60"}, 0),
    Case("one of two pods passed, the other checks", {verdict(Verdict.PASS): "1x60", verdict(Verdict.PASS, pod="p2"): "0x60"}, 0),
    Case("no verdict is shown at all: that is no data", {}, 0),
    Case("its gate runs, for 9 minutes", {verdict(Verdict.PASS): "0x60"}, 0, at="9m"),
    Case("its gate runs, for 11 minutes", {verdict(Verdict.PASS): "0x60"}, 1, at="11m"),
    *(Case(f"{whose} is none of ours", {verdict(Verdict.PASS, **labels): "0x60"}, 0) for whose, labels in OTHERS.items()),
]  # fmt: skip

SERVER_ERRORS = [
    *gauges(errors, "1x60", {"half the evidence": "0.5x60", "not a number": "NaNx60"}),
    Case("beyond all doubt", {errors(): "1000x60"}, 1),
    Case("at once: the detector decided", {errors(): "1x60"}, 1, at="0m"),
    Case("wrong answers are another alert's", {errors(detector="accuracy"): "1x60"}, 0),
]

SUITE_MISMATCH = [
    *gauges(replay, "0x60", {"replayed well": "1x60", "not a number": "NaNx60"}),
    Case("at once", {replay(): "0x60"}, 1, at="0m"),
]

NOW = "0+60x60"
"""A probe was scored this very second."""
STOPS = "0+60x40 2400x20"
"""At 6 probes a minute a score counts for 110 s."""
HOURS = ("1000000000+60x60", "1000003600+60x60")
"""Of a node whose clock is right, and of one whose clock is an hour off: nobody can tell which is which."""
SERVES = {up(): "1x60", loaded(): "0x60"}
SECOND = {up(pod="p2"): "1x60", loaded(pod="p2"): "0x60"}


def comes(minute: int, engine: int) -> dict[str, str]:
    """A second pod from that minute on, whose engine has loaded so many minutes later."""
    there = {up(pod="p2"): f"_x{minute} 1x40"}
    return there | ({loaded(pod="p2"): f"_x{minute + engine} 0x40"} if engine < 60 else {})


def moving(**labels: str) -> dict[str, str]:
    """Two namesakes of ours, which are probed."""
    return {scored(**({"pod": pod} | labels)): HOURS[0] for pod in ("p1", "p2")}


GONE = SERVES | {scored(): NOW, up(pod="p2"): "1x20 stale", loaded(pod="p2"): "0x20 stale", scored(pod="p2"): "0+60x20 stale"}  # fmt: skip

NO_DATA = [
    Case("no series at all", {}, 1),
    Case("no series at all, for a minute", {}, 0, at="1m"),
    Case("no series at all, for 3 minutes", {}, 1, at="3m"),
    Case("pods that Prometheus does not reach", {up(): "0x60", up(pod="p2"): "0x60"}, 2),
    Case("scored this second", SERVES | {scored(): NOW}, 0),
    Case("just fresh enough", SERVES | {scored(): STOPS}, 0, at="43m"),
    Case("just too old", SERVES | {scored(): STOPS}, 1, at="44m", labels={"pod": "p1"}),
    Case("just fresh enough, where nobody knows of targets", {scored(): STOPS}, 0, at="43m"),
    Case("just too old, where nobody knows of targets", {scored(): STOPS}, 1, at="44m"),
    Case("nothing scored yet, for 3 minutes, where nobody knows of targets", {scored(): "0x60"}, 1, at="3m"),
    Case("a prober that begins to answer has scored nothing yet", SERVES | {scored(): "_x20 0x40"}, 1, at="21m", labels={"pod": "p1"}),
    *(Case("a clock that is off or is not", SERVES | {scored(): values}, 0) for values in HOURS),
    Case("a clock that was an hour ahead is put right", SERVES | {scored(): "3600+60x40 2460+60x19"}, 0),
    Case("Prometheus was away for eight minutes", {up(): "1x20 _x8 1x30", loaded(): "0x20 _x8 0x30", scored(): "0+60x20 _x8 1740+60x30"}, 0, at="31m"),
    *(Case(f"{whose} scores are none of ours", SERVES | SECOND | {scored(): "600x60"} | moving(**labels), 2, at="9m") for whose, labels in OTHERS.items()),
    *(Case(f"{whose} scores are none of ours, where nobody knows of targets", {scored(): "600x60"} | moving(**labels), 1, at="9m") for whose, labels in OTHERS.items()),
    Case("never since the prober was started anew", SERVES | {scored(): "0x60"}, 1, labels={"pod": "p1"}),
    Case("not a number", SERVES | {scored(): "NaNx60"}, 1),
    Case("one pod of two is not probed", SERVES | SECOND | {scored(): NOW}, 1, labels={"pod": "p2"}),
    Case("one pod of two is not probed and shows no engine", SERVES | {up(pod="p2"): "1x60", scored(): NOW}, 1, labels={"pod": "p2"}),
    Case("one pod of two is not probed and Prometheus does not reach its Triton", SERVES | {up(pod="p2"): "0x60", scored(): NOW}, 1, labels={"pod": "p2"}),
    Case("a pod more that loads for 11 minutes", SERVES | comes(20, 60) | {scored(): NOW}, 0, at="31m"),
    Case("a pod more that loads for 13 minutes", SERVES | comes(20, 60) | {scored(): NOW}, 1, at="33m"),
    Case("a pod more that has loaded for 3 minutes", SERVES | comes(20, 1) | {scored(): NOW}, 0, at="24m"),
    Case("a pod more that has loaded for 5 minutes", SERVES | comes(20, 1) | {scored(): NOW}, 1, at="26m"),
    Case("a pod that is gone, after 2 minutes", GONE, 0, at="22m"),
    Case("a pod that is gone, after 4 minutes", GONE, 0, at="24m"),
    Case("a pod that is gone, after 9 minutes", GONE, 0, at="29m"),
    Case("a pod that is gone, after half an hour", GONE, 0, at="50m"),
    Case("a monitor that died 2 minutes ago", SERVES | {scored(): "0+60x20 stale"}, 0, at="22m"),
    Case("a monitor that died 3 minutes ago", SERVES | {scored(): "0+60x20 stale"}, 1, at="23m", labels={"pod": "p1"}),
    Case("a monitor that died and came back", SERVES | {scored(): "0+60x20 stale 1320+60x30"}, 0, at="24m"),
    *(Case(f"{whose} answers count for nothing", SERVES | {scored(**labels): NOW}, 1, labels={"pod": "p1"}) for whose, labels in OTHERS.items()),
    *(Case(f"{whose} answers are no data", {scored(**labels): NOW}, 1) for whose, labels in OTHERS.items()),
    *(Case(f"{whose} silence is none of ours", SERVES | {scored(): NOW, up(**{"pod": "p9"} | labels): "1x60"}, 0) for whose, labels in OTHERS.items()),
    *(Case(f"{whose} engine is none of ours", SERVES | {scored(): NOW, loaded(**{"pod": "p9"} | labels): "0x60"}, 0) for whose, labels in OTHERS.items()),
    *(Case(f"{whose} namesake has loaded long ago, ours loads", SERVES | comes(20, 60) | {scored(): NOW, loaded(**{"pod": "p2"} | labels): "0x60"}, 0, at="26m") for whose, labels in OTHERS.items()),
    *(Case(f"{whose} namesake is there for long, ours loads", SERVES | comes(20, 60) | {scored(): NOW, up(**{"pod": "p2"} | labels): "1x60"}, 0, at="26m") for whose, labels in OTHERS.items()),
    *(Case(f"{whose} namesake is there, ours is gone", GONE | {up(**{"pod": "p2"} | labels): "1x60"}, 0, at="29m") for whose, labels in OTHERS.items()),
]  # fmt: skip

DOWN = [
    Case("the operator says so, though a Triton answers", {ready(): "0x60", up(): "1x60"}, 1),
    Case("the operator says otherwise, though Prometheus reaches none", {ready(): "1x60", up(): "0x60"}, 0),
    Case("the operator that leads knows better than one that led", {ready(): "0x60", ready(pod="operator-2"): "1x60"}, 0),
    Case("nobody says anything", {}, 1),
    Case("no operator, and no Triton that answers", {up(): "0x60"}, 1),
    Case("no operator, and one Triton of two answers", {up(): "0x60", up(pod="p2"): "1x60"}, 0),
    Case("the operator does not know, and Triton answers", {ready(): "-1x60", up(): "1x60"}, 0),
    Case("the operator does not know, and no Triton answers", {ready(): "-1x60", up(): "0x60"}, 1),
    Case("another condition is False", {ready(type="Progressing"): "0x60", ready(): "1x60"}, 0),
    Case("another condition is True", {ready(type="AlertsWired"): "1x60", ready(): "0x60"}, 1),
    Case("for 4 minutes", {ready(): "0x60"}, 0, at="4m"),
    Case("for 6 minutes", {ready(): "0x60"}, 1, at="6m"),
    *(Case(f"{whose} being ready does not help", {ready(**labels): "1x60", ready(): "0x60"}, 1) for whose, labels in list(OTHERS.items())[:2]),
    *(Case(f"{whose} pods are none of ours", {up(**labels): "1x60"}, 1) for whose, labels in OTHERS.items()),
]  # fmt: skip

HIGH_LATENCY = [
    Case("seven seconds", first_tokens(SEVEN_SECONDS), 1),
    Case("five seconds are just borne", first_tokens(FIVE_SECONDS), 0),
    Case("a little over five seconds", first_tokens(OVER_FIVE_SECONDS), 1),
    Case("under a second", first_tokens(FAST), 0),
    Case("two seconds, and nothing to compare with", first_tokens(TWO_SECONDS), 0),
    Case("nobody asks", {}, 0),
    Case("under a second, and the engine was started anew", {name: f"{values.split('x')[0]}x20 {values.split('x')[0]}x39" for name, values in first_tokens(FAST).items()}, 0),
    Case("seven seconds, for 9 minutes", first_tokens(SEVEN_SECONDS), 0, at="9m"),
    Case("seven seconds, for 12 minutes", first_tokens(SEVEN_SECONDS), 1, at="12m"),
    *(Case(f"{whose} is none of ours", first_tokens(SEVEN_SECONDS, **labels), 0) for whose, labels in OTHERS.items()),
    Case("two seconds, and a tenth of one yesterday", days(VERY_FAST, TWO_SECONDS), 1, at="1500m", every="10m"),
    Case("two seconds, and just under one yesterday", days(FAST, TWO_SECONDS), 0, at="1500m", every="10m"),
    Case("one second, and a tenth of one yesterday", days(VERY_FAST, FAST), 0, at="1500m", every="10m"),
    Case("seven seconds as yesterday", days(SEVEN_SECONDS, SEVEN_SECONDS), 1, at="1500m", every="10m"),
    Case("seven seconds, and nobody asked yesterday", days(dict.fromkeys(FAST, 0), SEVEN_SECONDS), 1, at="1500m", every="10m"),
    Case("two seconds, and nobody asked yesterday", days(dict.fromkeys(FAST, 0), TWO_SECONDS), 0, at="1500m", every="10m"),
    *(Case(f"{whose} yesterday is none of ours", days(VERY_FAST, TWO_SECONDS, **labels), 0, at="1500m", every="10m") for whose, labels in list(OTHERS.items())[:2]),
]  # fmt: skip

EMPTIED = "1+2x38 0 80+2x20"
QUEUE_GROWING = [
    Case("two more every minute", {waiting(): "1+2x60"}, 1),
    Case("one more every minute in each of two pods", {waiting(): "1+1x60", waiting(pod="p2"): "1+1x60"}, 1),
    Case("long, and no longer than before", {waiting(): "50x60"}, 0),
    Case("shorter and shorter", {waiting(): "200-2x60"}, 0),
    Case("full, and requests are sent away", {waiting(): "64x60", requests(): "0+10x60"}, 1),
    Case("full, and one was sent away", {waiting(): "64x60", requests(): "0x29 1x30"}, 0),
    Case("full, and one a minute is sent away: few enough", {waiting(): "64x60", requests(): "0+1x60"}, 0),
    Case("full, and answered", {waiting(): "64x60", requests("ok"): "0+10x60"}, 0),
    *(Case(f"{whose} requests are sent away", {waiting(): "64x60", requests(**labels): "0+10x60"}, 0) for whose, labels in OTHERS.items()),
    Case("empty", {waiting(): "0x60"}, 0),
    Case("no series", {}, 0),
    Case("longer and longer, and empty in between", {waiting(): EMPTIED}, 0, at="52m"),
    Case("one more every minute: slowly enough", {waiting(): "1+1x60"}, 0),
    Case("for 3 minutes", {waiting(): "1+2x60"}, 0, at="3m"),
    Case("for 8 minutes", {waiting(): "1+2x60"}, 1, at="8m"),
    *(Case(f"{whose} is none of ours", {waiting(**labels): "1+2x60"}, 0) for whose, labels in OTHERS.items()),
    *(Case(f"{whose} queue hides nothing", {waiting(): "0x60", waiting(**{"pod": "p9"} | labels): "1+2x60"}, 0) for whose, labels in OTHERS.items()),
    *(Case(f"{whose} queue that is never empty hides nothing", {waiting(): EMPTIED, waiting(**{"pod": "p9"} | labels): "50x60"}, 0, at="52m") for whose, labels in OTHERS.items()),
    *(Case(f"{whose} queue that shrinks hides nothing", {waiting(): "1+2x60", waiting(**{"pod": "p9"} | labels): "500-5x60"}, 1) for whose, labels in OTHERS.items()),
]  # fmt: skip


def schemas(**labels: str) -> str:
    return of(metrics.ENGINE_SCHEMA_USED_RATIO, **labels)


EMPTIED_SCHEMAS = "0.9x25 0.1 0.9x34"
SCHEMA_MEMORY = [
    *gauges(schemas, "0.81x60", {"80 %": "0.8x60", "nothing": "0x60"}),
    Case("half in each of two pods", {schemas(): "0.5x60", schemas(pod="p2"): "0.5x60"}, 0),
    Case("emptied in between", {schemas(): EMPTIED_SCHEMAS}, 0, at="32m"),
    Case("for 14 minutes", {schemas(): "0.9x60"}, 0, at="14m"),
    Case("for 16 minutes", {schemas(): "0.9x60"}, 1, at="16m"),
]  # fmt: skip

CASES = {
    metrics.ALERT_BELOW_THRESHOLD: BELOW,
    metrics.ALERT_CHANGED: _standing(WatchStanding.CHANGED),
    metrics.ALERT_NOT_VERIFIED: NOT_VERIFIED,
    metrics.ALERT_SERVER_ERRORS: SERVER_ERRORS,
    metrics.ALERT_SUITE_MISMATCH: SUITE_MISMATCH,
    metrics.ALERT_NO_DATA: NO_DATA,
    metrics.ALERT_DOWN: DOWN,
    metrics.ALERT_HIGH_LATENCY: HIGH_LATENCY,
    metrics.ALERT_QUEUE_GROWING: QUEUE_GROWING,
    metrics.ALERT_SCHEMA_MEMORY_FULL: SCHEMA_MEMORY,
}
RULES = {rule["alert"]: rule for rule in build_rules(ABOUT, 0.98)}


def test_every_alert_of_a_deployment_is_tried() -> None:
    assert list(CASES) != []
    assert set(CASES) == set(RULES)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    """What promtool says of an alert, asked once."""
    return cache(lambda alert: Judged(tmp_path_factory.mktemp("alert"), RULES[alert], CASES[alert]))


@pytest.mark.parametrize(
    ("alert", "said"), [pytest.param(a, c.said, id=f"{a}: {c.said}") for a, cs in CASES.items() for c in cs]
)
def test_the_alert_fires_where_it_should_and_nowhere_else(
    judged: Callable[[str], Judged], alert: str, said: str
) -> None:
    assert said not in judged(alert).wrong


MUTANTS = [(alert, change) for alert in CASES for change, _ in mutants(RULES[alert])]


@pytest.mark.unit_long
@pytest.mark.parametrize(("alert", "change"), MUTANTS, ids=[f"{alert}: {change}" for alert, change in MUTANTS])
def test_a_changed_rule_is_found_out(judged: Callable[[str], Judged], alert: str, change: str) -> None:
    assert change in judged(alert).mutants
    assert change not in judged(alert).survivors


def test_every_alert_says_how_bad_what_and_where_to_read_on() -> None:
    for rule in RULES.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["labels"] | {"team": "platform", "namespace": "team", "deployment": "credit"} == rule["labels"]
        assert rule["annotations"]["summary"].startswith("team/credit ")
        told = "See `r1plus status credit -n team` and the runbook. Revision credit-1."
        assert told in rule["annotations"]["description"]
        sentences = re.split(r"(?<=[.:]) ", rule["annotations"]["description"])
        assert [one for one in sentences if len(one.split()) > 25] == []
        repository, _, page = rule["annotations"]["runbook_url"].partition("/blob/main/")
        assert (repository, page) == ("https://github.com/r1plus/r1plus", f"monitoring/runbooks/{rule['alert']}.md")
        assert (ROOT / page).is_file()


def test_an_alert_names_what_it_is_about_so_that_accuracy_and_service_can_be_routed_apart() -> None:
    serving = {
        metrics.ALERT_DOWN,
        metrics.ALERT_HIGH_LATENCY,
        metrics.ALERT_QUEUE_GROWING,
        metrics.ALERT_SCHEMA_MEMORY_FULL,
    }
    components = {name: rule["labels"]["component"] for name, rule in RULES.items()}
    assert components == {name: "serving" if name in serving else "accuracy" for name in RULES}


def test_a_deployment_that_is_scaled_to_zero_is_not_missed() -> None:
    left = {rule["alert"] for rule in build_rules(ABOUT, 0.98, replicas=0)}
    assert set(RULES) - left == {metrics.ALERT_DOWN, metrics.ALERT_NO_DATA}


@pytest.mark.parametrize(("rate", "seconds"), [(1, 360), (6, 110), (10, 90), (6000, 90)])
def test_how_old_a_score_may_be_follows_from_the_rate(rate: int, seconds: int) -> None:
    (rule,) = [r for r in build_rules(ABOUT, 0.98, probes_per_minute=rate) if r["alert"] == metrics.ALERT_NO_DATA]
    assert rule["expr"].count(f" offset {seconds}s)") == 2


@pytest.mark.parametrize("threshold", [0.98, 1.0, 0.9999999, 1e-7])
def test_the_threshold_arrives_with_all_its_digits(threshold: float) -> None:
    (rule,) = [r for r in build_rules(ABOUT, threshold) if r["alert"] == metrics.ALERT_BELOW_THRESHOLD]
    assert float(re.findall(r"} < (\S+) unless ", rule["expr"])[0]) == threshold


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(value=TEXT)
def test_no_value_breaks_out_of_its_quotes(value: str) -> None:
    literal = quote(value)
    assert re.fullmatch(r'"([^"\\\n]|\\["\\bfnrt]|\\u[0-9a-f]{4})*"', literal)
    assert format_series("m", a=value, b="1").endswith(f'={literal},b="1"}}')


@given(value=TEXT)
def test_no_value_is_carried_out_as_a_template(value: str) -> None:
    assert escape_template(value).replace('{{"{{"}}', "").count("{{") == 0
    assert escape_template(value).replace('{{"{{"}}', "{{") == value


BREAKERS = ['x"} or vector(1) #', "back\\slash", "new\nline", "{{ query `up` }}", "{{{", "a|b", "Ä🙂"]


@pytest.mark.parametrize("name", BREAKERS)
def test_a_name_that_breaks_out_still_makes_rules_about_that_name_alone(tmp_path: Path, name: str) -> None:
    about = AlertScope(name, name, name)
    mine = format_series(metrics.SCORER_REPLAY, namespace=name, deployment=name, revision=name)
    cases = [Case("its own", {mine: "0x60"}, 1, labels={"namespace": name}), Case("another's", {replay(): "0x60"}, 0)]
    (rule,) = [rule for rule in build_rules(about, 0.98) if rule["alert"] == metrics.ALERT_SUITE_MISMATCH]
    assert failures(tmp_path, [rule], cases) == set()


def test_labels_severities_and_runbooks_are_the_installations() -> None:
    terms = AlertTerms(
        "https://wiki/r1plus", {"team": "ml", "severity": "none", "service": "models"}, {"critical": "page"}
    )
    own = {rule["alert"]: rule for rule in build_rules(ABOUT, 0.98, terms=terms)}
    assert own.keys() == RULES.keys()
    for name, rule in own.items():
        was = RULES[name]
        severity = {"critical": "page", "warning": "warning"}[was["labels"]["severity"]]
        assert rule["labels"] == was["labels"] | {"team": "ml", "service": "models", "severity": severity}
        assert rule["annotations"] == was["annotations"] | {"runbook_url": f"https://wiki/r1plus/{name}.md"}
        assert {key: rule[key] for key in ("alert", "expr")} == {key: was[key] for key in ("alert", "expr")}


FIGURES = [
    pytest.param({standing(WatchStanding.BELOW_THRESHOLD): "1x60", confirmed(): "0.6351x60", ratio(): "1x60"}, "134", id="by the count after an alarm"),
    pytest.param({upper(): "0.7x60", ratio(): "0.6351x60"}, "134", id="by the last sweep"),
    pytest.param({upper(): "0.7x60", ratio(): "0.6351x60", ratio(pod="p2"): "0.9x60"}, "134", id="by the worst pod"),
    pytest.param({standing(WatchStanding.BELOW_THRESHOLD): "1x60"}, "too few", id="no figure"),
]  # fmt: skip


@pytest.mark.parametrize(("series", "right"), FIGURES)
def test_how_many_items_are_right_stands_in_the_alert(tmp_path: Path, series: dict[str, str], right: str) -> None:
    (rule,) = [r for r in build_rules(ABOUT, 0.98, items=211) if r["alert"] == metrics.ALERT_BELOW_THRESHOLD]
    summary = firing_summary(tmp_path, rule, series)
    assert summary == f"team/credit answers {right} of 211 items right, below the threshold of 0.98"


def test_where_no_suite_is_at_hand_the_alert_says_what_fell() -> None:
    (rule,) = [r for r in build_rules(ABOUT, 0.98) if r["alert"] == metrics.ALERT_BELOW_THRESHOLD]
    assert rule["annotations"]["summary"] == "team/credit answers too few items right, below the threshold of 0.98"
