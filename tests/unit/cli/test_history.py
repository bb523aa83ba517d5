"""`r1plus history`, `engines` and `evaluations`: the story as it is told, and every way not to be told it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.main import app
from r1plus_cli.registry import DEFAULT, TOKEN_VARIABLE, Registry, RegistryAddress, parse_address
from r1plus_contract.history import (
    AlarmFact,
    DeploymentFact,
    EngineFact,
    Evaluation,
    EvaluationFact,
    Evaluations,
    Histories,
    History,
    ItemResult,
    RecordedEngine,
    RecordedEngines,
    RevisionFact,
    RolloutEvent,
    RolloutFact,
)
from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import Verb
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict, WatchStanding
from r1plus_history import text as history_text
from r1plus_operator.plan.revision.rollback_record import BELOW_THRESHOLD, USER_REQUEST
from r1plus_operator.plan.status.incident import ROLLED_BACK
from r1plus_policies.rollback.response import RollbackReason
from support.cli.command import printed

GOOD, BAD = "credit-aaaaaaaaaa", "credit-bbbbbbbbbb"
PASSED = GateReport(Verdict.PASS, "Passed", "3 of 206 lost", "1" * 64, "smollm2-full-v1", "5" * 64, "1", 0.98, 206, 3, 4, decided_at="2026-11-25T12:00:40Z", batch=8)  # fmt: skip
FAILED = replace(
    PASSED,
    verdict=Verdict.FAIL,
    reason="TooManyLost",
    message="23 of 206 items lost, 4 allowed",
    lost=23,
    strata=(StratumFigures("capitals", 70, 20, 2), StratumFigures("sums", 66, 3, 2), StratumFigures("words", 70, 0, 2)),
    decided_at="2026-11-25T12:05:00Z",
)
HISTORY = History(
    DeploymentFact("u-1", "team-credit", "credit"),
    False,
    tuple(RevisionFact("u-1", name, n, engine, "d" * 64, 8, 1024, "1" * 64) for n, (name, engine) in enumerate(((GOOD, "smollm2-full-f16"), (BAD, "smollm2-full-q4-1")), 1)),
    (EvaluationFact("u-1", GOOD, PASSED), EvaluationFact("u-1", BAD, FAILED)),
    (RolloutFact("u-1", GOOD, RolloutEvent.PROMOTED, 1795608060.0), RolloutFact("u-1", BAD, RolloutEvent.CANDIDATE, 1795608240.0)),
    (AlarmFact("u-1", BAD, "deployment", "BelowThreshold", "2026-11-25T13:00:00Z", "203/206", "160/206", ("c-1", "c-2")),),
)  # fmt: skip


def test_the_story_of_a_refused_revision_is_told_with_its_figures() -> None:
    text = printed(history_text.show_histories, [HISTORY], width=400)
    lines = text.splitlines()
    assert lines[0].startswith("team-credit/credit")
    table = [line.split() for line in lines[1:4]]
    assert table[1][:3] == [GOOD, "1", "smollm2-full-f16"]
    assert table[2] == [BAD, "2", "smollm2-full-q4-1", "8", "1024", "Fail", "183/206"]
    told = lines[5:]
    assert [line.split()[1] for line in told] == [GOOD, GOOD, BAD, BAD, BAD]
    assert "took traffic with engine smollm2-full-f16" in told[1]
    assert "candidate with engine smollm2-full-q4-1" in told[2]
    gate = told[3]
    for words in ("gate Fail: 183/206 right at batch 8 on smollm2-full-v1", "at most 4 lost for 0.98", "lost: capitals 20 of 70, sums 3 of 66", "TooManyLost: 23 of 206"):  # fmt: skip
        assert words in gate
    assert "words 0" not in gate
    assert "accuracy is below the threshold: 203/206 right at its gate, now 160/206; lost c-1, c-2" in told[4]


def test_a_way_back_is_told_step_by_step() -> None:
    steps = (RolloutEvent.CONTROL_BEGAN, RolloutEvent.CONTROL_PASSED, RolloutEvent.ROLLED_BACK)
    rollouts = tuple(RolloutFact("u-1", BAD, event, 1795608240.0 + n, GOOD, "BelowThreshold", "why") for n, event in enumerate(steps))  # fmt: skip
    told = [
        text
        for _, _, text, _ in history_text.list_events(replace(HISTORY, rollouts=rollouts, evaluations=(), alarms=()))
    ]
    assert told == [
        f"a rollback to {GOOD} began, because accuracy is below the threshold: why",
        f"{GOOD} passed the suite again: why",
        f"traffic went back to {GOOD}, because accuracy is below the threshold: why",
    ]


def test_a_rollback_that_somebody_asked_for_says_so() -> None:
    step = RolloutFact("u-1", BAD, RolloutEvent.ROLLED_BACK, 0.0, GOOD, "Requested", "alice: wrong totals")
    (told,) = history_text.list_events(replace(HISTORY, rollouts=(step,), evaluations=(), alarms=()))
    assert told[2] == f"traffic went back to {GOOD}, because a user requested it: alice: wrong totals"


def test_traffic_that_waited_for_no_pass_says_why() -> None:
    step = RolloutFact("u-1", BAD, RolloutEvent.PROMOTED, 0.0, cause="Observe")
    (told,) = history_text.list_events(replace(HISTORY, rollouts=(step,), evaluations=(), alarms=()))
    assert told[2] == "took traffic with engine smollm2-full-q4-1, because gate: Observe does not wait for a Pass"


@pytest.mark.parametrize("verb", Verb)
def test_what_somebody_asked_for_says_what_who_and_why(verb: Verb) -> None:
    step = RolloutFact("u-1", BAD, RolloutEvent.REQUESTED, 0.0, cause=verb.value, text="alice: quarter-end")
    (told,) = history_text.list_events(replace(HISTORY, rollouts=(step,), evaluations=(), alarms=()))
    what = {Verb.PIN: "pinned", Verb.UNPIN: "unpinned", Verb.PAUSE: "paused", Verb.RESUME: "resumed"}.get(verb, "")
    assert told[2].startswith(what)
    assert told[2].endswith("by alice: quarter-end")


def test_every_reason_of_an_alarm_has_plain_words() -> None:
    quiet = {RollbackReason.STEADY, RollbackReason.CONFIRMING, WatchStanding.STEADY, WatchStanding.CONFIRMING}
    assert {
        reason.value for reason in (*RollbackReason, *WatchStanding) if reason not in quiet
    } <= history_text.REASONS.keys()
    assert {USER_REQUEST, BELOW_THRESHOLD, ROLLED_BACK} <= history_text.REASONS.keys()


def test_a_control_is_told_when_it_was_decided_and_a_fall_once_with_each_reason_that_it_had() -> None:
    began = RolloutFact("u-1", BAD, RolloutEvent.CONTROL_PASSED, 1795608240.125, GOOD, "BelowThreshold", "0 lost")
    report = replace(PASSED, control=f"{GOOD}@1795608240.125", decided_at="2026-11-25T12:09:00Z")
    alarm = HISTORY.alarms[0]
    alarms = (
        alarm,
        replace(alarm, reason="RolledBack"),
        replace(alarm, reason="Changed", since="2026-11-25T14:00:00Z"),
    )
    one = replace(HISTORY, rollouts=(began,), evaluations=(EvaluationFact("u-1", GOOD, report),), alarms=alarms)
    told = history_text.list_events(one)
    assert [at for at, *_ in told] == ["2026-11-25T12:09:00Z"] * 2 + ["2026-11-25T13:00:00Z", "2026-11-25T14:00:00Z"]
    assert told[1][2].startswith("gate before the rollback Pass")
    assert told[2][2].startswith("accuracy is below the threshold, then traffic was rolled back: 203/206")
    unknown = history_text.list_events(replace(one, evaluations=()))
    assert (
        unknown[0][0]
        == history_text.list_events(
            replace(one, rollouts=(replace(began, event=RolloutEvent.CONTROL_BEGAN),), evaluations=())
        )[0][0]
    )


def test_every_event_has_words() -> None:
    for event in RolloutEvent:
        one = replace(HISTORY, rollouts=(RolloutFact("u-1", BAD, event, 0.0, GOOD),), evaluations=(), alarms=())
        assert history_text.list_events(one)[0][2]


def test_what_a_pod_said_moves_no_terminal() -> None:
    report = replace(FAILED, message="\x1b[2Jgone\r\nnew line")
    one = replace(HISTORY, evaluations=(EvaluationFact("u-1", BAD, report),))
    text = printed(history_text.show_histories, [one], width=400)
    assert "\x1b" not in text
    assert "gone  new line" in text


@pytest.mark.parametrize("where", ["a gate's time", "an alarm's time", "the time of a control"])
def test_a_time_that_a_monitor_reports_moves_no_terminal(where: str) -> None:
    forged = "\x1b]0;owned\x07\x1b[2J"
    gate = replace(FAILED, decided_at=forged if where != "an alarm's time" else "", control=f"{GOOD}@1.000")
    alarm = replace(HISTORY.alarms[0], since=forged)
    step = RolloutFact("u-1", BAD, RolloutEvent.CONTROL_FAILED, 1.0, GOOD)
    one = replace(
        HISTORY,
        evaluations=(EvaluationFact("u-1", BAD, gate),),
        alarms=(alarm,) if where == "an alarm's time" else (),
        rollouts=(step,) if where == "the time of a control" else (),
    )
    text = printed(history_text.show_histories, [one], width=400)
    assert "owned" in text
    assert "\x1b" not in text


def test_evaluations_are_told_in_lines_and_with_what_was_lost_where_that_was_asked_for() -> None:
    items = (ItemResult("c-1", "capitals", False), ItemResult("c-2", "capitals", True), ItemResult("s-1", "sums", None))
    found = Evaluation("team-credit", "credit", BAD, "smollm2-full-q4-1", FAILED, items)
    lines = printed(history_text.show_evaluations, [found], width=400).splitlines()
    assert lines[1].split()[:6] == ["2026-11-25T12:05:00Z", "team-credit/credit", BAD, "smollm2-full-q4-1", "Fail", "183/206"]  # fmt: skip
    assert lines[2:] == ["  capitals: 1 right, 1 lost: c-1", "  sums: 0 right, 1 unknown, 0 lost"]


def test_engines_are_told_with_on_whose_word_and_how_they_fared() -> None:
    engine = EngineFact("q4", "e" * 64, "smollm2", "full", "1.0.0", "Q4_1", "openvino", "i", "d" * 64, "s", "f16")
    own = replace(engine, name="f16", inherited_from="")
    shape = replace(own, name="r1", claimed_by="the model card")
    rows = [
        RecordedEngine(engine, "2026-11-25T12:00:00Z", 3, 1),
        *(RecordedEngine(e, "2026-11-25T12:00:00Z") for e in (own, shape)),
    ]
    lines = printed(history_text.show_engines, rows, width=400).splitlines()
    assert "of f16" in lines[1]
    assert "1 of 3" in lines[1]
    assert "measured" in lines[2]
    assert "claimed by the model card" in lines[3]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (DEFAULT, RegistryAddress(namespace="r1plus-system", name="r1plus-registry")),
        ("https://registry.example.com/r1/", RegistryAddress(url="https://registry.example.com/r1")),
    ],
    ids=["a StatefulSet", "a URL"],
)
def test_places(text: str, place: RegistryAddress) -> None:
    assert parse_address(text) == place


@pytest.mark.parametrize("text", ["registry", "A/b", "a/b/c", "ftp://x", "http://", ""])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is neither NAMESPACE/NAME"):
        parse_address(text)


@dataclass
class Answers:
    """A registry that answers what it is told to."""

    status: int = 200
    body: str = dumps(Histories((HISTORY,)))
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def answers() -> Iterator[Answers]:
    state = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.body.encode())))
            self.end_headers()
            self.wfile.write(state.body.encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Cluster:
    """A way to the registry's pod, as a cluster gives it or not."""

    port: int
    error: str = ""
    may_make_in: tuple[str, ...] = ("r1plus-system", "team-credit")
    tunnels: list[tuple[str, str, int]] = field(default_factory=list)

    def get_default_namespace(self) -> str:
        return "team-credit"

    def create_token(self, namespace: str, account: str, audience: str) -> str:
        if namespace not in self.may_make_in:
            raise CliError(f"Could not make a token of {namespace}/{account}: 403")
        return f"{namespace}/{account}/{audience}"

    def open_tunnel(self, namespace: str, pod: str, port: int) -> Any:
        self.tunnels.append((namespace, pod, port))
        if self.error:
            raise OSError(self.error)
        return socket.create_connection(("127.0.0.1", self.port))


def registry(cluster: Cluster, place: str = DEFAULT, **env: str) -> Registry:
    return Registry(parse_address(place), lambda: cluster, env)


PLATFORM = "Bearer r1plus-system/r1plus-registry-reader/r1plus-registry"
OWN = "Bearer team-credit/r1plus-registry-reader/r1plus-registry"


def test_it_is_asked_through_a_tunnel_to_its_pod_with_a_token_that_is_worth_nothing_elsewhere(answers: Answers) -> None:
    cluster = Cluster(answers.port)
    assert registry(cluster).read_histories("team-credit", "credit").items == (HISTORY,)
    assert cluster.tunnels == [("r1plus-system", "r1plus-registry-0", 8080)]
    assert answers.asked == [("/v1/namespaces/team-credit/deployments/credit", PLATFORM)]


TOKENS = {
    "the platform team takes the account that reads everything": (DEFAULT, ("r1plus-system", "team-credit"), PLATFORM),
    "a tenant's people take the one of their namespace": (DEFAULT, ("team-credit",), OWN),
    "so does everybody at a URL, which may be anybody's": ("http://127.0.0.1:{port}", ("r1plus-system", "team-credit"), OWN),
}  # fmt: skip


@pytest.mark.parametrize(("place", "may_make_in", "shown"), TOKENS.values(), ids=TOKENS)
def test_the_token_is_of_the_audience_of_the_registry_and_of_an_account_for_it(
    answers: Answers, place: str, may_make_in: tuple[str, ...], shown: str
) -> None:
    asking = registry(Cluster(answers.port, may_make_in=may_make_in), place.format(port=answers.port))
    asking.read_histories("team-credit", "credit")
    answers.body = dumps(Evaluations(()))
    asking.read_evaluations("team-credit", None, items=False)
    answers.body = dumps(RecordedEngines(()))
    asking.read_engines()
    asking.read_engines("team-credit")
    assert [bearer for _, bearer in answers.asked] == [shown] * 4


def test_a_given_token_comes_first_and_at_a_url_no_cluster_is_asked(answers: Answers) -> None:
    cluster = Cluster(answers.port)
    url = f"http://127.0.0.1:{answers.port}"
    registry(cluster, url, **{TOKEN_VARIABLE: "given"}).read_histories("team-credit", "a b/c")
    assert answers.asked == [("/v1/namespaces/team-credit/deployments/a%20b%2Fc", "Bearer given")]
    assert not cluster.tunnels


@pytest.mark.parametrize(
    "url",
    [
        "http://registry.example.com",
        "http://10.96.0.7:8080",
        "http://127.0.0.1@example.com",
        "http://localhost.example.com",
    ],
)
def test_no_token_is_sent_to_anybody_in_the_clear(url: str) -> None:
    with pytest.raises(CliError, match=r"No token is sent over plain HTTP to .*: use https, or NAMESPACE/NAME"):
        registry(Cluster(0), url).read_engines()


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080/registry", "https://registry.example.com"],
)
def test_a_forwarded_port_and_https_are_not_in_the_clear(url: str) -> None:
    assert not parse_address(url).is_plaintext


def test_a_forwarded_port_is_asked_past_a_proxy_that_the_environment_names(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    answers.body = dumps(RecordedEngines(()))
    assert registry(Cluster(0), f"http://127.0.0.1:{answers.port}").read_engines() == RecordedEngines(())


def test_the_questions_say_whose_evaluations_and_whether_items(answers: Answers) -> None:
    answers.body = dumps(Evaluations(()))
    asking = registry(Cluster(answers.port))
    asking.read_evaluations("team-credit", "credit", items=True)
    asking.read_evaluations(None, None, items=False)
    answers.body = dumps(RecordedEngines(()))
    asking.read_engines()
    paths = [path for path, _ in answers.asked]
    assert paths == ["/v1/evaluations?namespace=team-credit&name=credit&items=1", "/v1/evaluations", "/v1/engines"]


TROUBLES = {
    "no right to the pod": ({"error": "Handshake status 403 Forbidden"}, "bind Role r1plus-registry-client to you"),
    "no registry": ({"error": "Handshake status 404 Not Found"}, "registry.enabled is true"),
    "a tunnel that fails": ({"error": "connection reset"}, "does not answer in pod r1plus-system/r1plus-registry-0: connection reset"),
    "no right to make a token": ({"may_make_in": ()}, "kubectl -n NAMESPACE create token r1plus-registry-reader --audience r1plus-registry"),
}  # fmt: skip


@pytest.mark.parametrize(("cluster", "said"), TROUBLES.values(), ids=TROUBLES)
def test_every_way_not_to_get_there_says_what_to_do(answers: Answers, cluster: dict[str, Any], said: str) -> None:
    with pytest.raises(CliError) as refused:
        registry(Cluster(answers.port, **cluster)).read_engines()
    assert said in str(refused.value)


REFUSALS = {
    "somebody unknown": (401, dumps({"error": "not known"}), "(401): not known (check R1PLUS_REGISTRY_TOKEN"),
    "no right": (403, dumps({"error": "may not get"}), "(403): may not get; ask the platform team"),
    "no database": (503, dumps({"error": "connection refused"}), "(503): connection refused; it works again"),
    "a proxy's page": (502, "<html>bad gateway</html>", "(502): <html>bad gateway"),
    "another service": (200, "<html>hello</html>", "The registry's answer cannot be read: Histories: not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body", "said"), REFUSALS.values(), ids=REFUSALS)
def test_every_refusal_is_told_in_the_registrys_words(answers: Answers, status: int, body: str, said: str) -> None:
    answers.status, answers.body = status, body
    with pytest.raises(CliError) as refused:
        registry(Cluster(answers.port)).read_histories("team-credit", "credit")
    assert said in str(refused.value)


def test_a_registry_that_is_newer_is_read_as_far_as_it_is_known(answers: Answers) -> None:
    answers.body = dumps(Histories((HISTORY,))).replace('"ended"', '"weather":"fine","ended"', 1)
    assert registry(Cluster(answers.port)).read_histories("team-credit", "credit").items == (HISTORY,)


@contextmanager
def asked(answers: Answers, *words: str) -> Iterator[Any]:
    url = f"http://127.0.0.1:{answers.port}"
    yield CliRunner().invoke(app, [*words, "--registry", url], env={TOKEN_VARIABLE: "given"}, catch_exceptions=False)


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)], ids=["json", "yaml"])
def test_for_programs_the_answer_is_printed_as_it_came(answers: Answers, output: str, read: Any) -> None:
    with asked(answers, "history", "credit", "-n", "team-credit", "-o", output) as done:
        assert read(done.stdout) == json.loads(answers.body)


def test_the_verbs_are_there(answers: Answers) -> None:
    with asked(answers, "history", "credit", "-n", "team-credit") as done:
        assert "gate Fail: 183/206" in done.stdout
    answers.body = dumps(Evaluations((Evaluation("team-credit", "credit", BAD, "q4", FAILED),)))
    with asked(answers, "evaluations", "-A") as done:
        assert "183/206" in done.stdout
    answers.body = dumps(RecordedEngines(()))
    with asked(answers, "engines") as done:
        assert done.stdout.startswith("ENGINE")


def test_nothing_recorded_is_an_error_that_says_so(answers: Answers) -> None:
    answers.body = dumps(Histories(()))
    with pytest.raises(CliError, match="team-credit/credit: nothing is recorded"), asked(answers, "history", "credit", "-n", "team-credit"):  # fmt: skip
        pass


def test_a_name_and_all_namespaces_do_not_go_together(answers: Answers) -> None:
    with pytest.raises(UsageError, match="A name needs one namespace"), asked(answers, "evaluations", "credit", "-A"):
        pass
