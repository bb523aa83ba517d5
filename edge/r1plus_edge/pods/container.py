"""One container as a supervised process: started, probed, restarted with a back-off, ended."""

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.process.child_processes import signal_child
from r1plus_edge.pods.confinement import Confinement, PrivateFiles
from r1plus_edge.pods.probes import ContainerProbe
from r1plus_edge.pods.processes import measure_memory
from r1plus_edge.pods.triton_sockets import Drain
from r1plus_operator.plan.observation import ContainerFacts
from r1plus_policies.backoff import double_delay

log = logging.getLogger(__name__)
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0
SOUND_SECONDS: Final = 60.0
"""A process that lived so long is restarted at once again."""
WATCH_SECONDS: Final = 5.0
"""Between two looks at its memory and its log."""
MOST_LOG_BYTES: Final = 16 * 2**20
MESSAGE_BYTES: Final = 2000
SHOWN_LINES: Final = 8
"""Of a log, for people."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Program:
    """What runs for a container."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """Its working directory."""
    log: Path
    image_digest: str = ""
    memory_limit: int | None = None
    """Bytes that the kernel cannot take back; None: not watched."""
    memory_request: int = 0
    """Bytes that must be free for it to start, where it is started on demand."""
    confinement: Confinement | PrivateFiles | None = None
    """What it may reach; None: all that its user may."""
    startup: ContainerProbe | None = None
    readiness: ContainerProbe | None = None
    liveness: ContainerProbe | None = None
    drain: Drain | None = None
    """What has to be waited for before SIGTERM, where it is ended gently."""
    sockets: tuple[Path, ...] = ()
    """Where it will listen: a process that was killed leaves them."""
    descriptors: tuple[int, ...] = ()
    """Open files of this process that it gets."""


class Container:
    """Runs a program for as long as its pod wants it."""

    def __init__(self, program: Program, on_change: Callable[[], None]) -> None:
        self.program = program
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._exit_code: int | None = None
        self._message = ""
        self._reason = ""
        self._last_end = ""
        self._is_ready = False
        self.has_started = False
        """Whether its startup probe has succeeded."""
        self.not_ready = ""
        """What its probe said last while it is not ready."""
        self.restarts = 0
        self.failures = 0
        """How often in a row it has ended within a minute."""

    def describe_failure(self) -> str:
        """Return how it ended last, with the end of its log."""
        lines = "\n".join(f"  {line}" for line in self._message.splitlines()[-SHOWN_LINES:])
        again = f", {self.failures} times in a row" if self.failures > 1 else ""
        return f"{self.program.name} {self._last_end}{again}; the end of {self.program.log}:\n{lines}"

    @property
    def is_failing(self) -> bool:
        """Whether it ends again and again, and is not ready now."""
        return self.failures > 1 and not (self._is_ready and self.pid is not None)

    @property
    def pid(self) -> int | None:
        """Of the process that runs; None: none does."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def facts(self) -> ContainerFacts:
        """What a kubelet would report."""
        is_running = self.pid is not None
        waiting = "" if is_running else "CrashLoopBackOff" if self.failures > 1 else "ContainerCreating"
        return ContainerFacts(
            self.program.name,
            ready=self._is_ready and is_running,
            waiting_reason=waiting if self._exit_code is None or self.restarts else "",
            terminated_reason="" if is_running else self._reason,
            message=self._message,
            exit_code=None if is_running or self.restarts else self._exit_code,
            image_digest=self.program.image_digest,
        )

    async def run_once(self) -> int:
        """Run it as an init container; return its exit status."""
        try:
            await self._start()
            assert self._process is not None
            self._record_end(await self._process.wait())
        finally:
            await self._reap()
        assert self._exit_code is not None
        return self._exit_code

    async def run(self) -> None:
        """Keep it running until cancelled; then it is killed, unless `end` has ended it."""
        self.failures = 0
        try:
            while True:
                started_at = time.monotonic()
                await self._start()
                assert self._process is not None
                watch = asyncio.create_task(self._watch())
                try:
                    code = await self._process.wait()
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                self._kill()  # What it has forked goes with it.
                self.failures = 1 if time.monotonic() - started_at >= SOUND_SECONDS else self.failures + 1
                self.restarts += 1
                self._record_end(code)
                await asyncio.sleep(double_delay(self.failures, FIRST_BACKOFF, LONGEST_BACKOFF))
        finally:
            await self._reap()

    async def stop_gently(self) -> None:
        """Wait for what has to be waited for before SIGTERM."""
        if self.program.drain is not None and self.pid is not None:
            await self.program.drain.wait()

    async def end(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after `grace` seconds."""
        if self.pid is not None and self._process is not None:
            signal_child(self._process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._process.wait()
        self._kill()

    async def _reap(self) -> None:
        """Kill it with what it has forked, and wait until it has ended."""
        self._kill()
        if self._process is not None:
            await self._process.wait()

    def _kill(self) -> None:
        if self._process is not None:
            # Its session is its own, so this reaches what it has forked, also after its own end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _start(self) -> None:
        for socket in self.program.sockets:
            socket.unlink(missing_ok=True)
        self.has_started = self.program.startup is None
        self._set_readiness("starting")
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.command,
                env=self.program.environment,
                cwd=self.program.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.program.descriptors,
                start_new_session=True,
                preexec_fn=self._prepare,
            )
        self._exit_code, self._reason = None, ""
        if self.program.readiness is None and self.has_started:
            self._set_readiness("")
        self._on_change()

    def _prepare(self) -> None:
        """Runs between fork and exec."""
        if self.program.confinement is not None:
            self.program.confinement.apply()
        die_with_parent()  # Last: new credentials would undo it.

    def _record_end(self, code: int) -> None:
        self._exit_code, self._is_ready = code, False
        self._reason = self._reason or ("Completed" if code == 0 else "Error")
        self._message = "" if code == 0 else _read_end(self.program.log)
        self.not_ready = f"it ended with status {code}"
        why = f" ({self._reason})" if self._reason not in ("Completed", "Error") else ""
        self._last_end = f"ended by {signal.Signals(-code).name}{why}" if code < 0 else f"ended with status {code}{why}"
        self._on_change()

    async def _watch(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe())
            group.create_task(self._watch_use())

    async def _probe(self) -> None:
        if self.program.startup is not None:
            await self._await_success(self.program.startup)
            self.has_started = True
        if self.program.readiness is None:
            self._set_readiness("")
        async with asyncio.TaskGroup() as group:
            if self.program.readiness is not None:
                group.create_task(self._follow_readiness(self.program.readiness))
            if self.program.liveness is not None:
                group.create_task(self._follow_liveness(self.program.liveness))

    async def _await_success(self, probe: ContainerProbe) -> None:
        for _ in range(probe.failures):
            problem = await self._ask(probe)
            if not problem:
                return
            self._set_readiness(problem)
            await asyncio.sleep(probe.period)
        self._kill_for("StartupProbeFailed")

    async def _ask(self, probe: ContainerProbe) -> str:
        return await probe.check(self.program.environment, self.program.folder)

    async def _follow_readiness(self, probe: ContainerProbe) -> None:
        failures = 0
        while True:
            problem = await self._ask(probe)
            failures = failures + 1 if problem else 0
            if not problem or failures >= probe.failures or not self._is_ready:
                self._set_readiness(problem)
            await asyncio.sleep(probe.period)

    async def _follow_liveness(self, probe: ContainerProbe) -> None:
        failures = 0
        while failures < probe.failures:
            await asyncio.sleep(probe.period)
            failures = failures + 1 if await self._ask(probe) else 0
        self._kill_for("LivenessProbeFailed")

    async def _watch_use(self) -> None:
        """Watch its memory, where no control group limits it, and keep its log short."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                shorten(self.program.log)
            except OSError as error:  # The disk is full, or somebody removed the log; the probes go on.
                log.error("Could not shorten %s: %s", self.program.log, error)
            limit, pid = self.program.memory_limit, self.pid
            if limit is not None and pid is not None and measure_memory(pid) > limit:
                self._kill_for("OOMKilled")

    def _kill_for(self, reason: str) -> None:
        self._reason = reason
        self._kill()

    def _set_readiness(self, problem: str) -> None:
        before, self._is_ready, self.not_ready = self._is_ready, not problem, problem
        if before != self._is_ready:
            self._on_change()


def die_with_parent() -> None:
    """Let the kernel kill this process when `serve` ends, however that ends. Runs between fork and exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_LIBC: Final = ctypes.CDLL(None)


def _read_end(log: Path) -> str:
    """Return the end of a log, as a kubelet does for a container that failed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - MESSAGE_BYTES))
        return file.read().decode(errors="replace").strip()


def shorten(log: Path) -> None:
    """Keep one older log. Processes append, so they go on at the new beginning."""
    if log.stat().st_size > MOST_LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".1.log"))
        os.truncate(log, 0)
