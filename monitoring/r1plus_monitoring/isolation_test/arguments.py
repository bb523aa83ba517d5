"""What a container is ordered to try, read from its arguments; all problems are reported at once."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from r1plus_contract.jsonable import ContractError, from_jsonable
from r1plus_contract.monitor.isolation import ApiRequest, ConnectionTarget
from r1plus_contract.process.termination import MAX_MESSAGE
from r1plus_monitoring.isolation_test.termination_message import minimal_size

Target = TypeVar("Target", ConnectionTarget, ApiRequest)

READ_METHODS: Final = frozenset({"GET", "HEAD"})
DRY_RUN: Final = "dryRun=All"
STREAMS: Final = ("/exec", "/attach", "/portforward")
"""Subresources without a dry run: a request without an upgrade to a stream changes nothing."""
MOST_SECONDS: Final = 3600
_LINE: Final = re.compile(r"[!-~]+")
"""What the head of a request may contain: visible ASCII, no space and no end of line."""


class OrderError(ValueError):
    """An order is invalid: the message names argument, value and remedy."""


def parse_connections(text: str) -> tuple[ConnectionTarget, ...]:
    """Parse `--doors`; raise OrderError."""
    return _parse_list(tuple[ConnectionTarget, ...], "--doors", text, _check_connection)


def parse_requests(text: str) -> tuple[ApiRequest, ...]:
    """Parse `--questions`; raise OrderError."""
    return _parse_list(tuple[ApiRequest, ...], "--questions", text, _check_request)


def parse_ports(text: str) -> tuple[int, ...]:
    """Parse `--ports`; raise OrderError."""
    ports = tuple(int(port) if port.strip().isdecimal() else 0 for port in text.split(","))
    if not all(1 <= port <= 65535 for port in ports) or len(set(ports)) < len(ports):
        raise OrderError(f"--ports: {text!r} is no list of different ports from 1 to 65535, such as 8000,8001")
    return ports


def parse_seconds(text: str) -> float:
    """Parse `--rounds-for`; raise OrderError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise OrderError(f"--rounds-for: {text!r} is no number of seconds from 0 to {MOST_SECONDS}")
    return seconds


def _parse_list(kind: object, argument: str, text: str, check: Callable[[Target], Iterable[str]]) -> tuple[Target, ...]:
    try:
        targets: tuple[Target, ...] = from_jsonable(kind, json.loads(text), argument)
    except ContractError as error:
        raise OrderError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise OrderError(f"{argument}: not JSON: {error}") from error
    faults = [f"{argument}[{i}].{fault}" for i, one in enumerate(targets) for fault in check(one)]
    faults += [f"{argument}{fault}" for fault in _check_names([one.name for one in targets])]
    if faults:
        raise OrderError("; ".join(faults))
    return targets


def _check_names(names: list[str]) -> Iterator[str]:
    if not names:
        yield ": empty list; name at least one"
    for name, times in Counter(names).items():
        if times > 1:
            yield f": {times} of them are named {name!r}: findings are listed by name, give each its own"
    if minimal_size(names) > MAX_MESSAGE:
        yield (
            f": the findings of {len(names)} with these names take {minimal_size(names)} bytes, and a termination"
            f" message may have {MAX_MESSAGE}; order fewer, or use shorter names"
        )


def _check_connection(connection: ConnectionTarget) -> Iterator[str]:
    if not connection.name:
        yield "name: empty; findings are listed by name, so set one"
    if "$(" in connection.host:
        yield f"host: {connection.host!r} was not expanded; set an environment variable of that name on the container"
    elif not _LINE.fullmatch(connection.host):
        yield f"host: {connection.host!r} is no name or IP address"
    if not 1 <= connection.port <= 65535:
        yield f"port: {connection.port} is not from 1 to 65535"


def _check_request(request: ApiRequest) -> Iterator[str]:
    if not request.name:
        yield "name: empty; findings are listed by name, so set one"
    if not re.fullmatch("[A-Z]+", request.method):
        yield f"method: {request.method!r} is no HTTP method, such as GET"
    if not (request.path.startswith("/") and _LINE.fullmatch(request.path)):
        yield f"path: {request.path!r} is no path of the API server, such as /api/v1/pods"
    if not _LINE.fullmatch(request.content_type):
        yield f"contentType: {request.content_type!r} is no media type, such as application/json"
    if not _is_json(request.body):
        yield f"body: {request.body!r:.80} is not JSON"
    path, _, query = request.path.partition("?")
    is_harmless = request.method in READ_METHODS or DRY_RUN in query.split("&") or path.endswith(STREAMS)
    if not is_harmless:
        yield f"path: a {request.method} must change nothing even if it is allowed; add {DRY_RUN} to its query"


def _is_json(body: str) -> bool:
    try:
        return not body or json.loads(body) is not ...
    except (ValueError, RecursionError):
        return False
