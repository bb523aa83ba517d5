"""A replica of the operator: the parts that its process builds, in a process of the simulation's loop.

Only two things are not the product's own: kopf's watch, played by `watch_crs`, and the wire.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.config import OperatorSettings
from r1plus_operator.main import Clocks, OperatorParts, Sessions, build, operate
from r1plus_operator.observe.observer import CRS_PER_PAGE
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, GoneError, TransportError
from r1plus_operator.runtime.transport import Transport
from support.simulation.world.loop import ProcessLoop, pass_seconds

RESTART_SECONDS = 2.0
RELIST_SECONDS = 0.1
"""What kopf waits for before it lists again."""
BACKOFFS = (1, 1, 2, 3, 5, 8, 13, 21)
"""Seconds after which kopf asks again; then it gives up."""


@dataclass(frozen=True, slots=True)
class ReplicaClients:
    """A replica's clients of the API server, as `main.run` makes them: one for writes, one for the Lease."""

    writes: ApiClient
    election: ApiClient
    transports: tuple[Transport, ...]
    """Below both."""


class Replica:
    """One pod of the operator. Its container is started again when its process ends or is killed."""

    def __init__(
        self,
        name: str,
        loop: ProcessLoop,
        settings: Callable[[str], OperatorSettings],
        connect: Callable[[str], ReplicaClients],
        sessions: Sessions,
        rand: random.Random,
        read_wall: Callable[[], float],
    ) -> None:
        """`settings` takes the identity, `connect` the name of a process."""
        self.name = name
        self.identity = f"{name}_0"
        self.skew = 0.0
        """Seconds by which its wall clock is ahead."""
        self.process = ""
        self.parts: OperatorParts | None = None
        self.ended: list[str] = []
        """Why processes ended by themselves."""
        self._loop = loop
        self._settings = settings
        self._connect = connect
        self._sessions = sessions
        self._rand = rand
        self._read_wall = read_wall
        self._starts = 0
        self._clients: ReplicaClients | None = None

    def start(self) -> None:
        """Start a new process."""
        self._starts += 1
        self.process = f"{self.name}#{self._starts}"
        self._loop.start(self.process, self._run(self.process))

    def kill(self, seconds: float = RESTART_SECONDS) -> None:
        """End the process at once, with all that it does; another one starts after a while."""
        self._loop.freeze(self.process)
        if self._clients is not None:
            for transport in self._clients.transports:
                self._loop.start_outside(transport.close())
        self._restart(seconds)

    def stall(self, seconds: float) -> None:
        """Stop the process for a while, as a node does that is starved or suspended."""
        process = self.process
        if self._loop.is_frozen(process):
            return
        self._loop.freeze(process)
        self._loop.call_outside(seconds, lambda: self._thaw(process))

    def replace(self) -> None:
        """Kill its pod: the one that takes its place has another identity."""
        self.identity = f"{self.name}_{self._starts}"
        self.kill()

    @property
    def is_leader(self) -> bool:
        """Whether it believes that it leads."""
        return self.parts is not None and self.parts.elector.is_leader

    def _thaw(self, process: str) -> None:
        if process == self.process:
            self._loop.thaw(process)

    def _end(self, process: str) -> None:
        """Kill a process that hangs; one that has ended by itself hangs no more."""
        if process == self.process:
            self.kill()

    def _restart(self, seconds: float) -> None:
        ended = self.process

        def start() -> None:
            if self.process == ended:
                self.start()

        self._loop.call_outside(seconds, start)

    async def _run(self, process: str) -> None:
        clients = self._clients = self._connect(process)
        clocks = Clocks(self._loop.time, lambda: self._read_wall() + self.skew, self._loop.time)
        rand = random.Random(self._rand.getrandbits(64))
        self.parts = build(
            self._settings(self.identity), clients.writes, clients.election, clocks, rand, self._sessions
        )
        try:
            await operate(self.parts, asyncio.Event(), watch_crs, exit_process=lambda _status: self._end(process))
        except* Exception as group:  # noqa: BLE001 - it is kept, and the process starts again
            self.ended.append(", ".join(sorted(map(repr, _list_leaves(group)))))
            self.kill()


async def watch_crs(parts: OperatorParts, _stop: asyncio.Event) -> None:
    """Bring the CRs as kopf does: a list, whose objects have no event type, then the watch through the edit filter.

    A stream that ends goes on from the last version. After a 410 everything is listed again.

    Raises:
        ApiError: the server went on refusing, as one does whose etcd was set back: the process ends by that.
    """
    while True:
        with suppress(TransportError, GoneError):
            version = await _retry(partial(_list_crs, parts))
            while True:
                version = await _retry(partial(_follow, parts, version))
        await pass_seconds(RELIST_SECONDS)


async def _retry(ask: Callable[[], Awaitable[str]]) -> str:
    """Ask again after each refusal, with kopf's delays; after the last one it is raised."""
    for seconds in BACKOFFS:
        try:
            return await ask()
        except (TransportError, GoneError):
            raise
        except ApiError:
            await pass_seconds(seconds)
    return await ask()


async def _list_crs(parts: OperatorParts) -> str:
    client = _client(parts)
    items, version, has_begun = [], "", False
    async for page, page_version in client.iter_pages(kinds.R1PLUS_DEPLOYMENT, limit=CRS_PER_PAGE):
        if not has_begun:
            parts.edits.begin_list()
            has_begun = True
        items += page
        version = page_version
    for cr in items:
        parts.observer.ingest(None, {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, **cr})
    return version


async def _follow(parts: OperatorParts, version: str) -> str:
    """Follow the stream to its end, and return its last version; one that breaks has a last version, too."""
    try:
        async for kind, obj in _client(parts).watch(kinds.R1PLUS_DEPLOYMENT, version):
            version = obj["metadata"]["resourceVersion"]
            event: dict[str, Any] = orjson.loads(parts.edits.filter_line(orjson.dumps({"type": kind, "object": obj})))
            if event["type"] != "BOOKMARK":
                parts.observer.ingest(event["type"], event["object"], has_turn=True)
    except TransportError:
        await pass_seconds(RELIST_SECONDS)
    return version


def _client(parts: OperatorParts) -> ApiClient:
    return parts.observer._client


def _list_leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _list_leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
