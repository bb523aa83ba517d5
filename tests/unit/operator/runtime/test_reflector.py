"""The reflector under faults that a real API server will not make on request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.reflector import Reflector, ReflectorTiming
from support.runtime.api_server import (
    CONFIG_MAPS,
    Answer,
    ScriptedServer,
    bookmark,
    client_of,
    config_map,
    dropped,
    error_event,
    event_line,
    page,
    raw,
    refusal,
    scripted_server,
    stream,
)
from support.waiting import eventually

FAST = ReflectorTiming(retry=Backoff(first=0.001, cap=0.01), inactivity=600.0, absent_recheck=0.01)
HOLD = stream(then="hold")


@dataclass(frozen=True, slots=True)
class Item:
    namespace: str
    name: str
    uid: str
    data: str


def project(obj: dict[str, Any]) -> Item | None:
    meta, data = obj["metadata"], obj["data"]["value"]
    if data == "hidden":
        return None
    if data == "unreadable":
        raise ValueError("a projection that cannot read its object")
    return Item(meta["namespace"], meta["name"], meta["uid"], data)


class Watcher:
    """A running reflector and what it reported, as `ADDED a`."""

    def __init__(self, server: ScriptedServer, *, optional: bool = False, timing: ReflectorTiming = FAST) -> None:
        self.server = server
        self.log: list[str] = []
        self.client = client_of(server)
        self.reflector = Reflector(
            self.client, CONFIG_MAPS, project=project, on_change=self.note, index=_by_data, optional=optional,
            timing=timing, on_available=lambda: self.log.append("AVAILABLE"),
        )  # fmt: skip

    def note(self, event: str, item: Item) -> None:
        held = self.reflector.store.get(item.namespace, item.name)
        assert (held is None or held.uid != item.uid) if event == "DELETED" else held == item
        self.log.append(f"{event} {item.name}" + (f"={item.data}" if item.data else ""))

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await eventually(condition, what, period_s=0.002)

    async def until_listed(self, count: int = 1) -> None:
        await self.until(lambda: len(self.server.asked("list")) >= count, f"{count} lists are asked for")

    async def until_watched(self, count: int = 1) -> None:
        await self.until(lambda: len(self.server.asked("watch")) >= count, f"{count} watches are asked for")

    async def until_told(self, *log: str) -> None:
        await self.until(lambda: self.log == [*log], f"{log} is reported")

    @property
    def names(self) -> list[str]:
        return sorted(item.name for item in self.reflector.store.items())


def _by_data(item: Item) -> str | None:
    return item.data or None


@asynccontextmanager
async def watching(
    lists: list[Answer],
    watches: list[Answer],
    *,
    optional: bool = False,
    timing: ReflectorTiming = FAST,
    before: Callable[[Watcher], None] | None = None,
) -> AsyncIterator[Watcher]:
    async with scripted_server() as server:
        server.lists, server.watches = lists, watches
        watcher = Watcher(server, optional=optional, timing=timing)
        if before:
            before(watcher)
        async with watcher.client:
            task = asyncio.create_task(watcher.reflector.run())
            try:
                yield watcher
                assert not task.done(), "the reflector ended, which only cancelling may do"
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@asynccontextmanager
async def idle(*listed: dict[str, Any]) -> AsyncIterator[Watcher]:
    """A reflector that has reported these objects and follows a stream that says nothing; its log is empty."""
    async with watching([page(5, *listed)], [HOLD]) as watcher:
        await watcher.until_watched()
        watcher.log.clear()
        yield watcher


A, B, C = config_map("a", rv=1), config_map("b", rv=2), config_map("c", rv=3)
A2 = config_map("a", rv=9, data="new")
B_HIDDEN = config_map("b", rv=6, data="hidden")
FALLS_SILENT = stream(("MODIFIED", A2), then="hold")
CASES: dict[str, tuple[list[Answer], list[Answer], list[str], str]] = {
    "a list in pages is one list, and the watch starts from its resourceVersion": (
        [page(5, A, more="x"), page(5, B, more="y"), page(5, C)], [HOLD], ["ADDED a", "ADDED b", "ADDED c"], "5",
    ),
    "events are reported in order": (
        [page(5, A)], [stream(("ADDED", B), ("MODIFIED", A2), ("DELETED", B), then="hold")],
        ["ADDED a", "ADDED b", "MODIFIED a=new", "DELETED b"], "5",
    ),
    "a watch that the server ends goes on from the last event without a list": (
        [page(5, A)], [stream(("MODIFIED", A2)), HOLD], ["ADDED a", "MODIFIED a=new"], "9",
    ),
    "a bookmark moves the place where the next watch starts": (
        [page(5, A)], [stream(bookmark(77)), HOLD], ["ADDED a"], "77",
    ),
    "an event that does not change the projection is not reported": (
        [page(5, A)], [stream(("MODIFIED", config_map("a", rv=6)), then="hold")], ["ADDED a"], "5",
    ),
    "410 on the watch: the new list shows what was deleted meanwhile": (
        [page(5, A, B), page(20, B, C)], [refusal(410, "Expired"), HOLD],
        ["ADDED a", "ADDED b", "DELETED a", "ADDED c"], "20",
    ),
    "410 inside the stream: a new list": (
        [page(5, A, B), page(20, B)], [stream(error_event(410, "Expired")), HOLD],
        ["ADDED a", "ADDED b", "DELETED a"], "20",
    ),
    "500 inside the stream: a new list": (
        [page(5, A), page(20, A, B)], [stream(error_event(500, "InternalError")), HOLD], ["ADDED a", "ADDED b"], "20",
    ),
    "429 inside the stream: the same place again, later": (
        [page(5, A), page(20, A)], [stream(error_event(429, "TooManyRequests")), HOLD], ["ADDED a"], "5",
    ),
    "a namesake that took an object's place unseen is a deletion and an addition": (
        [page(5, A), page(20, config_map("a", rv=19, uid="other"))], [refusal(410), HOLD],
        ["ADDED a", "DELETED a", "ADDED a"], "20",
    ),
    "a stream cut inside a line goes on after the last whole event": (
        [page(5, A)], [stream(("MODIFIED", A2), event_line("ADDED", B)[:-20]), HOLD],
        ["ADDED a", "MODIFIED a=new"], "9",
    ),
    "a line that is no JSON: the same place again": (
        [page(5, A)], [stream(("MODIFIED", A2), b'{"type": \n'), HOLD], ["ADDED a", "MODIFIED a=new"], "9",
    ),
    "an event without an object: the same place again": (
        [page(5, A)], [stream(b'{"type": "ADDED"}\n'), HOLD], ["ADDED a"], "5",
    ),
    "a reset connection goes on after the last event": (
        [page(5, A)], [stream(("MODIFIED", A2), then="drop"), HOLD], ["ADDED a", "MODIFIED a=new"], "9",
    ),
    "a stream that falls silent is given up and goes on after the last event": (
        [page(5, A)], [FALLS_SILENT, stream(("ADDED", B), then="hold")],
        ["ADDED a", "MODIFIED a=new", "ADDED b"], "9",
    ),
    "a list that fails in every way is asked for until it succeeds": (
        [refusal(500), refusal(403), dropped(), raw(200, b"<html>"), page(5, A)], [HOLD], ["ADDED a"], "5",
    ),
    "410 between pages: a new list, and nothing of the half one is reported": (
        [page(5, A, more="x"), refusal(410, "Expired"), page(8, B)], [HOLD], ["ADDED b"], "8",
    ),
    "a watch that is forbidden is tried again after a list": (
        [page(5, A), page(9, A)], [refusal(403), HOLD], ["ADDED a"], "9",
    ),
    "streams that end at once are taken up again": (
        [page(5, A)], [stream(), stream(), stream(), HOLD], ["ADDED a"], "5",
    ),
    "an object that the projection leaves out is as good as deleted": (
        [page(5, config_map("a", data="hidden"), B)],
        [stream(("MODIFIED", B_HIDDEN), ("MODIFIED", config_map("a", rv=7, data="x")), then="hold")],
        ["ADDED b", "DELETED b", "ADDED a=x"], "5",
    ),
    "an object that the projection cannot read stays as it was and stops no other": (
        [page(5, A, config_map("b", data="unreadable"))],
        [stream(("MODIFIED", config_map("a", rv=6, data="unreadable")), ("ADDED", C), then="hold")],
        ["ADDED a", "ADDED c"], "5",
    ),
    "a deletion of what is not there is not reported": (
        [page(5, A)], [stream(("DELETED", B), ("DELETED", A), ("DELETED", A), then="hold")],
        ["ADDED a", "DELETED a"], "5",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lists", "watches", "reported", "resumed_at"), CASES.values(), ids=CASES)
async def test_what_is_reported(
    lists: list[Answer], watches: list[Answer], reported: list[str], resumed_at: str
) -> None:
    watch_count = len(watches)
    timing = replace(FAST, inactivity=2.0) if FALLS_SILENT in watches else FAST
    async with watching(list(lists), list(watches), timing=timing) as watcher:
        await watcher.until_told(*reported)
        await watcher.until_watched(watch_count)
        assert watcher.reflector.sync_event.is_set()
        assert watcher.server.asked("watch")[watch_count - 1]["resourceVersion"] == resumed_at
        added = [line.split(" ")[1].split("=")[0] for line in watcher.log if line.startswith("ADDED")]
        gone = [line.split(" ")[1] for line in watcher.log if line.startswith("DELETED")]
        for name in gone:
            added.remove(name)
        assert watcher.names == sorted(added), "the store holds what the reports add up to"


async def test_every_watch_asks_for_bookmarks_and_an_end() -> None:
    async with idle(A) as watcher:
        query = watcher.server.asked("watch")[0]
        assert query["allowWatchBookmarks"] == "true"
        assert 300 <= int(query["timeoutSeconds"]) <= 600


async def test_a_consumer_that_fails_stops_neither_the_reflector_nor_the_store() -> None:
    def break_consumer(watcher: Watcher) -> None:
        watcher.reflector._on_change = lambda event, item: watcher.log.append(event) or 1 / 0  # type: ignore[func-returns-value]

    async with watching([page(5, A, B)], [stream(("ADDED", C), then="hold")], before=break_consumer) as watcher:
        await watcher.until_told("ADDED", "ADDED", "ADDED")
        assert watcher.names == ["a", "b", "c"]


async def test_the_index_follows_every_change() -> None:
    red, blue = config_map("a", data="red"), config_map("a", rv=6, data="blue")
    async with watching(
        [page(5, red, config_map("b", data="red"))], [stream(("MODIFIED", blue), then="hold")]
    ) as watcher:
        store = watcher.reflector.store
        await watcher.until(lambda: len(watcher.log) == 3, "three changes are reported")
        assert [i.name for i in store.by_index("red")] == ["b"]
        assert [i.name for i in store.by_index("blue")] == ["a"]
        assert store.by_index("green") == ()


ABSENT = raw(404, b"404 page not found\n")


async def test_an_optional_kind_that_is_absent_is_synced_empty_and_found_when_it_appears() -> None:
    async with watching([ABSENT, ABSENT, page(5, A)], [HOLD], optional=True) as watcher:
        assert watcher.reflector.is_available is False
        await watcher.until(lambda: watcher.reflector.is_available, "the kind is there")
        assert watcher.reflector.sync_event.is_set()
        assert watcher.log == ["ADDED a", "AVAILABLE"]


async def test_an_optional_kind_that_appears_without_an_object_is_told_of_once() -> None:
    async with watching([ABSENT, page(5), refusal(410), page(9)], [refusal(410), HOLD], optional=True) as watcher:
        await watcher.until_watched(2)  # The second list has been read.
        assert watcher.log == ["AVAILABLE"]


async def test_an_optional_kind_that_goes_away_takes_its_objects_along() -> None:
    async with watching([page(5, A), ABSENT], [ABSENT], optional=True) as watcher:
        await watcher.until_told("ADDED a", "AVAILABLE", "DELETED a")
        await watcher.until(lambda: not watcher.reflector.is_available, "the kind is gone")
        assert watcher.reflector.sync_event.is_set()


async def test_a_required_kind_that_is_absent_is_not_synced_and_asked_for_again() -> None:
    there = asyncio.Event()

    async def later(request: Any) -> Any:
        await there.wait()
        return await page(5, A)(request)

    async with watching([ABSENT, ABSENT, later], [HOLD]) as watcher:
        await watcher.until_listed(3)
        assert not watcher.reflector.sync_event.is_set()
        there.set()
        await watcher.until_told("ADDED a")


async def test_failures_in_a_row_wait_longer_and_longer() -> None:
    slow = ReflectorTiming(retry=Backoff(first=0.01, cap=0.05, jitter=0.0))
    async with scripted_server() as server:
        server.lists, server.watches = [refusal(500)], [HOLD]
        async with client_of(server) as client:
            reflector = Reflector(client, CONFIG_MAPS, project=project, on_change=lambda _e, _i: None, timing=slow)
            delays = [reflector._handle_failure(ValueError()) for _ in range(5)]
    assert delays == pytest.approx([0.01, 0.02, 0.04, 0.05, 0.05])


async def test_every_byte_heard_counts_as_activity() -> None:
    ticks = iter(range(1000))
    async with scripted_server() as server:
        server.lists, server.watches = [page(5, A)], [stream(bookmark(6), bookmark(7), then="hold")]
        async with client_of(server) as client:
            reflector = Reflector(
                client, CONFIG_MAPS, project=project, on_change=lambda _e, _i: None, timing=FAST,
                clock=lambda: next(ticks),
            )  # fmt: skip
            task = asyncio.create_task(reflector.run())
            await eventually(lambda: reflector.last_activity >= 3, "both bookmarks and the list are heard")
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Write:
    """A write whose answer a test gives when it likes: an object, or a failure."""

    def __init__(self, reflector: Reflector[Item], name: str = "a") -> None:
        self._answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(reflector.write_through(("ns", name), self._answer))

    @classmethod
    async def begun(cls, watcher: Watcher) -> "Write":
        """One that is under way."""
        write = cls(watcher.reflector)
        await asyncio.sleep(0)
        return write

    async def answered(self, obj: dict[str, Any]) -> None:
        self._answer.set_result(obj)
        await self.task

    async def failed(self) -> None:
        self._answer.set_exception(OSError("no answer"))
        with pytest.raises(OSError, match="no answer"):
            await self.task


WRITTEN = config_map("a", rv=7, data="written")


@dataclass(frozen=True, slots=True)
class Race:
    """What the stream says of an object before a write's answer (of version 7) comes, and after."""

    before: tuple[tuple[str, dict[str, Any]], ...] = ()
    after: tuple[tuple[str, dict[str, Any]], ...] = ()
    reported: tuple[str, ...] = ()
    left: str | None = "written"


EDITED, DELETED = ("MODIFIED", config_map("a", rv=9, data="edited")), ("DELETED", config_map("a", rv=9))
OLDER, ECHO = ("MODIFIED", config_map("a", rv=6, data="older")), ("MODIFIED", WRITTEN)
RACES = [
    pytest.param(Race(), id="the answer alone"),
    pytest.param(Race(after=(ECHO,)), id="the answer before its echo"),
    pytest.param(Race(before=(ECHO,)), id="the echo before its answer"),
    pytest.param(Race(before=(OLDER, ECHO)), id="an edit that the write overtook, and the echo"),
    pytest.param(Race(before=(OLDER,), after=(ECHO,)), id="an edit before the answer, the echo after it"),
    pytest.param(Race(after=(OLDER, ECHO)), id="an edit that the write overtook and that the stream tells late"),
    pytest.param(Race(after=(ECHO, EDITED), reported=("MODIFIED a=edited",), left="edited"), id="an edit after the write"),
    pytest.param(Race(after=(EDITED,), reported=("MODIFIED a=edited",), left="edited"), id="an edit after the write, without the echo"),
    pytest.param(Race(before=(ECHO, EDITED), reported=("MODIFIED a=edited",), left="edited"), id="an edit after the write and before its answer"),
    pytest.param(Race(before=(ECHO, DELETED), reported=("DELETED a=written",), left=None), id="a deletion after the write and before its answer"),
    pytest.param(Race(after=(DELETED,), reported=("DELETED a=written",), left=None), id="a deletion after the answer"),
]  # fmt: skip


def hear(reflector: Reflector[Item], kind: str, obj: dict[str, Any]) -> None:
    """One event, as the stream brings it."""
    if not reflector._is_echo(event_line(kind, obj)):
        reflector._apply_event(kind, obj)


@pytest.mark.parametrize(
    ("line", "echo"),
    [
        (b'{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"7"} and no JSON', True),
        (b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"},"data":{"x":"\\"resourceVersion\\":\\"8\\""}}}', True),
        (b'{"type":"DELETED","object":{"metadata":{"resourceVersion":"7"}}}', False),
        (b'{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"8"}}}', False),
        (b'{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"77"}}}', False),
        (b'{"type":"MODIFIED","object":{"metadata":{"annotations":{"resourceVersion":"7"},"resourceVersion":"9"}}}', False),
        (b'{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"7"},"data":{"resourceVersion":"7"}}}', False),
        (b'{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"x7"}}}', False),
        (b'{"type":"BOOKMARK","object":{"metadata":{}}}', False),
    ],
    ids=[
        "our version, told without decoding", "a text that speaks of another", "its deletion", "another version",
        "a longer one", "a field of the name that somebody added", "even one that says the same", "what is no version",
        "no version at all",
    ],
)  # fmt: skip
async def test_an_echo_is_told_from_its_bytes_once(line: bytes, echo: bool) -> None:
    async with idle(A) as watcher:
        write = await Write.begun(watcher)
        await write.answered(WRITTEN)
        assert watcher.reflector._is_echo(line) is echo
        assert not watcher.reflector._is_echo(line)


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("known", [True, False], ids=["of an object that was there", "of a new object"])
async def test_a_write_is_seen_at_once_and_only_what_others_did_after_it_is_reported(race: Race, known: bool) -> None:
    async with idle(*([A] if known else [])) as watcher:
        write = await Write.begun(watcher)
        for event in race.before:
            hear(watcher.reflector, *event)
        assert watcher.log == []
        await write.answered(WRITTEN)
        assert watcher.log == list(race.reported if race.before else ())
        for event in race.after:
            hear(watcher.reflector, *event)
        assert watcher.log == list(race.reported)
        held = watcher.reflector.store.get("ns", "a")
        assert (held and held.data) == race.left


async def test_what_the_stream_said_during_a_write_that_failed_is_reported() -> None:
    async with idle(A) as watcher:
        write = await Write.begun(watcher)
        watcher.reflector._apply_event(*OLDER)
        await write.failed()
        assert watcher.log == ["MODIFIED a=older"]


async def test_a_write_that_failed_in_silence_changes_nothing() -> None:
    async with idle(A) as watcher:
        write = await Write.begun(watcher)
        await write.failed()
        watcher.reflector._apply_event(*OLDER)
        assert watcher.log == ["MODIFIED a=older"]


@pytest.mark.parametrize(
    ("listed", "names"),
    [(page(6, A), ["a", "b", "new"]), (page(8, A, B), ["a", "b"])],
    ids=["a list from before the write leaves its object alone", "a list from after it decides"],
)
async def test_a_write_during_a_list(listed: Answer, names: list[str]) -> None:
    async with idle(A, B) as watcher:
        reflector, begun, go_on = watcher.reflector, asyncio.Event(), asyncio.Event()

        async def slow(request: Any) -> Any:
            begun.set()
            await go_on.wait()
            return await listed(request)

        watcher.server.lists = [slow]
        listing = asyncio.create_task(reflector._list_objects())
        await begun.wait()
        await Write(reflector, "new").answered(config_map("new", rv=7))
        await Write(reflector, "b").answered(config_map("b", rv=7))
        go_on.set()
        await listing
        assert watcher.names == names


async def test_a_list_during_a_write_knows_its_object_better_than_the_answer() -> None:
    async with idle(A) as watcher:
        watcher.server.lists = [page(8)]
        write = await Write.begun(watcher)
        await watcher.reflector._list_objects()
        assert watcher.log == []
        await write.answered(WRITTEN)
        assert (watcher.names, watcher.log) == ([], ["DELETED a"])


async def test_what_we_deleted_is_gone_at_once_and_its_end_is_no_news() -> None:
    async with idle(A) as watcher:
        watcher.reflector.forget(("ns", "a"))
        watcher.reflector._apply_event("DELETED", config_map("a", rv=6))
        assert (watcher.names, watcher.log) == ([], [])
