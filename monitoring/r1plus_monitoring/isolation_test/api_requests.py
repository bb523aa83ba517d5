"""`ask`: puts questions to the API server, and keeps of an answer nothing but its status code.

What comes after the code may be another tenant's Secret: it is neither read out, nor printed, nor kept.
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

from r1plus_contract.isolation import API_HOST, Findings, Outcome, Question
from r1plus_monitoring.isolation_test.arguments import READING, OrderError
from r1plus_monitoring.isolation_test.attempts import ANSWER, DOOR, Rounds, Seen, settled
from r1plus_monitoring.isolation_test.network import connect, resolve, said

ANSWER_SECONDS: Final = 10.0
REFUSED: Final = frozenset({401, 403})
BUSY: Final = 429
"""Said before it is asked whether one may: an answer to nothing."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Api:
    """The API server, and who asks it."""

    trust: ssl.SSLContext
    token: str
    host: str = API_HOST
    port: int = 443
    patience: float = ANSWER_SECONDS


def api_of(folder: Path, host: str, port: int) -> Api:
    """Whom to trust and who one is, from the projected volume; raises OrderError."""
    token, authority = folder / "token", folder / "ca.crt"
    try:
        who = token.read_text(encoding="ascii").strip()
        trust = ssl.create_default_context(cafile=str(authority))
    except (OSError, ValueError) as error:
        raise OrderError(f"{folder}: {error}; it needs the files token and ca.crt of a projected volume") from error
    if not re.fullmatch("[!-~]+", who):
        raise OrderError(f"{token}: holds no token")
    return Api(trust, who, host, port)


async def ask(questions: tuple[Question, ...], api: Api, expect: Outcome, rounds: Rounds, began: float) -> Findings:
    """Ask every question until it is answered; with `expect` OPEN, for the control, until it is answered otherwise than
    by a refusal."""
    wish = DOOR if expect is Outcome.OPEN else ANSWER
    tries = (settled(q.name, wish, partial(put, q, api), rounds, began) for q in questions)
    return Findings(tuple(await asyncio.gather(*tries)))


async def put(question: Question, api: Api) -> Seen:
    """One attempt."""
    try:
        async with asyncio.timeout(api.patience):
            status = await _status(question, api)
    except ssl.SSLCertVerificationError as error:
        return Seen(Outcome.FAILED, f"TLS: {error.verify_message}")
    except ssl.SSLError as error:
        return Seen(Outcome.FAILED, f"TLS: {error.reason or 'no handshake'}")
    except OSError as error:
        return Seen(Outcome.FAILED, f"{api.host}: {said(error)}")
    if status is None:
        return Seen(Outcome.FAILED, "what answers does not speak HTTP")
    return Seen(_outcome(status), f"HTTP {status}")


def _outcome(status: int) -> Outcome:
    if status in REFUSED:
        return Outcome.SHUT
    return Outcome.FAILED if status == BUSY or status >= 500 else Outcome.OPEN


async def _status(question: Question, api: Api) -> int | None:
    """The code of the answer; None: what came was none."""
    connection = await _connected(api)
    try:
        reader, writer = await asyncio.open_connection(sock=connection, ssl=api.trust, server_hostname=api.host)
    except BaseException:
        connection.close()
        raise
    try:
        writer.write(_request(question, api))
        await writer.drain()
        # ValueError: a line without an end.
        with suppress(ValueError):
            found = _STATUS.fullmatch(await reader.readline())
            return int(found[1]) if found else None
    finally:
        # At once: the rest of the answer is not waited for.
        writer.transport.abort()
    return None


async def _connected(api: Api) -> socket.socket:
    """To the first of its addresses that takes a connection."""
    failed: OSError = ConnectionError("has no address")
    for address in await resolve(api.host, api.port):
        try:
            return await connect(address)
        except OSError as error:
            failed = error
    raise failed


def _request(question: Question, api: Api) -> bytes:
    body = question.body.encode()
    head = [
        f"{question.method} {question.path} HTTP/1.1",
        f"Host: {api.host}:{api.port}",
        "User-Agent: r1plus-walls",
        "Accept: application/json",
        "Connection: close",
        *([] if question.anonymous else [f"Authorization: Bearer {api.token}"]),
        *([f"Content-Type: {question.content_type}"] if body else []),
        *([f"Content-Length: {len(body)}"] if body or question.method not in READING else []),
    ]
    return "\r\n".join([*head, "", ""]).encode("ascii") + body
