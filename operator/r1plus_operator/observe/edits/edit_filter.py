"""Events of R1PlusDeployments before kopf sees them: of a tenant that edits without end, few cost anything.

kopf processes each event by itself, for 0.3 ms of the one event loop, and merges none. So its session hands it a
bookmark in place of an event that changes nothing or the status alone, or whose edit waits for its namespace's turn. A
status goes to the observer at once, and an edit that waits in its newest state, at its turn. kopf lists again after
its process has ended.
"""

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import aiohttp
import orjson

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.observe import projections
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.observer import Observer, read_version, select_trigger
from r1plus_operator.plan.observation import Json
from r1plus_operator.runtime.fairness import Pace
from r1plus_operator.runtime.framing import LineCutter

log = logging.getLogger(__name__)


class EditFilter:
    """Decides of each line of kopf's watch what kopf gets in its place."""

    def __init__(self, observer: Observer, pace: Pace[tuple[str, ...]]) -> None:
        self._observer = observer
        self._pace = pace
        self._waiting: set[DeploymentKey] = set()

    def filter_line(self, line: bytes) -> bytes:
        """Return the line of an event that kopf is to process now, else a bookmark of the same version.

        A line that cannot be read is kopf's to refuse.
        """
        try:
            event = orjson.loads(line)
            return line if self._is_for_kopf(event["type"], event["object"]) else _build_bookmark(event["object"])
        except Exception:
            log.exception("Could not read an event of %s, kopf gets it as it is", names.KIND_DEPLOYMENT)
            return line

    def begin_list(self) -> None:
        """Drop the edits that wait: the list that begins now is newer."""
        self._observer.begin_list()
        for key in self._waiting:
            self._pace.withdraw(key)
        self._waiting.clear()

    def _is_for_kopf(self, kind: str, cr: Json) -> bool:
        if kind not in ("MODIFIED", "DELETED"):
            return True
        key = DeploymentKey(cr["metadata"]["namespace"], cr["metadata"]["name"])
        cached = self._observer.crs.get(key)
        if kind == "DELETED" or cached is None or cached["metadata"]["uid"] != cr["metadata"]["uid"]:
            self._withdraw(key)
            return True
        if read_version(cr) <= read_version(cached):
            return False  # Of our own status, whose answer is cached, or from before it.
        new = projections.project_deployment(cr)
        if new["status"] != cached["status"] and select_trigger(new) == select_trigger(cached):
            # Most often of our own status, before its answer: it is to be cached, and causes no pass.
            self._withdraw(key)
            self._observer.ingest("MODIFIED", new)
            return False
        if "deletionTimestamp" in new["metadata"] and "deletionTimestamp" not in cached["metadata"]:
            self._withdraw(key)
            return True
        has_request = new["metadata"].get("annotations") != cached["metadata"].get("annotations")
        if self._pace.take_turn(key, partial(self._ingest, key, new), is_first=has_request):
            return True
        self._waiting.add(key)
        return False

    def _withdraw(self, key: DeploymentKey) -> None:
        """Drop an edit that waits: a newer event of its object goes to kopf."""
        self._pace.withdraw(key)
        self._waiting.discard(key)

    def _ingest(self, key: DeploymentKey, cr: Json) -> None:
        self._waiting.discard(key)
        self._observer.ingest("MODIFIED", cr, has_turn=True)


def build_response_class(edits: EditFilter) -> type[aiohttp.ClientResponse]:
    """Return the class of the responses that kopf reads, for a session of its own."""

    class FilteredResponse(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if self.url.path.endswith(f"/{kinds.DEPLOYMENTS_PLURAL}"):
                query = self.url.query
                if query.get("watch") != "true" and "continue" not in query:
                    edits.begin_list()
                elif query.get("watch") == "true" and self.status == 200:
                    self.content = cast(aiohttp.StreamReader, _FilteredContent(self.content, edits.filter_line))
            return self

    return FilteredResponse


class _FilteredContent:
    """The body of a watch. Read by kopf in chunks; in everything else the body that it wraps."""

    def __init__(self, content: aiohttp.StreamReader, filter_line: Callable[[bytes], bytes]) -> None:
        self._content = content
        self._filter_line = filter_line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        """Yield the lines that each chunk completes, filtered. A line that is cut off by the end is not handed on."""
        cutter = LineCutter()
        async for chunk in self._content.iter_any():
            if lines := cutter.feed(chunk):
                yield b"".join(self._filter_line(line) + b"\n" for line in lines)


def _build_bookmark(cr: Json) -> bytes:
    """Return an event that kopf takes its version from, and nothing else."""
    meta = {"resourceVersion": cr["metadata"]["resourceVersion"]}
    head = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT}
    return orjson.dumps({"type": "BOOKMARK", "object": {**head, "metadata": meta}})
