"""What a container is told to try, read from its arguments; everything that is wrong with it is said at once."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from r1plus_contract.isolation import Door, Question
from r1plus_contract.jsonable import ContractError, from_jsonable
from r1plus_contract.termination import MAX_MESSAGE
from r1plus_monitoring.isolation_test.termination_message import bare_size

Ordered = TypeVar("Ordered", Door, Question)

READING: Final = frozenset({"GET", "HEAD"})
DRY_RUN: Final = "dryRun=All"
STREAMS: Final = ("/exec", "/attach", "/portforward")
"""Subresources that know no dry run: nothing is changed by asking for one without an upgrade to a stream."""
MOST_SECONDS: Final = 3600
_LINE: Final = re.compile(r"[!-~]+")
"""What may stand in a request's head: visible ASCII, no space and no end of line."""


class OrderError(ValueError):
    """What was ordered cannot be tried: the message names argument, value and remedy."""


def doors_of(text: str) -> tuple[Door, ...]:
    """`--doors`; raises OrderError."""
    return _read(tuple[Door, ...], "--doors", text, _wrong_door)


def questions_of(text: str) -> tuple[Question, ...]:
    """`--questions`; raises OrderError."""
    return _read(tuple[Question, ...], "--questions", text, _wrong_question)


def ports_of(text: str) -> tuple[int, ...]:
    """`--ports`; raises OrderError."""
    ports = tuple(int(port) if port.strip().isdecimal() else 0 for port in text.split(","))
    if not all(1 <= port <= 65535 for port in ports) or len(set(ports)) < len(ports):
        raise OrderError(f"--ports: {text!r} is no list of different ports from 1 to 65535, such as 8000,8001")
    return ports


def seconds_of(text: str) -> float:
    """`--rounds-for`; raises OrderError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise OrderError(f"--rounds-for: {text!r} is no number of seconds from 0 to {MOST_SECONDS}")
    return seconds


def _read(kind: object, argument: str, text: str, wrong: Callable[[Ordered], Iterable[str]]) -> tuple[Ordered, ...]:
    try:
        ordered: tuple[Ordered, ...] = from_jsonable(kind, json.loads(text), argument)
    except ContractError as error:
        raise OrderError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise OrderError(f"{argument}: not JSON: {error}") from error
    faults = [f"{argument}[{i}].{fault}" for i, one in enumerate(ordered) for fault in wrong(one)]
    faults += [f"{argument}{fault}" for fault in _wrong_list([one.name for one in ordered])]
    if faults:
        raise OrderError("; ".join(faults))
    return ordered


def _wrong_list(names: list[str]) -> Iterator[str]:
    if not names:
        yield ": an empty list; nothing tried proves nothing, name one at least"
    for name, times in Counter(names).items():
        if times > 1:
            yield f": {times} of them are named {name!r}: findings are told by name, give each its own"
    if bare_size(names) > MAX_MESSAGE:
        yield (
            f": the findings of {len(names)} with these names take {bare_size(names)} bytes, and the last words of a"
            f" container may have {MAX_MESSAGE}; order fewer, or under shorter names"
        )


def _wrong_door(door: Door) -> Iterator[str]:
    if not door.name:
        yield "name: empty; what is found is told by name"
    if "$(" in door.host:
        yield f"host: {door.host!r} was not filled in; the container needs an env variable of that name"
    elif not _LINE.fullmatch(door.host):
        yield f"host: {door.host!r} is no name or IP address"
    if not 1 <= door.port <= 65535:
        yield f"port: {door.port} is not from 1 to 65535"


def _wrong_question(question: Question) -> Iterator[str]:
    if not question.name:
        yield "name: empty; what is found is told by name"
    if not re.fullmatch("[A-Z]+", question.method):
        yield f"method: {question.method!r} is none of HTTP, such as GET"
    if not (question.path.startswith("/") and _LINE.fullmatch(question.path)):
        yield f"path: {question.path!r} is no path of the API server's, such as /api/v1/pods"
    if not _LINE.fullmatch(question.content_type):
        yield f"contentType: {question.content_type!r} is no media type, such as application/json"
    if not _json(question.body):
        yield f"body: {question.body!r:.80} is not JSON"
    path, _, query = question.path.partition("?")
    harmless = question.method in READING or DRY_RUN in query.split("&") or path.endswith(STREAMS)
    if not harmless:
        yield f"path: a {question.method} that is let through must change nothing; add {DRY_RUN} to its query"


def _json(body: str) -> bool:
    try:
        return not body or json.loads(body) is not ...
    except (ValueError, RecursionError):
        return False
