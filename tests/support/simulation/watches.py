"""One watch as the server serves it: which lines a change gives, bookmarks, and how it ends."""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from r1plus_operator.runtime.errors import ApiError
from support.simulation import refusals, selectors
from support.simulation.server import SimulatedApiServer
from support.simulation.store import HistoryEntry, Object, Record
from support.simulation.traits import Traits

BOOKMARK_SECONDS = 60.0
"""About as often as the real server."""


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a client asks to be sent."""

    traits: Traits
    namespace: str | None
    version: int
    seconds: float
    labels: str = ""
    name: str = ""
    has_bookmarks: bool = True
    metadata_only: bool = False


class Watch:
    """Lines of a stream, in the order of versions. `send` gets each as it happens."""

    def __init__(self, server: SimulatedApiServer, request: WatchRequest, send: Callable[[bytes], None]) -> None:
        self._server = server
        self._request = request
        self._send = send
        self._matches = selectors.parse_labels(request.labels)
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Send what happened since the asked version, then what happens."""
        request, store = self._request, self._server.store
        if request.version < store.compacted:
            text = f"too old resource version: {request.version} ({store.compacted})"
            self._send(build_error_line(refusals.expired(text)))
            raise WatchRefusedError
        for entry in store.list_history(request.traits.resource, request.version):
            self._on_write(entry)
        self._unsubscribe = store.subscribe(request.traits.resource, self._on_write)

    def stop(self) -> None:
        """Send nothing more."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def build_bookmark(self) -> bytes | None:
        """Return the line that says how far the stream has got, if the client asked for that and it is news."""
        version = self._server.version
        if not self._request.has_bookmarks or version <= self._request.version:
            return None
        resource = self._request.traits.resource
        kind = "PartialObjectMetadata" if self._request.metadata_only else resource.kind
        api_version = "meta.k8s.io/v1" if self._request.metadata_only else resource.api_version
        obj = {
            "kind": kind,
            "apiVersion": api_version,
            "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
        }
        return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"

    def _on_write(self, entry: HistoryEntry) -> None:
        if entry.version <= self._request.version:
            return  # After a restore: versions that the client has seen already.
        if self._request.namespace and entry.key[0] != self._request.namespace:
            return
        if self._request.name and entry.key[1] != self._request.name:
            return
        was, is_ = self._selects(entry.before), self._selects(entry.after)
        if is_ and entry.after is not None:
            self._send_event(b"MODIFIED" if was else b"ADDED", entry.after)
        elif was and entry.before is not None:
            self._send_event(b"DELETED", _at_version(entry.before, entry.version))

    def _selects(self, record: Record | None) -> bool:
        if record is None:
            return False
        return self._matches is None or self._matches(record.obj["metadata"].get("labels") or {})

    def _send_event(self, kind: bytes, record: Record) -> None:
        text = record.metadata_text if self._request.metadata_only else record.text
        self._send(b'{"type":"%b","object":%b}\n' % (kind, text))


class WatchRefusedError(Exception):
    """The stream ends after its error event."""


def build_error_line(error: ApiError) -> bytes:
    """Return the event that ends a stream with an error."""
    return b'{"type":"ERROR","object":%b}\n' % refusals.build_status(error)


def _at_version(record: Record, version: int) -> Record:
    """Return a last state with the version of the write that ended it."""
    if record.version == version:
        return record
    last: Object = {**record.obj, "metadata": {**record.obj["metadata"], "resourceVersion": str(version)}}
    return Record(last, version)
