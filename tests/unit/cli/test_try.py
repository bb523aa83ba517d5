"""`r1plus try`: what it makes, breaks and removes, and what it leaves alone. The time is a test's own."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from r1plus_cli.errors import CliError, NotFoundError, UnavailableError
from r1plus_cli.promotion.wait import WaitClock
from r1plus_cli.tenant.key_halves import SecretData
from r1plus_cli.trial import try_command as command
from r1plus_cli.trial.lost_items import find_refusal
from r1plus_cli.trial.manifests import OWNER, OWNER_LABEL
from r1plus_cli.trial.trial import POLL_SECONDS, QUESTION, Trial
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.settings import KnownVerdicts
from r1plus_contract.verdict import GateReport, Verdict
from support.cli.command import run
from support.cli.deployments import READY, VERIFIED, Json, condition, cr
from support.tables import for_each

SPACE = "r1plus-try"
NAMESPACES = "/api/v1/namespaces"
GROUP = f"/apis/r1plus.ai/v1alpha1/namespaces/{SPACE}"
REVISIONS = f"/apis/apps/v1/namespaces/{SPACE}/controllerrevisions"
SERVING: dict[str, Any] = {"revision": "hello-a", "accuracy": "211/211", "verdict": "Pass", "readyReplicas": 1}
PROMOTED = cr(READY, VERIFIED, condition("Progressing", "False", "Complete", "hello-a takes traffic"), **SERVING)
REFUSED = cr(
    READY,
    condition("Progressing", "False", "CandidateRefused"),
    condition("Stalled", "True", "CandidateRefused", "TooManyLost: lost 80 of 211 items"),
    **SERVING,
)
LOST = ("addition-17-9", "addition-2-4", "capital-egypt", "unknown-item")


def build_revision(name: str, number: int, verdict: Verdict, lost: tuple[str, ...] = ()) -> Json:
    """A ControllerRevision of the deployment, as the operator stores it."""
    report = GateReport(verdict, "R", "m", "i", "smollm2-full-v1", "h", "1", 0.98, 211, len(lost), 4, lost_items=lost)
    return {
        "metadata": {
            "name": name,
            "annotations": {"r1plus.ai/verdict": dumps(KnownVerdicts((report,)))},
            "ownerReferences": [{"name": "hello"}],
        },
        "revision": number,
    }


@dataclass
class TrialApi:
    """Objects by path, as the API server has them."""

    objects: dict[str, Any] = field(default_factory=dict)
    failures: list[CliError] = field(default_factory=list)
    """What the next creations are answered with."""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def request(self, method: str, path: str, body: Json | None = None, **_: str) -> Json:
        self.requests.append((method, path))
        if method == "POST":
            assert body is not None
            if self.failures:
                raise self.failures.pop(0)
            self.objects[f"{path}/{body['metadata']['name']}"] = body
            return body
        if path not in self.objects:
            raise NotFoundError(path)
        return dict(self.objects.pop(path) if method == "DELETE" else self.objects[path])

    def list_items(self, path: str, **_: str) -> Iterator[Json]:
        yield from self.objects.get(path, ())


class GatewayHandler(BaseHTTPRequestHandler):
    """The three calls that a trial makes of a gateway."""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "hello"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/admin/keys":
            assert body["models"] == ["hello"] and body["expires_in_seconds"] > 0
            self._answer({"key": "r1p_id_secret"})
        else:
            assert (self.path, self.headers["authorization"]) == ("/v1/chat/completions", "Bearer r1p_id_secret")
            self._answer({"choices": [{"message": {"content": " Stockholm. "}}]})

    def _answer(self, document: Json) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class TrialCluster:
    """A cluster in memory. `body` is the deployment as the next watch shows it."""

    address: str
    api: TrialApi = field(default_factory=TrialApi)
    body: Json = field(default_factory=lambda: PROMOTED)
    patches: list[Json] = field(default_factory=list)
    secrets: dict[str, SecretData] = field(default_factory=dict)
    is_ready: bool | None = True
    now: float = 0.0
    on_sleep: Callable[["TrialCluster"], None] = lambda _: None

    def open_raw_api(self) -> TrialApi:
        return self.api

    def is_operator_ready(self) -> bool | None:
        return self.is_ready

    def get_default_namespace(self) -> str:
        return "default"

    def get_namespace_uid(self, namespace: str) -> str:
        return f"uid-of-{namespace}"

    def read_secret(self, namespace: str, name: str) -> SecretData | None:
        return self.secrets.get(name)

    def write_secret(self, namespace: str, name: str, values: Mapping[str, bytes], version: str | None) -> None:
        self.secrets[name] = SecretData(values, "1")

    def watch_deployment(self, namespace: str, name: str, seconds: float) -> Iterator[Json | None]:
        yield self.body

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        self.patches.append(patch)

    def create_token(self, namespace: str, account: str, audience: str) -> str:
        return "token"

    def explain_gateway(self, namespace: str) -> str:
        return "DataLocked: no half is here"

    @contextlib.contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Iterator[str]:
        yield self.address

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep(self)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), GatewayHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def make_gateway_ready(cluster: TrialCluster) -> None:
    tenant = cluster.api.objects.get(f"{GROUP}/r1plustenants/tenant")
    if tenant is not None:
        tenant["status"] = {"conditions": [{"type": "GatewayReady", "status": "True"}]}


@pytest.fixture
def cluster(address: str) -> TrialCluster:
    return TrialCluster(address, on_sleep=make_gateway_ready)


@pytest.fixture
def trial(cluster: TrialCluster) -> Trial:
    return Trial(cluster, SPACE, 60.0, lambda _: None, WaitClock(lambda: cluster.now, cluster.sleep))


@pytest.fixture
def called(cluster: TrialCluster, monkeypatch: pytest.MonkeyPatch) -> TrialCluster:
    """The cluster that the command connects to."""
    monkeypatch.setattr(command, "connect", lambda _: cluster)
    clock = WaitClock(lambda: cluster.now, cluster.sleep)
    monkeypatch.setattr(command, "Trial", partial(Trial, clock=clock))
    return cluster


def test_a_first_try_makes_all_and_prints_answer_key_and_curl(called: TrialCluster, tmp_path: Path) -> None:
    result = run("try", "--export", tmp_path / "key.json")
    assert result.exit_code == 0, (result.output, result.exception)
    made = [path for method, path in called.api.requests if method == "POST"]
    assert made == [NAMESPACES, f"{GROUP}/r1plustenants", f"{GROUP}/r1plusdeployments"]
    labels = called.api.objects[f"{NAMESPACES}/{SPACE}"]["metadata"]["labels"]
    assert (labels["r1plus.ai/tenant"], labels["pod-security.kubernetes.io/enforce"]) == ("true", "restricted")
    assert (tmp_path / "key.json").stat().st_mode & 0o777 == 0o600
    for text in (
        f"Question  {QUESTION}",
        "Answer    Stockholm.",
        "Bearer r1p_id_secret",
        "http://gateway.r1plus-try.svc/v1",
    ):
        assert text in result.stdout


def test_a_second_try_makes_nothing_again_and_goes_back_to_the_good_engine(
    trial: Trial, cluster: TrialCluster, tmp_path: Path
) -> None:
    trial.start(tmp_path / "key.json")
    cluster.api.requests.clear()
    trial.start(tmp_path / "key.json")
    assert [path for method, path in cluster.api.requests if method == "POST"] == []
    assert cluster.patches == [{"spec": {"engine": None}}]


@for_each("prepare, message", {
    "the operator is not there": (lambda c: setattr(c, "is_ready", False), "install the chart first"),
    "the namespace is somebody else's": (
        lambda c: c.api.objects.update({f"{NAMESPACES}/{SPACE}": {"metadata": {"name": SPACE, "labels": {"team": "a"}}}}),
        f"was not made by r1plus try.*label {OWNER_LABEL} is not {OWNER}",
    ),
    "the engine is refused at once": (lambda c: setattr(c, "body", REFUSED), "Refused: CandidateRefused .*r1plus status hello"),
    "the gateway does not become ready": (lambda c: setattr(c, "on_sleep", lambda _: None), "Not within 60 s: the gateway is ready .DataLocked"),
})  # fmt: skip
def test_what_stands_in_the_way_is_named_with_what_to_do(
    trial: Trial, cluster: TrialCluster, tmp_path: Path, prepare: Callable[[TrialCluster], None], message: str
) -> None:
    prepare(cluster)
    with pytest.raises(CliError, match=message):
        trial.start(tmp_path / "key.json")


def test_a_quota_that_is_not_counted_yet_is_waited_for(trial: Trial, cluster: TrialCluster, tmp_path: Path) -> None:
    trial._make_namespace()
    cluster.api.failures = [
        CliError("403: status unknown for quota: r1plus"),
        CliError("403: status unknown for quota: r1plus"),
    ]
    trial.start(tmp_path / "key.json")
    assert cluster.now >= 2 * POLL_SECONDS


def test_an_api_server_that_does_not_answer_is_waited_for_and_told(cluster: TrialCluster) -> None:
    told: list[str] = []
    trial = Trial(cluster, SPACE, 60.0, told.append, WaitClock(lambda: cluster.now, cluster.sleep))
    answers = iter([UnavailableError("GET /x: the API server does not answer"), False, True])

    def look() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    trial._wait_until("it is there", look)
    assert told == ["GET /x: the API server does not answer; trying again", "waiting until it is there"]


def test_a_break_shows_the_figures_lost_items_and_that_the_good_one_answers(
    called: TrialCluster, tmp_path: Path
) -> None:
    run("try", "--export", tmp_path / "key.json")
    called.body = REFUSED
    called.api.objects[REVISIONS] = [
        build_revision("hello-a", 1, Verdict.PASS),
        build_revision("hello-b", 2, Verdict.FAIL, LOST),
    ]
    result = run("try", "--break")
    assert result.exit_code == 0, (result.output, result.exception)
    assert called.patches == [{"spec": {"engine": {"precision": "Q4_1"}}}]
    assert "hello-b lost 4 of 211 items, such as:" in result.stdout
    assert "addition-2-4: What is 2+4?  (right: 6)" in result.stdout
    assert "capital-egypt: What is the capital of Egypt?  (right: Cairo)" in result.stdout
    assert "Stockholm." in result.stdout


def test_a_break_that_passes_is_an_error(trial: Trial, cluster: TrialCluster, tmp_path: Path) -> None:
    trial.start(tmp_path / "key.json")
    with pytest.raises(CliError, match="Q4_1 was not refused, but Promoted"):
        trial.spoil()


def test_the_newest_refusal_counts_and_a_damaged_revision_is_passed_over() -> None:
    revisions = [
        build_revision("old", 1, Verdict.FAIL, LOST[:1]),
        build_revision("new", 3, Verdict.FAIL, LOST),
        {"metadata": {"name": "x"}, "revision": 9},
    ]
    refusal = find_refusal(revisions, most=3)
    assert refusal is not None
    assert (refusal.revision, refusal.lost, len(refusal.examples)) == ("new", 4, 3)
    assert find_refusal([build_revision("a", 1, Verdict.PASS)], most=3) is None


def test_remove_deletes_the_namespace_and_the_export_of_it(trial: Trial, cluster: TrialCluster, tmp_path: Path) -> None:
    export = tmp_path / "key.json"
    trial.start(export)
    assert trial.remove(export)
    assert ("DELETE", f"{NAMESPACES}/{SPACE}") in cluster.api.requests
    assert not export.exists()
    assert not trial.remove(export)


def test_remove_leaves_the_export_of_another_tenant(trial: Trial, cluster: TrialCluster, tmp_path: Path) -> None:
    trial.start(tmp_path / "key.json")
    other = tmp_path / "other.json"
    other.write_text((tmp_path / "key.json").read_text().replace(f"uid-of-{SPACE}", "uid-of-other"))
    trial.remove(other)
    assert other.exists()


def test_remove_refuses_a_namespace_that_it_did_not_make(trial: Trial, cluster: TrialCluster, tmp_path: Path) -> None:
    cluster.api.objects[f"{NAMESPACES}/{SPACE}"] = {"metadata": {"name": SPACE}}
    with pytest.raises(CliError, match="nothing was changed"):
        trial.remove(tmp_path / "key.json")
    assert f"{NAMESPACES}/{SPACE}" in cluster.api.objects


def test_break_and_remove_at_once_are_refused() -> None:
    assert run("try", "--break", "--remove").exit_code != 0
