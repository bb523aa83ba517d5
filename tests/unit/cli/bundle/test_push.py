"""A push leaves a whole release on the registry, goes on after a failure, and sends a login nowhere else."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from r1plus_cli.bundle.credentials import Login, find_login
from r1plus_cli.bundle.push import PushResult, push_release
from r1plus_cli.bundle.push_target import PushTarget, build_install_line, parse_target
from r1plus_cli.bundle.registry import TRIES, OciRegistry
from r1plus_cli.bundle.verification import open_release
from r1plus_cli.errors import CliError, UsageError
from support.cli.release_bundle import Bundle, write_release

HOST = "registry.bank.example"
TARGET = PushTarget(HOST, "ai/r1plus")
LOGIN = Login("robot", "s3cret")


@dataclass
class FakeRegistry:
    """A registry in memory, for the faults that a real one does not produce when asked."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    lists_referrers: bool = True
    challenge: str = ""
    """Value of WWW-Authenticate for requests without authorization; empty: open."""
    upload_host: str = HOST
    """Host that takes the bytes of blobs."""
    answers: list[httpx.Response | httpx.TransportError] = field(default_factory=list)
    """What the next requests get in place of an answer of the registry."""

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, httpx.TransportError):
                raise answer
            return answer
        if request.url.path == "/token":
            return httpx.Response(200, json={"token": "t0ken"})
        if self.challenge and request.url.host == HOST and "Authorization" not in request.headers:
            return httpx.Response(401, headers={"WWW-Authenticate": self.challenge})
        repository, _, rest = request.url.path.removeprefix("/v2/").rpartition("/manifests/")
        if repository:
            return self._handle_manifest(request, repository, rest)
        repository, _, rest = request.url.path.removeprefix("/v2/").partition("/blobs/")
        return self._handle_blob(request, repository, rest)

    def _handle_manifest(self, request: httpx.Request, repository: str, reference: str) -> httpx.Response:
        if request.method == "PUT":
            data = request.read()
            for name in (reference, f"sha256:{hashlib.sha256(data).hexdigest()}"):
                self.manifests[repository, name] = data
            subject = json.loads(data).get("subject")
            is_listed = self.lists_referrers and subject is not None
            return httpx.Response(201, headers={"OCI-Subject": subject["digest"]} if is_listed else {})
        data = self.manifests.get((repository, reference))
        if data is None:
            return httpx.Response(404)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return httpx.Response(200, headers={"Docker-Content-Digest": digest}, content=data)

    def _handle_blob(self, request: httpx.Request, repository: str, rest: str) -> httpx.Response:
        parameters = request.url.params
        if request.method == "HEAD":
            return httpx.Response(200 if (repository, rest) in self.blobs else 404)
        if request.method == "POST":
            if (source := parameters.get("from")) and (
                data := self.blobs.get((source, parameters["mount"]))
            ) is not None:
                self.blobs[repository, parameters["mount"]] = data
                return httpx.Response(201)
            location = f"https://{self.upload_host}/v2/{repository}/blobs/uploads/1?state=x"
            return httpx.Response(202, headers={"Location": location})
        data = request.read()
        if parameters["digest"] != f"sha256:{hashlib.sha256(data).hexdigest()}" or parameters["state"] != "x":
            return httpx.Response(400, json={"errors": [{"code": "DIGEST_INVALID"}]})
        self.blobs[repository, parameters["digest"]] = data
        return httpx.Response(201)


def push(bundle: Bundle, fake: FakeRegistry, *, login: Login | None = None, may_move_tags: bool = False) -> PushResult:
    with open_release(bundle.path, bundle.keys) as release, connect(fake, login) as registry:
        return push_release(release, registry, TARGET, may_move_tags=may_move_tags, report=lambda _: None)


@contextmanager
def connect(fake: FakeRegistry, login: Login | None) -> Iterator[OciRegistry]:
    transport = httpx.MockTransport(fake.handle)
    with OciRegistry(HOST, login, transport=transport, pause=lambda _: None) as registry:
        yield registry


def test_everything_arrives_and_the_locks_tag_is_the_last_request(bundle: Bundle) -> None:
    fake = FakeRegistry()
    result = push(bundle, fake)
    assert {(repository, tag) for repository, tag in fake.manifests if not tag.startswith("sha256")} == {
        ("ai/r1plus/r1plus-operator", "0.1.0"),
        ("ai/r1plus/charts/r1plus-operator", "0.1.0"),
        ("ai/r1plus/r1plus-release", "0.1.0"),
    }
    assert fake.requests[-1].url.path == "/v2/ai/r1plus/r1plus-release/manifests/0.1.0"
    assert result.sent_bytes > 0


def test_a_second_push_sends_no_blob(bundle: Bundle) -> None:
    fake = FakeRegistry()
    first = push(bundle, fake)
    assert push(bundle, fake) == PushResult(0, first.sent_bytes + first.present_bytes)


@pytest.mark.parametrize("served", range(1, 40, 3))
def test_a_push_that_is_cut_names_no_release_and_the_next_one_completes_it(bundle: Bundle, served: int) -> None:
    fake = FakeRegistry()

    def handle(request: httpx.Request) -> httpx.Response:
        if len(fake.requests) >= served:
            raise httpx.ConnectError("cut")
        return fake.handle(request)

    transport = httpx.MockTransport(handle)
    with open_release(bundle.path, bundle.keys) as release:
        registry = OciRegistry(HOST, None, transport=transport, pause=lambda _: None)
        with registry, pytest.raises(CliError, match="it goes on from here"):
            push_release(release, registry, TARGET, may_move_tags=False, report=lambda _: None)
    assert ("ai/r1plus/r1plus-release", "0.1.0") not in fake.manifests
    push(bundle, fake)
    assert ("ai/r1plus/r1plus-release", "0.1.0") in fake.manifests


def test_a_registry_without_referrers_gets_a_tag_that_lists_them_once(bundle: Bundle) -> None:
    fake = FakeRegistry(lists_referrers=False)
    push(bundle, fake)
    push(bundle, fake)
    lists = {name: json.loads(data) for name, data in fake.manifests.items() if name[1].startswith("sha256-")}
    assert len(lists) == 3
    for (repository, tag), index in lists.items():
        (entry,) = index["manifests"]
        referrer = json.loads(fake.manifests[repository, entry["digest"]])
        assert referrer["subject"]["digest"] == tag.replace("-", ":", 1)
        assert entry["artifactType"] == referrer["artifactType"]


def test_a_tag_with_other_content_moves_only_when_asked(bundle: Bundle, tmp_path: Path) -> None:
    fake = FakeRegistry()
    push(bundle, fake)
    (tmp_path / "other").mkdir()
    other = write_release(tmp_path / "other", content=b"another layer")
    count = len(fake.blobs)
    with pytest.raises(CliError, match="other content under this tag"):
        push(other, fake)
    assert len(fake.blobs) == count
    push(other, fake, may_move_tags=True)
    assert len(fake.blobs) > count


@pytest.mark.parametrize(
    ("challenge", "authorization"),
    [
        pytest.param('Basic realm="x"', "Basic " + base64.b64encode(b"robot:s3cret").decode(), id="basic"),
        pytest.param(f'Bearer realm="https://{HOST}/token",service="r"', "Bearer t0ken", id="token"),
    ],
)
def test_a_login_is_sent_to_the_registry_and_to_no_other_host(
    bundle: Bundle, challenge: str, authorization: str
) -> None:
    fake = FakeRegistry(challenge=challenge, upload_host="storage.example")
    push(bundle, fake, login=LOGIN)
    uploads = [request for request in fake.requests if request.url.host == "storage.example"]
    assert uploads
    assert not [request for request in uploads if "Authorization" in request.headers]
    assert fake.requests[-1].headers["Authorization"] == authorization


@pytest.mark.parametrize(
    ("answer", "login", "reason"),
    [
        pytest.param(httpx.Response(401, headers={"WWW-Authenticate": "Basic"}), None, "needs a login", id="no login"),
        pytest.param(httpx.Response(401, headers={"WWW-Authenticate": "Negotiate"}), LOGIN, "Basic and Bearer",
                     id="another scheme"),
        pytest.param(httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="http://x/token"'}), LOGIN,
                     "no login is sent", id="a token service without TLS"),
        pytest.param(httpx.Response(403), LOGIN, "may not push there", id="no right"),
        pytest.param(httpx.Response(405), LOGIN, "read-only", id="read-only"),
        pytest.param(httpx.Response(413), LOGIN, "limit of a body", id="a proxy with a small limit"),
        pytest.param(httpx.Response(400, json={"errors": [{"code": "NAME_INVALID", "message": "no"}]}), LOGIN,
                     "NAME_INVALID no", id="the registry's own words"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(bundle: Bundle, answer: httpx.Response, login: Login | None, reason: str) -> None:
    with pytest.raises(CliError) as refusal:
        push(bundle, FakeRegistry(answers=[answer]), login=login)
    assert reason in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("answers", "is_enough"),
    [
        pytest.param([httpx.Response(503)] * (TRIES - 1), True, id="a registry that starts"),
        pytest.param([httpx.ConnectError("no route")] * (TRIES - 1), True, id="a network that comes back"),
        pytest.param([httpx.Response(429, headers={"Retry-After": "7"})] * TRIES, False, id="a limit that stays"),
        pytest.param([httpx.ConnectError("no route")] * TRIES, False, id="a network that is gone"),
    ],
)
def test_a_request_is_tried_five_times(
    bundle: Bundle, answers: list[httpx.Response | httpx.TransportError], is_enough: bool
) -> None:
    fake = FakeRegistry(answers=list(answers))
    if is_enough:
        push(bundle, fake)
    else:
        with pytest.raises(CliError, match=f"in each of {TRIES} tries"):
            push(bundle, fake)


@pytest.mark.parametrize(
    ("to", "target"),
    [
        ("registry.bank.example/ai", PushTarget("registry.bank.example", "ai")),
        ("127.0.0.1:5000", PushTarget("127.0.0.1:5000", "")),
        ("localhost:5000/a/b/", PushTarget("localhost:5000", "a/b")),
    ],
)
def test_a_target_is_host_and_path(to: str, target: PushTarget) -> None:
    assert parse_target(to) == target


@pytest.mark.parametrize("to", ["https://x/y", "x/UPPER", "", "x y", "docker.io/bank", "user:pass@x/y", "x/../y"])
def test_a_target_that_is_none_is_refused(to: str) -> None:
    with pytest.raises(UsageError, match="--to"):
        parse_target(to)


def test_the_printed_line_installs_from_where_it_was_pushed(bundle: Bundle) -> None:
    with open_release(bundle.path, bundle.keys) as release:
        line = build_install_line(release.lock, TARGET, None, is_plain=False)
    assert line.startswith(f"helm install r1plus oci://{HOST}/ai/r1plus/charts/r1plus-operator --version 0.1.0 ")
    assert f"--set images.prefix={HOST}/ai/r1plus " in line


def test_logins_are_read_as_docker_podman_and_helm_write_them(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"robot:s3:cret").decode()
    helm = tmp_path / ".config/helm/registry/config.json"
    helm.parent.mkdir(parents=True)
    helm.write_text(json.dumps({"auths": {HOST: {"auth": encoded}}}))
    environ = {"HOME": str(tmp_path)}
    assert find_login(HOST, environ) == Login("robot", "s3:cret")
    assert find_login("other.example", environ) is None
    assert "s3:cret" not in repr(find_login(HOST, environ))


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": {"registry.bank.example": {"auth": "%"}}}'])
def test_a_file_of_logins_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(content)
    with pytest.raises(CliError, match=r"auth\.json: cannot be read as logins"):
        find_login(HOST, {"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(path)})
