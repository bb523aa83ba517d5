"""Who asked the API server for what, by the server's own account: its audit log.

The operator's own counters would count what it believes; this counts what arrived.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

READS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class Request:
    """One finished request (or a watch that has begun). Times in seconds since the epoch, by the server's clock."""

    user: str
    verb: str
    group: str
    """Of the API; empty for the core's."""
    resource: str
    """As in `deployments`, `r1plusdeployments/status`."""
    namespace: str
    name: str
    code: int
    said: str
    """Of a refusal, in the server's words."""
    began: float
    ended: float

    @property
    def writes(self) -> bool:
        """Whether it asked for a change."""
        return self.verb not in READS


class AuditLog:
    """Follows the log: each `read` gives what was written since the last one. Survives one rotation between reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, user: str | None = None) -> list[Request]:
        """The requests that are new, of one user or of all; those of others are dropped."""
        found = [parsed(line) for line in self._lines()]
        return [request for request in found if request is not None and user in (None, request.user)]

    def _lines(self) -> Iterable[bytes]:
        text = self._pending + self._file.read()
        if os.fstat(self._file.fileno()).st_ino != self._path.stat().st_ino:
            self._file.close()
            self._file = self._path.open("rb")
            text += self._file.read()
        *lines, self._pending = text.split(b"\n")
        return lines


def parsed(line: bytes) -> Request | None:
    """A line of the log; None for what names no object (`/readyz`) and for the end of a watch, told at its start."""
    entry: dict[str, Any] = orjson.loads(line)
    about = entry.get("objectRef")
    if not about or (entry["verb"] == "watch") != (entry["stage"] == "ResponseStarted"):
        return None
    answer = entry.get("responseStatus") or {}
    return Request(
        user=entry["user"]["username"],
        verb=entry["verb"],
        group=about.get("apiGroup", ""),
        resource="/".join(part for part in (about["resource"], about.get("subresource")) if part),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=int(answer.get("code", 0)),
        said=answer.get("message", ""),
        began=_epoch(entry["requestReceivedTimestamp"]),
        ended=_epoch(entry["stageTimestamp"]),
    )


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests counted. The Lease is apart: a leader renews it whether there is work or not."""

    reads: int
    writes: int
    refused: int
    """Of the writes, those that the server answered with an error."""
    began: float
    ended: float
    """Of the first and the last write; 0 where there was none."""

    @property
    def seconds(self) -> float:
        """From the first write's arrival to the last one's end."""
        return self.ended - self.began


def tally(requests: Iterable[Request]) -> Tally:
    """Count everything but Leases."""
    counted = [request for request in requests if request.resource != "leases"]
    writes = [request for request in counted if request.writes]
    return Tally(
        reads=len(counted) - len(writes),
        writes=len(writes),
        refused=sum(request.code >= 400 for request in writes),
        began=min((request.began for request in writes), default=0.0),
        ended=max((request.ended for request in writes), default=0.0),
    )
