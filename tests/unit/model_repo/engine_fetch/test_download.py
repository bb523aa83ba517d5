"""Downloads over real TLS: whole, redirected, broken off, stalled."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, EXIT_RETRYABLE, FillPhase, FillProgress, FillRefusal
from r1plus_model_repo.engine_fetch import addresses
from r1plus_model_repo.engine_fetch.download import (
    STALL_BYTES,
    STALL_SECONDS,
    Download,
    create_tls_context,
    open_download,
)
from r1plus_model_repo.engine_fetch.errors import FillError
from support.model_repo.engine_fetch.server import Server, gives, serving

BODY = bytes(range(256)) * 1000
MOST = len(BODY)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Loopback is where a test's server is, and nowhere else may it be reached."""
    real = addresses._explain_refusal
    monkeypatch.setattr(addresses, "_explain_refusal", lambda address: "" if address == "127.0.0.1" else real(address))
    with serving() as found:
        yield found


Resolve = Callable[[str, int], list[str]]


def loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def fetched(server: Server, path: str, timeout: float = 120.0) -> tuple[str, list[FillProgress]]:
    told: list[FillProgress] = []
    with open_download(
        server.url + path, create_tls_context(server.ca), told.append, MOST, loopback, timeout
    ) as download:
        return download.read_to_end(), told


def refused(server: Server, path: str, timeout: float = 120.0) -> FillError:
    with pytest.raises(FillError) as raised:
        fetched(server, path, timeout)
    return raised.value


def check_not_opened(url: str, match: str, ca: str = "", resolve: Resolve = loopback) -> FillError:
    """Return why nothing is read from there."""
    with (
        pytest.raises(FillError, match=match) as raised,
        open_download(url, create_tls_context(ca), lambda _: None, MOST, resolve),
    ):
        pass
    return raised.value


def test_all_of_it_comes_with_its_sha256_and_progress(server: Server) -> None:
    server.answers["/engine.tar?v=1"] = gives(BODY)
    digest, told = fetched(server, "/engine.tar?v=1")
    assert digest == hashlib.sha256(BODY).hexdigest()
    assert told[-1] == FillProgress(FillPhase.FETCHING, len(BODY), len(BODY))
    assert all(0 < progress.done <= progress.total == len(BODY) for progress in told)


def test_a_redirect_is_followed_and_one_that_leads_elsewhere_is_not(server: Server) -> None:
    server.answers["/engine.tar"] = gives(BODY)
    server.answers["/moved"] = gives(b"", 302, Location="/engine.tar")
    assert fetched(server, "/moved")[0] == hashlib.sha256(BODY).hexdigest()
    for name, target in {
        "plain": server.url.replace("https", "http") + "/engine.tar",
        "file": "file:///etc/passwd",
        "other": "https://user:pw@localhost/x",
    }.items():
        server.answers[f"/{name}"] = gives(b"", 307, Location=target)
        assert refused(server, f"/{name}").reason is FillRefusal.FETCH_REFUSED


def test_a_redirect_to_a_metadata_service_is_refused(server: Server) -> None:
    server.answers["/moved"] = gives(b"", 302, Location="https://metadata.example/latest/meta-data/")

    def resolve(host: str, _port: int) -> list[str]:
        return ["169.254.169.254"] if host == "metadata.example" else ["127.0.0.1"]

    assert (
        check_not_opened(server.url + "/moved", "metadata services are", server.ca, resolve).exit_code == EXIT_PERMANENT
    )


def test_redirects_in_a_circle_end(server: Server) -> None:
    server.answers["/round"] = gives(b"", 301, Location="/round")
    assert "more than 5 redirects" in str(refused(server, "/round"))
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, EXIT_PERMANENT), (403, EXIT_PERMANENT), (503, EXIT_RETRYABLE), (429, EXIT_RETRYABLE), (206, EXIT_RETRYABLE)],
)
def test_what_the_server_says_decides_whether_trying_again_helps(server: Server, status: int, code: int) -> None:
    server.answers["/engine.tar"] = gives(b"no", status)
    error = refused(server, "/engine.tar")
    assert error.exit_code == code
    assert f"HTTP {status}" in str(error)


def test_a_body_that_breaks_off_is_tried_again(server: Server) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:1000])

    server.answers["/engine.tar"] = half
    error = refused(server, "/engine.tar")
    assert (error.reason, error.exit_code) == (FillRefusal.FETCH_FAILED, EXIT_RETRYABLE)
    assert f"1000 of {len(BODY)} bytes" in str(error)


@pytest.mark.unit_slow
def test_a_server_that_falls_silent_is_not_waited_for(server: Server) -> None:
    def silent(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:1000])
        handler.connection.settimeout(120)
        handler.connection.recv(1)

    server.answers["/engine.tar"] = silent
    error = refused(server, "/engine.tar", timeout=4.0)
    assert (error.reason, error.exit_code) == (FillRefusal.FETCH_STALLED, EXIT_RETRYABLE)


class Drip:
    """A response that gives a little at a time, with a clock of its own."""

    def __init__(self, pieces: list[int], seconds: float, length: int) -> None:
        self.headers = {"Content-Length": str(length)}
        self._pieces, self._seconds, self.now = pieces, seconds, 0.0

    def read1(self, _size: int) -> bytes:
        self.now += self._seconds
        return b"x" * self._pieces.pop(0) if self._pieces else b""


def dripping(pieces: list[int], seconds: float, length: int) -> str:
    drip = Drip(pieces, seconds, length)
    download = Download(drip, "https://models.example/x", lambda _: None, 2**40, lambda: drip.now)  # type: ignore[arg-type]
    return download.read_to_end()


def test_a_trickle_is_a_stall_and_a_stream_is_none() -> None:
    slow = [STALL_BYTES // 2 - 1] * 10
    with pytest.raises(FillError, match="FetchStalled"):
        dripping(slow, STALL_SECONDS / 2, sum(slow))
    enough = [STALL_BYTES // 2] * 10
    assert dripping(enough, STALL_SECONDS / 2, sum(enough))


def test_the_last_bytes_may_be_few() -> None:
    assert dripping([STALL_BYTES, STALL_BYTES, 1], STALL_SECONDS / 2, 2 * STALL_BYTES + 1)


def test_a_server_that_nobody_vouches_for_is_not_believed(server: Server) -> None:
    server.answers["/engine.tar"] = gives(BODY)
    check_not_opened(server.url + "/engine.tar", "CERTIFICATE_VERIFY_FAILED")
    assert server.asked == []


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(server: Server) -> None:
    """Another name, resolved by the test alone: were it resolved again there would be no such host."""
    server.answers["/x"] = gives(BODY)
    port = server.url.rpartition(":")[2]
    check_not_opened(f"https://no-such-host.invalid:{port}/x", "Hostname mismatch", server.ca)


def test_where_nobody_listens_the_policies_are_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = check_not_opened(f"https://127.0.0.1:{free.getsockname()[1]}/x", r"127\.0\.0\.1")
    assert error.reason is FillRefusal.FETCH_REFUSED


def test_certificates_that_are_none_are_told() -> None:
    with pytest.raises(FillError, match=r"delivery\.ca"):
        create_tls_context("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----")


def test_more_than_an_archive_can_have_is_not_read(server: Server) -> None:
    server.answers["/engine.tar"] = gives(BODY + b"x")
    error = refused(server, "/engine.tar")
    assert (error.reason, error.exit_code) == (FillRefusal.FETCH_REFUSED, EXIT_PERMANENT)
    assert f"more than {MOST} bytes" in str(error)


def test_what_is_told_of_a_redirect_keeps_its_secret(server: Server) -> None:
    server.answers["/moved"] = gives(b"", 302, Location="/a?X-Amz-Signature=SECRET value")
    error = refused(server, "/moved")
    assert error.reason is FillRefusal.FETCH_REFUSED
    assert "SECRET" not in str(error)
