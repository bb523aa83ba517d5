"""A deployment told in one sentence: the sentence names what a person has to know first."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from r1plus_cli.cluster.kubernetes_cluster import find_missing_kubeconfig
from r1plus_cli.deployment.status_text import ChangeReporter, choose_mark, compute_widths, format_cells, show_one
from r1plus_cli.deployment.view import COLUMNS, build_view, format_age
from r1plus_operator.api.conditions import KSTATUS_CONDITIONS, ConditionType
from support.cli.command import printed
from support.cli.deployments import READY, VERIFIED, Json, condition, cr

SERVING = {"readyReplicas": 1, "engine": "smollm2-full-f16", "revision": "credit-aaaa"}

NO_NODE = "False", "NoNodeFits", "needs 3 GiB"
NO_TENANT = "False", "NamespaceNotTenant", "no label"
STARTS = "0 of 1 pod is Ready: it starts"
OPEN = condition("IsolationVerified", "False", "IsolationBroken", "Not blocked: decoy-pod:8000")
UNWATCHED = condition("AlertsWired", "False", "TargetDown", "Prometheus cannot scrape it")
HEADLINES = {
    "an operator that never came is named": (cr(), "has not processed it yet"),
    "a new spec that nobody has read is named": (cr(READY, generation=2, observed=1), "newest spec"),
    "one that serves says how many pods": (cr(READY, VERIFIED, **SERVING), "serves, 1 of 1 pod ready"),
    "a running gate tells its progress": (
        cr(
            condition("Ready", "False", "NotServing", "no revision has passed"),
            condition("EngineReady", "True", "EngineLoaded"),
            condition("QualityVerified", "Unknown", "GateRunning", "sweep 2 of 3 at batch 16: 131 of 210"),
        ),
        "does not serve, 0 of 1 pod ready; GateRunning: sweep 2 of 3",
    ),
    "what is wrong comes before what is unknown because of it": (
        cr(
            condition("Ready", *NO_NODE),
            condition(
                "EngineReady", "Unknown", "Pending", "Not checked, because the spec cannot be served; see Progressing"
            ),
            condition("CapacityFits", *NO_NODE),
        ),
        "0 of 1 pod ready; NoNodeFits: needs 3 GiB",
    ),
    "a missing engine comes before the quality that cannot be known": (
        cr(
            condition("Ready", "False", "NotServing", "nothing serves"),
            condition("QualityVerified", "Unknown", "NotYetKnown", "no engine"),
            condition("EngineReady", "False", "EngineNotFound", "no engine of tier full"),
        ),
        "EngineNotFound: no engine of tier full",
    ),
    "a refused candidate is told although the old revision serves": (
        cr(
            READY,
            condition("QualityVerified", "False", "GateFailed", "TooManyLost: lost 47 of 206"),
            condition("Progressing", "False", "CandidateRefused", "Revision credit-bbbb was refused"),
            candidate="credit-bbbb",
            **SERVING,
        ),
        "serves, 1 of 1 pod ready; candidate: GateFailed: TooManyLost: lost 47 of 206",
    ),
    "a candidate that passed and is being scaled is told": (
        cr(READY, VERIFIED, condition("Progressing", "True", "RollingOut", "Revision credit-bbbb starts"), **SERVING),
        "RollingOut: Revision credit-bbbb starts",
    ),
    "that nobody watches what does not serve explains nothing": (
        cr(condition("Ready", "False", "NotAvailable", STARTS), UNWATCHED, revision="credit-aaaa", readyReplicas=0),
        "does not serve, 0 of 1 pod ready; NotAvailable: 0 of 1 pod is Ready: it starts",
    ),
    "that nobody has shown the walls of what does not serve explains nothing": (
        cr(VERIFIED, OPEN, condition("Ready", "False", "NotServing", STARTS)),
        "does not serve, 0 of 1 pod ready; NotServing: 0 of 1 pod is Ready: it starts",
    ),
    "why nothing new is rolled out where there is no tenant is told by Ready as well": (
        cr(condition("IsolationVerified", *NO_TENANT), condition("Ready", *NO_TENANT)),
        "does not serve, 0 of 1 pod ready; NamespaceNotTenant: no label",
    ),
    "a wall that is open is told of what serves, before what is not known yet": (
        cr(READY, condition("QualityVerified", "Unknown", "SuiteShadowed", "10 %"), OPEN, **SERVING),
        "serves, 1 of 1 pod ready; IsolationBroken: Not blocked: decoy-pod:8000",
    ),
    "that nobody watches what serves is told": (
        cr(READY, VERIFIED, UNWATCHED, **SERVING),
        "serves, 1 of 1 pod ready; TargetDown: Prometheus cannot scrape it",
    ),
    "at rest nothing but the pods is told": (
        cr(READY, VERIFIED, condition("Progressing", "False", "Complete", "Revision credit-aaaa"), **SERVING),
        "serves, 1 of 1 pod ready",
    ),
    "a served engine below its threshold is told": (
        cr(READY, condition("QualityVerified", "False", "BelowThreshold", "160 of 206 right"), **SERVING),
        "BelowThreshold: 160 of 206 right",
    ),
}


@pytest.mark.parametrize(("given", "expected"), HEADLINES.values(), ids=HEADLINES.keys())
def test_headline(given: Json, expected: str) -> None:
    assert expected in build_view(given).format_headline()


def test_a_status_with_unknown_fields_and_types_missing_is_still_shown() -> None:
    view = build_view({"metadata": {"name": "x", "namespace": "y"}, "status": {"conditions": None, "later": {"a": 1}}})
    assert view.key == "y/x"
    assert not view.ready
    assert view.columns() == ("y", "x", "-", "-", "-", "-", "-", "Unknown")


def test_ready_speaks_of_the_newest_spec_only() -> None:
    assert build_view(cr(READY, generation=1, observed=1)).ready
    assert not build_view(cr(READY, generation=2, observed=1)).ready


CANDIDATES = {
    "what a candidate lost": ({"candidate": "credit-bbbb"}, "candidate: GateFailed: 47 lost"),
    "what serves": ({}, "GateFailed: 47 lost"),
    "what serves, while another one is swept for a rollback": (
        {"candidate": "credit-bbbb", "incident": {"reason": "ControlRunning", "revision": "credit-aaaa"}},
        "GateFailed: 47 lost",
    ),
}


@pytest.mark.parametrize(("status", "expected"), CANDIDATES.values(), ids=CANDIDATES.keys())
def test_a_row_says_whose_its_condition_is(status: Json, expected: str) -> None:
    given = cr(READY, condition("QualityVerified", "False", "GateFailed", "47 lost"), **SERVING, **status)
    assert build_view(given).format_brief() == expected
    assert build_view(given).format_headline() == f"serves, 1 of 1 pod ready; {expected}"


AGES = {
    "seconds up to two minutes": (timedelta(seconds=119), "119s"),
    "minutes up to two hours": (timedelta(minutes=119), "119m"),
    "hours up to two days": (timedelta(hours=47), "47h"),
    "days after that": (timedelta(days=9, hours=3), "9d"),
    "a clock that runs behind shows nothing negative": (timedelta(seconds=-5), "0s"),
}


@pytest.mark.parametrize(("old", "expected"), AGES.values(), ids=AGES.keys())
def test_age(old: timedelta, expected: str) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert format_age(now - old, now) == expected


MARKS = {
    "what holds": (condition("Ready", "True", "Serving"), "✓"),
    "what does not": (condition("QualityVerified", "False", "GateFailed"), "✗"),
    "what is not known": (condition("QualityVerified", "Unknown", "GateRunning"), "?"),
    "a rollout at rest": (condition("Progressing", "False", "Complete"), "✓"),
    "a rollout that is held on purpose": (condition("Progressing", "False", "Pinned"), "✓"),
    "a rollout under way": (condition("Progressing", "True", "RollingOut"), "…"),
    "a rollout that was refused": (condition("Progressing", "False", "CandidateRefused"), "✗"),
}


@pytest.mark.parametrize("kind", [kind for kind in ConditionType if kind not in KSTATUS_CONDITIONS])
def test_each_condition_has_a_line_with_its_type_and_its_reason_apart(kind: ConditionType) -> None:
    text = printed(show_one, build_view(cr(condition(kind, "False", "SomeReason"))), datetime.now(UTC))
    assert f"✗ {kind} " in text
    (line,) = (line for line in text.splitlines() if f"✗ {kind}" in line)
    assert line.split() == ["✗", kind, "SomeReason"]


@pytest.mark.parametrize(("given", "mark"), MARKS.values(), ids=MARKS.keys())
def test_a_cross_means_that_something_is_wrong(given: Json, mark: str) -> None:
    (found,) = build_view(cr(given)).conditions
    assert choose_mark(found)[0] == mark


@pytest.mark.parametrize(
    ("environment", "words"),
    [({"KUBECONFIG": "/no/such"}, "KUBECONFIG names /no/such, which is missing"),
     ({"KUBECONFIG": "/no/a:/no/b"}, "/no/a and /no/b, which are missing"),
     ({}, "KUBECONFIG is not set, and ")],
    ids=["one file", "two files", "no variable"],
)  # fmt: skip
def test_a_kubeconfig_that_is_not_there_is_named(
    environment: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words in find_missing_kubeconfig(None)
    assert "--kubeconfig names /no/c" in find_missing_kubeconfig("/no/c")
    (tmp_path / "there").touch()
    assert find_missing_kubeconfig(str(tmp_path / "there")) == ""


def gating(text: str) -> Json:
    return cr(condition("Ready", "False", "NotServing"), condition("QualityVerified", "Unknown", "GateRunning", text))


class TestChangeTeller:
    def test_the_same_state_is_told_once(self) -> None:
        reporter = ChangeReporter(every_s=20.0)
        assert reporter.format_change(build_view(gating("10 %")), now=0.0)
        assert reporter.format_change(build_view(gating("10 %")), now=100.0) is None

    def test_progress_within_a_reason_is_told_at_most_every_so_often(self) -> None:
        reporter = ChangeReporter(every_s=20.0)
        reporter.format_change(build_view(gating("10 %")), now=0.0)
        assert reporter.format_change(build_view(gating("20 %")), now=5.0) is None
        assert "GateRunning: 30 %" in (reporter.format_change(build_view(gating("30 %")), now=21.0) or "")

    def test_a_change_of_a_condition_is_told_at_once(self) -> None:
        reporter = ChangeReporter(every_s=20.0)
        reporter.format_change(build_view(gating("10 %")), now=0.0)
        assert "serves" in (reporter.format_change(build_view(cr(READY, VERIFIED, **SERVING)), now=0.1) or "")

    def test_a_change_that_shows_in_no_column_and_no_word_is_not_told_again(self) -> None:
        reporter = ChangeReporter(every_s=20.0)
        refused = condition("QualityVerified", "False", "GateFailed", "lost 80")
        reporter.format_change(build_view(cr(READY, refused, **SERVING)), now=0.0)
        under_way = condition("Progressing", "True", "RollingOut")
        assert reporter.format_change(build_view(cr(READY, refused, under_way, **SERVING)), now=99.0) is None

    def test_columns_stay_in_line_under_their_titles_however_long_a_name_is(self) -> None:
        body = cr(READY, VERIFIED, **SERVING)
        body["metadata"]["namespace"] = "a-tenant-of-a-very-long-name"
        views = [build_view(body), build_view(gating("10 %"))]
        widths = compute_widths(views)
        lines = [ChangeReporter(widths=widths).format_change(view, 0.0) or "" for view in views]
        place = format_cells(COLUMNS, widths).index("TIER")
        assert [line[place : place + 5] for line in lines] == ["full ", "full "]

    def test_deployments_are_told_apart(self) -> None:
        reporter = ChangeReporter()
        other = gating("10 %")
        other["metadata"]["name"] = "other"
        reporter.format_change(build_view(gating("10 %")), now=0.0)
        assert reporter.format_change(build_view(other), now=0.0)
