"""Monitors of pods: the shipped prober without its web server, on an engine that answers as a schedule says.

The fleet is what the operator's poller reaches by a pod's address.
"""

import asyncio
import math
import random
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

import aiohttp

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_contract.verdict import GateReport, MonitorReport, WatchStanding
from r1plus_monitoring.config import Config
from r1plus_monitoring.probe.client import ProbeReply
from r1plus_monitoring.process.prober import Prober
from r1plus_monitoring.store.state import MonitorState, StateStore
from support.simulation.world.loop import pass_seconds

Json = dict[str, Any]
POLL_SECONDS = 10.0
"""How often a monitor looks at what is mounted."""
RETRY_SECONDS = 30.0
NEVER = math.inf
POLLER_TIMEOUT_SECONDS = 3.0


@dataclass
class Engine:
    """An engine that loses the first `lost` items of its suite."""

    rand: random.Random
    lost: Callable[[], int]
    numbers: Mapping[str, int]
    """Prompt -> number of its item."""

    async def is_model_ready(self) -> bool:
        """Return that it is."""
        return True

    async def ask(self, prompt: str, _sampling: SuiteSampling) -> ProbeReply:
        """Answer after a while, rightly or not."""
        await pass_seconds(self.rand.uniform(0.2, 0.6))
        is_wrong = self.numbers[prompt] < self.lost()
        return ProbeReply("no" if is_wrong else "yes", "stop", 5, 1)

    async def count_waiting_requests(self) -> int | None:
        """Return that nobody waits."""
        return 0

    async def count_user_requests(self) -> int | None:
        """Return that no user's request runs."""
        return 0

    async def close(self) -> None:
        """Close nothing."""


class MemoryStore(StateStore):
    """A monitor's state without its file, which would be most of what a simulation costs."""

    def __init__(self) -> None:
        self.state = MonitorState()

    def save(self, state: MonitorState) -> None:
        """Keep the state."""
        self.state = state


@dataclass
class PodMonitor:
    """The monitor of one pod. Its state survives its process, not the pod."""

    namespace: str
    deployment: str
    revision: str
    pod: str
    uid: str
    identity: str
    engine: Engine
    folder: Path
    read_time: Callable[[], float]
    start_task: Callable[[Any], "asyncio.Task[Any]"]
    prober: Prober | None = None
    store: MemoryStore = field(default_factory=MemoryStore)
    silent_until: float = 0.0
    """It answers nobody before then."""
    _task: "asyncio.Task[Any] | None" = None
    _text: tuple[MonitorReport, bytes] | None = None

    def mount(self, name: str, files: Mapping[str, str]) -> None:
        """Show a ConfigMap's files in a folder, in one step."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name not in files:
                old.unlink()
        for file, text in files.items():
            (folder / file).write_text(text)

    def start(self) -> None:
        """Start the process."""
        for name in ("accuracy", "revision", "admission", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        self.prober = Prober(
            self._config(),
            self.engine,
            lambda: datetime.fromtimestamp(self.read_time(), UTC),
            retry_after=RETRY_SECONDS,
            replay_every=NEVER,
            monotonic=loop.time,
            draw_seed=lambda: self.engine.rand.getrandbits(63),
            store=self.store,
        )
        self._task = self.start_task(self.prober.follow())

    def stop(self) -> None:
        """End the process; its pod may start it again."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def remove(self) -> None:
        """End it for good, with its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def raise_error(self) -> None:
        """Raise the process's own error: it has no reason to end."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    @property
    def report(self) -> MonitorReport | None:
        """What it says now."""
        return self.prober.publisher.report if self.prober else None

    @property
    def is_admitted(self) -> bool:
        """Whether its pod may be Ready."""
        report = self.report
        return report is not None and report.admitted

    @property
    def gate(self) -> GateReport | None:
        """The gate that it has decided, or knows of."""
        return self.report.gate if self.report else None

    @property
    def has_dropped(self) -> bool:
        """Whether it has counted a drop below the threshold."""
        watch = self.report.watch if self.report else None
        return watch is not None and watch.standing is WatchStanding.BELOW_THRESHOLD

    def answer(self, path: str, query: Mapping[str, str]) -> bytes:
        """Answer the operator's poller, as the web server of a monitor does."""
        assert self.prober is not None
        publisher = self.prober.publisher
        if path == "/outcomes":
            return dumps(publisher.build_outcome_page(int(query.get("since", "0")))).encode()
        if self._text is None or self._text[0] is not publisher.report:
            self._text = publisher.report, dumps(replace(publisher.report, user_requests=0)).encode()
        return self._text[1]

    def _config(self) -> Config:
        return Config(
            accuracy_dir=self.folder / "accuracy",
            revision_dir=self.folder / "revision",
            admission_dir=self.folder / "admission",
            state_dir=self.folder / "state",
            triton_http="",
            triton_grpc="",
            triton_metrics="",
            host="",
            port=names.PORT_MONITOR,
            listen_fd=None,
            service="",
            request_timeout=60.0,
            poll_interval=POLL_SECONDS,
            identity=self.identity,
            namespace=self.namespace,
            deployment=self.deployment,
            revision=self.revision,
            pod=self.pod,
        )


@dataclass
class MonitorFleet:
    """All monitors, by the address of their pod."""

    rand: random.Random
    by_address: dict[str, PodMonitor] = field(default_factory=dict)

    def of_pod(self, uid: str) -> PodMonitor | None:
        """Return a pod's monitor."""
        return next((monitor for monitor in self.by_address.values() if monitor.uid == uid), None)

    def of_revision(self, namespace: str, revision: str) -> list[PodMonitor]:
        """Return the monitors of a revision's pods."""
        return [m for m in self.by_address.values() if (m.namespace, m.revision) == (namespace, revision)]

    def open_session(self) -> aiohttp.ClientSession:
        """Return what the poller takes for a session."""
        session: Any = _Session(self)
        return session  # type: ignore[no-any-return]


@dataclass
class _Session:
    fleet: MonitorFleet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        pass

    def get(self, url: str, **_: Any) -> "_Request":
        return _Request(self.fleet, urlsplit(url))


@dataclass
class _Request:
    fleet: MonitorFleet
    url: SplitResult

    async def __aenter__(self) -> "_Response":
        loop, monitor = asyncio.get_running_loop(), self.fleet.by_address.get(self.url.hostname or "")
        await pass_seconds(self.fleet.rand.uniform(0.001, 0.02))
        if monitor is None or monitor.prober is None or self.url.port != names.PORT_MONITOR:
            raise aiohttp.ClientConnectionError(f"{self.url.geturl()}: nothing listens")
        if loop.time() < monitor.silent_until:
            await pass_seconds(POLLER_TIMEOUT_SECONDS)
            raise TimeoutError
        return _Response(monitor.answer(self.url.path, dict(parse_qsl(self.url.query))))

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        pass


@dataclass
class _Response:
    body: bytes

    def raise_for_status(self) -> None:
        pass

    @property
    def content(self) -> Self:
        return self

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        yield self.body
