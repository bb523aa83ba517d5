"""Faults of single events: what the client gets to see of a stream, and in which order."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from faults.calls import Call, Event, Fault
from faults.stream import Stream
from support.virtual_time import virtual_time
from support.waiting import eventually

WATCH = Call("watch", "pods", "", "")


class Script:
    """Faults by event name; no jitter."""

    def __init__(self, faults: dict[str, Fault]) -> None:
        self._faults = faults

    def event(self, event: Event) -> Fault | None:
        return self._faults.pop(event.what, None)

    def jitter(self) -> float:
        return 0.0


class Heard:
    """The client's side."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def write(self, line: bytes) -> None:
        self.lines += [label(line)] if line else []


@pytest.fixture(autouse=True)
async def quick() -> AsyncIterator[None]:
    """Delays of events take no time, and lines that are taken one after the other are taken at the same moment."""
    with virtual_time():
        yield


def line(kind: str, name: str, rv: int, namespace: str = "ns") -> bytes:
    meta = {"name": name, "namespace": namespace, "resourceVersion": str(rv)}
    return json.dumps({"type": kind, "object": {"metadata": meta}}).encode() + b"\n"


def label(text: bytes) -> str:
    found = json.loads(text)
    return f"{found['type']} {found['object'].get('metadata', {}).get('resourceVersion', '')}".strip()


BOOKMARK = line("BOOKMARK", "", 9)


@pytest.mark.parametrize(
    ("faults", "lines", "heard"),
    [
        pytest.param({}, [line("ADDED", "a", 1), line("MODIFIED", "a", 2)], ["ADDED 1", "MODIFIED 2"], id="no fault"),
        pytest.param({"ADDED pods a": Fault.TWICE}, [line("ADDED", "a", 1), line("MODIFIED", "a", 2)], ["ADDED 1", "ADDED 1", "MODIFIED 2"], id="duplicated"),
        pytest.param({"ADDED pods a": Fault.SWALLOW}, [line("ADDED", "a", 1), line("ADDED", "b", 2), line("MODIFIED", "a", 3)], ["ADDED 2", "MODIFIED 3"], id="swallowed until overwritten"),
        pytest.param({"ADDED pods a": Fault.SWALLOW}, [line("ADDED", "a", 1), BOOKMARK, line("ADDED", "b", 2)], ["ADDED 2", "ADDED 1"], id="swallowed and shown at last; no bookmark goes over it"),
        pytest.param({"ADDED pods a": Fault.LATE}, [line("ADDED", "a", 1), line("ADDED", "b", 2), line("ADDED", "c", 3, "other"), BOOKMARK], ["ADDED 3", "ADDED 1", "ADDED 2", "BOOKMARK 9"], id="delayed, its tenant's later events and bookmarks with it"),
    ],
)  # fmt: skip
async def test_what_a_client_sees_of_a_stream(faults: dict[str, Fault], lines: list[bytes], heard: list[str]) -> None:
    client = Heard()
    stream = Stream(WATCH, Script(dict(faults)), client, late=0.05, swallow=0.2)
    for text in lines:
        stream.take(text)
    pump = asyncio.create_task(stream.pump(lambda: False))
    await eventually(lambda: len(client.lines) >= len(heard), "as many lines")
    stream.end()
    await pump
    assert client.lines == heard


@pytest.mark.parametrize(
    ("breaks", "heard"),
    [
        pytest.param(lambda stream: stream.error(500, "InternalError"), ["ERROR"], id="an ERROR event"),
        pytest.param(lambda stream: stream.end(), ["ADDED 1"], id="a plain end, after what is still held"),
    ],
)
async def test_a_stream_that_breaks_is_over(breaks: Callable[[Stream], None], heard: list[str]) -> None:
    client = Heard()
    stream = Stream(WATCH, Script({"ADDED pods a": Fault.LATE}), client, late=0.05)
    stream.take(line("ADDED", "a", 1))
    breaks(stream)
    await stream.pump(lambda: False)
    assert client.lines == heard


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        pytest.param(None, 0.0, id="an ordinary event, at once"),
        pytest.param(Fault.LATE, 5.0, id="a delayed one"),
        pytest.param(Fault.SWALLOW, 9.0, id="a swallowed one that nothing has overwritten"),
    ],
)
async def test_a_stream_says_by_when_a_tenants_events_are_shown(fault: Fault | None, seconds: float) -> None:
    stream = Stream(WATCH, Script({"ADDED pods a": fault} if fault else {}), Heard(), late=5.0, swallow=9.0)
    now = asyncio.get_running_loop().time()
    stream.take(line("ADDED", "a", 1))
    assert stream.shown_by("ns") - now == pytest.approx(seconds)
    assert stream.shown_by("other") == 0.0
