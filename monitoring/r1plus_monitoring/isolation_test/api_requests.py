"""`ask`: sends requests to the API server and uses only the status code of an answer.

The body may be another tenant's Secret, so it is not read, printed or stored.
"""

import asyncio
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from r1plus_contract.monitor.isolation import API_HOST, ApiRequest, AttemptOutcome, Findings
from r1plus_monitoring.isolation_test.arguments import READ_METHODS, OrderError
from r1plus_monitoring.isolation_test.attempts import (
    EXPECT_ANSWER,
    EXPECT_OPEN,
    Attempt,
    Network,
    Rounds,
    attempt_until_settled,
)
from r1plus_monitoring.isolation_test.network import connect, describe_error, resolve

ANSWER_SECONDS: Final = 10.0
REFUSAL_STATUSES: Final = frozenset({401, 403})
BUSY_STATUS: Final = 429
"""Sent before authorization is checked: no answer to the request."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """The API server, and the identity that asks it."""

    trust: ssl.SSLContext
    token: str
    host: str = API_HOST
    port: int = 443
    patience: float = ANSWER_SECONDS


def load_api(folder: Path, host: str, port: int) -> ApiEndpoint:
    """Load the CA and the token from the projected volume; raise OrderError."""
    token_path, ca_path = folder / "token", folder / "ca.crt"
    try:
        token_text = token_path.read_text(encoding="ascii").strip()
        tls_context = ssl.create_default_context(cafile=str(ca_path))
    except (OSError, ValueError) as error:
        raise OrderError(f"{folder}: {error}; mount the files token and ca.crt of a projected volume there") from error
    if not re.fullmatch("[!-~]+", token_text):
        raise OrderError(f"{token_path}: contains no token")
    return ApiEndpoint(tls_context, token_text, host, port)


async def send_requests(
    requests: tuple[ApiRequest, ...], api: ApiEndpoint, expect: AttemptOutcome, rounds: Rounds, start: float
) -> Findings:
    """Send every request until it is answered. With `expect` OPEN, for the control, until the answer is no refusal."""
    expectation = EXPECT_OPEN if expect is AttemptOutcome.OPEN else EXPECT_ANSWER
    network, extended = Network(start, open_since=start), rounds.extend()
    attempts = (
        attempt_until_settled(q.name, expectation, partial(attempt_request, q, api), extended, network)
        for q in requests
    )
    return Findings(tuple(await asyncio.gather(*attempts)))


async def attempt_request(request: ApiRequest, api: ApiEndpoint) -> Attempt:
    """Send one request once."""
    try:
        async with asyncio.timeout(api.patience):
            status = await _request_status(request, api)
    except ssl.SSLCertVerificationError as error:
        return Attempt(AttemptOutcome.FAILED, f"TLS: {error.verify_message}")
    except ssl.SSLError as error:
        return Attempt(AttemptOutcome.FAILED, f"TLS: {error.reason or 'no handshake'}")
    except OSError as error:
        return Attempt(AttemptOutcome.FAILED, f"{api.host}: {describe_error(error)}")
    if status is None:
        return Attempt(AttemptOutcome.FAILED, "what answers does not speak HTTP")
    return Attempt(_classify_status(status), f"HTTP {status}")


def _classify_status(status: int) -> AttemptOutcome:
    if status in REFUSAL_STATUSES:
        return AttemptOutcome.SHUT
    return AttemptOutcome.FAILED if status == BUSY_STATUS or status >= 500 else AttemptOutcome.OPEN


async def _request_status(request: ApiRequest, api: ApiEndpoint) -> int | None:
    """Return the status code of the answer; None where the answer is not HTTP."""
    connection = await _open_connection(api)
    try:
        reader, writer = await asyncio.open_connection(sock=connection, ssl=api.trust, server_hostname=api.host)
    except BaseException:
        connection.close()
        raise
    try:
        writer.write(_encode_request(request, api))
        await writer.drain()
        # ValueError: a line without an end.
        with suppress(ValueError):
            match = _STATUS.fullmatch(await reader.readline())
            return int(match[1]) if match else None
    finally:
        # At once: the rest of the answer is not waited for.
        writer.transport.abort()
    return None


async def _open_connection(api: ApiEndpoint) -> socket.socket:
    """Connect to the first of its addresses that accepts."""
    last_error: OSError = ConnectionError("has no address")
    for address in await resolve(api.host, api.port):
        try:
            return await connect(address)
        except OSError as error:
            last_error = error
    raise last_error


def _encode_request(request: ApiRequest, api: ApiEndpoint) -> bytes:
    body = request.body.encode()
    head = [
        f"{request.method} {request.path} HTTP/1.1",
        f"Host: {api.host}:{api.port}",
        "User-Agent: r1plus-walls",
        "Accept: application/json",
        "Connection: close",
        *([] if request.anonymous else [f"Authorization: Bearer {api.token}"]),
        *([f"Content-Type: {request.content_type}"] if body else []),
        *([f"Content-Length: {len(body)}"] if body or request.method not in READ_METHODS else []),
    ]
    return "\r\n".join([*head, "", ""]).encode("ascii") + body
