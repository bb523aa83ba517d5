"""`r1plus rollback | pin | unpin | ack`: what is asked for, what is refused, and the incident as it is read out."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from r1plus_cli.deployment.status_text import show_one
from r1plus_cli.deployment.view import build_view
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.rollout.actions import request_action
from r1plus_contract.requests import MOST_WHY, Verb, format_command, read_requests
from support.cli.command import printed
from support.cli.deployments import READY, Json, condition, cr

NOW = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)
SERVING = {"revision": "credit-bbbb", "lastGood": "credit-aaaa", "engine": "q4"}
INCIDENT = {
    "since": "2026-11-24T17:00:00Z",
    "revision": "credit-bbbb",
    "reason": "ControlRunning",
    "before": "204/206",
    "now": "157/206",
    "lost": ["geography: 31 of 70 (g-01, g-02, ...)", "words: 16 of 66 (w-07)"],
    "tried": ["2026-11-24T17:01:00Z revision credit-aaaa began to repeat the suite: accuracy dropped"],
    "next": "Revision credit-aaaa repeats the suite without traffic",
    "runbook": "https://example.com/R1PlusAccuracyBelowThreshold.md",
}


class Cluster:
    """Holds one deployment and takes changes to it."""

    def __init__(self, body: Json) -> None:
        self.body = body
        self.patches: list[Json] = []

    def get_deployment(self, namespace: str, name: str) -> Json:
        return self.body

    def get_username(self) -> str:
        return "alice@example.com"

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        assert (namespace, name) == ("team-credit", "credit")
        self.patches.append(patch)


def serving(*conditions: Json, pinned: bool = False, **status: Any) -> Json:
    body = cr(READY, *conditions, **{**SERVING, **status})
    body["metadata"]["uid"] = "u-1"
    body["spec"]["rollout"] = {"pinned": pinned}
    return body


def asked(body: Json, verb: Verb, reason: str = "a reason") -> tuple[Json, str]:
    cluster = Cluster(body)
    said = request_action(cluster, "team-credit", "credit", verb, reason, NOW)
    (patch,) = cluster.patches
    return patch, said


def shown(body: Json) -> str:
    """The status as it is printed."""
    return printed(show_one, build_view(body), NOW)


@pytest.mark.parametrize(
    ("verb", "body", "pinned", "words"),
    [
        (Verb.ROLLBACK, serving(), None, ["credit-aaaa", "repeats the golden suite", "credit-bbbb is not redeployed"]),
        (Verb.PIN, serving(), True, ["stays at revision credit-bbbb"]),
        (Verb.UNPIN, serving(pinned=True), False, ["may move again"]),
        (Verb.UNPIN, serving(incident={**INCIDENT, "reason": "RolledBack"}), False, ["may move again"]),
        (Verb.ACK, serving(incident=INCIDENT), None, ["repeat the gate"]),
    ],
    ids=["a rollback", "a pin", "an unpin", "an unpin of what was rolled back", "an ack"],
)
def test_what_is_asked_for_says_who_when_why_and_what_follows(
    verb: Verb, body: Json, pinned: bool | None, words: list[str]
) -> None:
    patch, said = asked(body, verb, "  Wrong\n totals ")
    request = read_requests({"uid": "u-1", **patch["metadata"]})[verb]
    assert (request.by, request.why, request.at) == ("alice@example.com", "Wrong totals", "2026-11-24T17:30:00.000000Z")
    assert request.revision == "credit-bbbb"
    assert patch.get("spec") == (None if pinned is None else {"rollout": {"pinned": pinned}})
    for word in (*words, f"{verb} requested", "r1plus status credit -n team-credit"):
        assert word in said


@pytest.mark.parametrize(
    ("verb", "body", "words"),
    [
        (Verb.ROLLBACK, serving(lastGood=""), "no rollback target"),
        (Verb.ROLLBACK, serving(revision=""), "nothing serves yet"),
        (Verb.ROLLBACK, serving(pinned=True), "first run `r1plus unpin credit -n team-credit --reason \"...\"`"),
        (Verb.ROLLBACK, serving(condition("Progressing", "True", "RollingBack", "credit-aaaa is swept")), "a rollback is already running"),
        (Verb.PIN, serving(pinned=True), "already pinned; `r1plus unpin credit -n team-credit --reason"),
        (Verb.PIN, serving(revision=""), "nothing serves yet"),
        (Verb.UNPIN, serving(), "not pinned"),
        (Verb.ACK, serving(), "nothing to acknowledge"),
    ],
    ids=[
        "a rollback to nothing", "a rollback from nothing", "a rollback past a pin", "a second rollback",
        "a second pin", "a pin of nothing", "an unpin of what is not pinned", "an ack of nothing",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(verb: Verb, body: Json, words: str) -> None:
    cluster = Cluster(body)
    with pytest.raises(CliError, match=words):
        request_action(cluster, "team-credit", "credit", verb, "a reason", NOW)
    assert cluster.patches == []


def test_a_refused_rollback_says_what_each_revision_lacks() -> None:
    lacks = [
        "credit-aaaa (f16) carried traffic for only 82 s of the required 10 min",
        "credit-cccc (q8) has not passed the current suite and threshold",
    ]
    with pytest.raises(CliError) as refused:
        request_action(
            Cluster(serving(lastGood="", rollbackBlockers=lacks)), "team-credit", "credit", Verb.ROLLBACK, "why", NOW
        )
    assert "".join(f"\n  {line}" for line in lacks) in str(refused.value)
    assert "10 min" in str(refused.value)
    assert "spec.engine" in str(refused.value)


@pytest.mark.parametrize("reason", ["", " \n", "x" * (MOST_WHY + 1)], ids=["empty", "blank", "a novel"])
def test_a_reason_that_is_none_is_refused(reason: str) -> None:
    with pytest.raises(UsageError, match="--reason"):
        request_action(Cluster(serving()), "team-credit", "credit", Verb.PIN, reason, NOW)


def test_a_reason_of_the_greatest_length_is_taken() -> None:
    assert asked(serving(), Verb.PIN, "x" * MOST_WHY)


def test_the_status_reads_like_an_incident_report() -> None:
    text = shown(serving(incident=INCIDENT, lastRequest="2026-11-24T17:02:00Z ack by alice"))
    told = [
        "Incident since 2026-11-24T17:00:00Z: ControlRunning, revision credit-bbbb",
        "204/206 right at its gate, 157/206 when it was measured",
        "geography: 31 of 70",
        "words: 16 of 66",
        "revision credit-aaaa began to repeat the suite",
        "repeats the suite without traffic",
        "R1PlusAccuracyBelowThreshold.md",
    ]
    places = [text.index(words) for words in told]
    assert places == sorted(places)
    assert "Last good  credit-aaaa" in text
    assert "ack by alice" in text


@pytest.mark.parametrize("line", ["geography: 31 of 70 (g-01, ...)", "geography: 1 of 70 (g-01)"])
def test_a_list_that_is_cut_says_so_and_where_the_rest_is(line: str) -> None:
    text = shown(serving(incident={**INCIDENT, "lost": [line]}))
    assert ("Five ids per stratum" in text) == ("..." in line)
    assert ("kubectl port-forward -n team-credit deploy/credit-bbbb 8080" in text) == ("..." in line)


def test_nobody_is_sent_to_the_monitor_of_a_revision_that_takes_no_traffic_any_more() -> None:
    text = shown(serving(incident={**INCIDENT, "revision": "credit-gone", "lost": ["geography: 31 of 70 (g-01, ...)"]}))
    assert "31 of 70" in text
    assert "kubectl port-forward" not in text


def test_a_deployment_without_an_incident_says_nothing_of_one() -> None:
    assert "Incident" not in shown(serving())


@pytest.mark.parametrize("text", ["{", "[]", '{"by":"a"}', json.dumps({"by": 1, "why": "b", "at": "c"})])
def test_an_annotation_that_is_no_request_is_none(text: str) -> None:
    assert read_requests({"annotations": {Verb.ACK.annotation: text}}) == {}


def test_a_request_without_end_is_clipped() -> None:
    text = json.dumps({"by": "b" * 9000, "why": "w" * 9000, "at": "t" * 9000, "novelty": 1})
    found = read_requests({"annotations": {Verb.PIN.annotation: text}})[Verb.PIN]
    assert max(map(len, (found.by, found.why, found.at))) == MOST_WHY


def test_what_a_tenant_wrote_moves_no_terminal() -> None:
    escape = "\u001b[2J\u001b]0;owned\u0007"
    body = serving(condition("Ready", "False", "NotServing", f"bad {escape}"), lastRequest=f"ack by {escape}")
    body["status"]["incident"] = {**INCIDENT, "lost": [escape], "next": escape}
    text = shown(body)
    assert text.count("owned") == 4
    assert "\u001b]0" not in text
    assert "\u0007" not in text


def test_a_command_in_what_the_operator_says_names_the_deployment() -> None:
    text = f"Change the spec, or {format_command(Verb.ACK)} to let it be gated"
    body = serving(condition("Ready", "True", "Serving"), condition("QualityVerified", "False", "RolledBack", text))
    body["status"]["incident"] = {**INCIDENT, "next": text}
    assert shown(body).count('`r1plus ack credit -n team-credit --reason "..."`') == 3
    assert "NAMESPACE" not in shown(body)


def test_the_status_says_why_requests_are_not_carried_out() -> None:
    body = serving(requestRefused="the rollback: why", refreshRefused="the refresh: why")
    refused = [line.split(maxsplit=1)[1] for line in shown(body).splitlines() if "Refused" in line]
    assert refused == ["the rollback: why", "the refresh: why"]
