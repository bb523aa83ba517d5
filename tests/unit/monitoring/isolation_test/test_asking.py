"""Asking something that speaks TLS as the API server does."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.monitor.isolation import ApiRequest, AttemptFinding, AttemptOutcome
from r1plus_monitoring.isolation_test.api_requests import ApiEndpoint, attempt_request, load_api, send_requests
from r1plus_monitoring.isolation_test.arguments import OrderError
from r1plus_monitoring.isolation_test.attempts import Attempt, Rounds
from r1plus_monitoring.isolation_test.termination_message import encode_findings
from support.isolation.api_server import HOST, SECRET, TOKEN, ApiServer, answer, authority_and_server
from support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.first_run_counts

SHUT, OPEN, FAILED = AttemptOutcome.SHUT, AttemptOutcome.OPEN, AttemptOutcome.FAILED
TIMED_OUT, NO_HTTP = "timed out", "what answers does not speak HTTP"
READ = ApiRequest("secrets", "GET", "/api/v1/secrets?limit=1")
NOBODY = replace(READ, name="secrets-anonymous", anonymous=True)


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return authority_and_server(tmp_path)


def api(folder: Path, server: ApiServer, patience: float = DEADLINE_SECONDS) -> ApiEndpoint:
    return replace(load_api(folder, HOST, server.port), patience=patience)


async def no_pause(_seconds: float) -> None:
    """What is asked again is asked at once."""


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, OPEN) for status in (200, 201, 202, 301, 400, 404, 409, 422, 499)),
        *((status, SHUT) for status in (401, 403)),
        *((status, FAILED) for status in (429, 500, 503, 504)),
    ],
)
async def test_the_code_of_an_answer_decides(
    tmp_path: Path, tls: ssl.SSLContext, status: int, outcome: AttemptOutcome
) -> None:
    async with ApiServer(tls, [answer(status)]) as server:
        assert await attempt_request(READ, api(tmp_path, server)) == Attempt(outcome, f"HTTP {status}")


async def request_of(request: ApiRequest, folder: Path, tls: ssl.SSLContext) -> str:
    """Put the request to a server that refuses it, and return what the server has read."""
    async with ApiServer(tls, [answer(403)]) as server:
        assert (await attempt_request(request, api(folder, server))).outcome is SHUT
    (request,) = server.requests
    return request.decode().replace(f":{server.port}", ":PORT")


async def test_who_asks_is_said_in_the_head(tmp_path: Path, tls: ssl.SSLContext) -> None:
    head = (await request_of(READ, tmp_path, tls)).split("\r\n")
    assert head[0] == "GET /api/v1/secrets?limit=1 HTTP/1.1"
    assert f"Authorization: Bearer {TOKEN}" in head
    assert f"Host: {HOST}:PORT" in head
    assert not any(line.startswith("Content-") for line in head)


async def test_who_asks_as_nobody_shows_no_token(tmp_path: Path, tls: ssl.SSLContext) -> None:
    request = await request_of(NOBODY, tmp_path, tls)
    assert f"Host: {HOST}:PORT" in request
    assert "Authorization" not in request
    assert TOKEN not in request


async def test_a_write_carries_its_body(tmp_path: Path, tls: ssl.SSLContext) -> None:
    request = ApiRequest("w", "PATCH", "/a?dryRun=All", '{"a":"ä"}', "application/merge-patch+json")
    head, _, body = (await request_of(request, tmp_path, tls)).partition("\r\n\r\n")
    assert body == request.body
    assert {"Content-Type: application/merge-patch+json", "Content-Length: 10"} <= set(head.split("\r\n"))


async def test_a_write_without_a_body_says_so(tmp_path: Path, tls: ssl.SSLContext) -> None:
    request = await request_of(ApiRequest("w", "DELETE", "/a?dryRun=All"), tmp_path, tls)
    assert "\r\nContent-Length: 0\r\n" in request
    assert "Content-Type" not in request


async def test_nothing_of_an_answer_is_kept_but_its_code(tmp_path: Path, tls: ssl.SSLContext) -> None:
    heard: list[str] = []
    async with ApiServer(tls, [answer(200)]) as server:
        rounds = Rounds(0.0, say=heard.append)
        found = await send_requests((READ, NOBODY), api(tmp_path, server), SHUT, rounds, rounds.now())
    assert [one.o for one in found.tries] == [OPEN, OPEN]
    for said in (encode_findings(found), *heard):
        assert SECRET not in said
        assert TOKEN not in said


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", NO_HTTP, id="another protocol"),
        pytest.param(b"HTTP/1.1 200", TIMED_OUT, id="half a line"),
        pytest.param(b"HTTP/1.1 20 OK\r\n", NO_HTTP, id="a code of two digits"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n", NO_HTTP, id="a code of four"),
        pytest.param(b"x" * 2**17, NO_HTTP, id="a line without an end"),
        pytest.param(b"", NO_HTTP, id="nothing"),
        pytest.param(None, TIMED_OUT, id="no answer at all"),
    ],
)
async def test_what_is_no_answer(tmp_path: Path, tls: ssl.SSLContext, said: bytes | None, detail: str) -> None:
    async with ApiServer(tls, [said]) as server:
        seen = await attempt_request(READ, api(tmp_path, server, 0.2 if detail == TIMED_OUT else DEADLINE_SECONDS))
    assert (seen.outcome, seen.detail.endswith(detail)) == (FAILED, True)


async def test_another_authoritys_server_hears_no_token(tmp_path: Path) -> None:
    """Neither from whoever asks as nobody: TLS is verified then as well."""
    other = authority_and_server(tmp_path / "other")
    authority_and_server(tmp_path / "own")
    async with ApiServer(other, [answer(200)]) as server:
        for request in (READ, NOBODY):
            seen = await attempt_request(request, api(tmp_path / "own", server))
            assert (seen.outcome, seen.detail.startswith("TLS: ")) == (FAILED, True)
    assert not server.requests


async def test_another_names_certificate_is_not_the_api_servers(tmp_path: Path) -> None:
    context = authority_and_server(tmp_path, "another.name")
    async with ApiServer(context, [answer(200)]) as server:
        seen = await attempt_request(READ, api(tmp_path, server))
    assert (seen.outcome, seen.detail.startswith("TLS: Hostname mismatch")) == (FAILED, True)
    assert not server.requests


async def test_a_server_without_tls_hears_no_token(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with ApiServer(None, [answer(200)]) as server:
        seen = await attempt_request(READ, api(tmp_path, server, 0.2))
    assert seen.outcome is FAILED
    assert not any(TOKEN.encode() in request for request in server.requests)


async def test_nobody_there_says_nothing_of_rights(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with ApiServer(tls, [answer(200)]) as server:
        pass
    assert await attempt_request(READ, api(tmp_path, server)) == Attempt(FAILED, f"{HOST}: connection refused")


@pytest.mark.parametrize(
    ("answers", "expect", "found", "asked"),
    [
        pytest.param([403], SHUT, AttemptFinding("secrets", SHUT, 0, "HTTP 403"), 1, id="a refusal is believed at once"),
        pytest.param([200], SHUT, AttemptFinding("secrets", OPEN, 0, "HTTP 200"), 1, id="so is what is no refusal"),
        pytest.param([503, 429, 403], SHUT, AttemptFinding("secrets", SHUT, 0, "HTTP 403"), 3, id="a busy server is asked again"),
        pytest.param([403, 403, 200], OPEN, AttemptFinding("secrets", OPEN, 0, "HTTP 200"), 3,
                     id="the control's right comes late"),
        pytest.param([503, 404], OPEN, AttemptFinding("secrets", OPEN, 0, "HTTP 404"), 2,
                     id="for the control, no refusal will do"),
    ],
)  # fmt: skip
async def test_a_question_is_put_until_it_is_answered(
    tmp_path: Path, tls: ssl.SSLContext, answers: list[int], expect: AttemptOutcome, found: AttemptFinding, asked: int
) -> None:
    rounds = Rounds(pause=no_pause, say=lambda _: None)
    async with ApiServer(tls, [answer(status) for status in answers]) as server:
        findings = await send_requests((READ,), api(tmp_path, server), expect, rounds, rounds.now())
    assert findings.tries == (found,)
    assert server.connections == asked


@pytest.mark.parametrize(
    ("file", "holds", "says"),
    [
        pytest.param("token", None, "No such file", id="no token"),
        pytest.param("token", b"\n", "token: contains no token", id="an empty token"),
        pytest.param("token", b"a\r\nX: y", "token: contains no token", id="a token that smuggles a header"),
        pytest.param("token", b"\xff", "can't decode", id="a token of bytes"),
        pytest.param("ca.crt", None, "No such file", id="no authority"),
        pytest.param("ca.crt", b"none", "mount the files token and ca.crt", id="an authority that is none"),
    ],
)
def test_a_folder_that_lets_nobody_ask(tmp_path: Path, file: str, holds: bytes | None, says: str) -> None:
    authority_and_server(tmp_path)
    (tmp_path / file).unlink()
    if holds is not None:
        (tmp_path / file).write_bytes(holds)
    with pytest.raises(OrderError, match=str(tmp_path)) as refused:
        load_api(tmp_path, HOST, 443)
    assert says in str(refused.value)
