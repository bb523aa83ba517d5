"""The prober: the supervisor's child. Reads the mounted files, runs an evaluation session for them, serves its
report.

`python -m r1plus_monitoring.process.prober`. It may be killed at any time: what it must not forget is in the state
folder. A bug ends the process with a traceback; the supervisor restarts it, and the token outlives both.
"""

import asyncio
import contextlib
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.settings import MonitorSettings
from r1plus_contract.verdict import Gate, Phase, Verdict
from r1plus_monitoring.config import Config, read_config
from r1plus_monitoring.logs import Clock, log, utc_now
from r1plus_monitoring.probe.client import EngineClient, TritonEngine
from r1plus_monitoring.probe.probes import Prompter, wait_until_ready
from r1plus_monitoring.probe.service_probe import INTERVAL_SECONDS, Connect, ServiceProbe
from r1plus_monitoring.probe.user_requests import UserRequests
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import ReportPublisher
from r1plus_monitoring.report.web import serve
from r1plus_monitoring.scoring.sources import SourceProblem, Sources, check_identity, read_sources, take_fingerprint
from r1plus_monitoring.session.evaluation import EvaluationSession, admit, is_admitted
from r1plus_monitoring.session.store import MonitorContext
from r1plus_monitoring.session.suite_shadow import SuiteShadow
from r1plus_monitoring.store.state import StateStore, read_restarts, touch_heartbeat

BEAT_EVERY: Final = 2.0
"""Seconds between heartbeats; the supervisor waits many times that."""
REPLAY_EVERY: Final = 600.0
"""Seconds after which all mounted files are read and replayed again though none seems to have changed. A score
depends
on the running scorer, and on bytes that a file's date does not cover."""


def _draw_seed() -> int:
    return random.SystemRandom().getrandbits(63)


class Prober:
    """Builds the parts and follows the mounted files."""

    def __init__(
        self,
        config: Config,
        engine: EngineClient,
        clock: Clock = utc_now,
        retry_after: float = 30.0,
        replay_every: float = REPLAY_EVERY,
        connect: Connect | None = None,
        service_probe_interval: float = INTERVAL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        draw_seed: Callable[[], int] = _draw_seed,
        store: StateStore | None = None,
    ) -> None:
        """`retry_after`: seconds until an inconclusive gate is repeated. `connect`: opens a Service connection."""
        self._config = config
        self._replay_every = replay_every
        self._engine = engine
        self._user_requests = UserRequests(engine)
        self.exposition = Exposition(config.namespace, config.deployment, config.revision)
        store = store or StateStore(config.state_dir)
        count = read_restarts(config.state_dir)
        self.exposition.record_restarts(count)
        self.publisher = ReportPublisher(
            revision=config.revision,
            identity=config.identity,
            restarts=count,
            store=store,
            exposition=self.exposition,
            clock=clock,
        )
        self._service_probe = ServiceProbe(connect, self.exposition, service_probe_interval) if connect else None
        self._context = MonitorContext(
            publisher=self.publisher,
            store=store,
            exposition=self.exposition,
            admission_dir=config.admission_dir,
            state_dir=config.state_dir,
            pod=config.pod,
            clock=clock,
            seed=draw_seed,
            poll_interval=config.poll_interval,
            config_digest=lambda: self._config_digest,
            retry_after=retry_after,
            monotonic=monotonic,
        )
        self._settings: MonitorSettings | None = None
        self._config_digest = ""
        self._suite_shadow = SuiteShadow(self._context, engine, config.identity)

    async def run(self) -> None:
        """Serve and follow until cancelled."""
        listener = _listener(self._config)
        runner = await serve(self.publisher, self.exposition, listener, self._user_requests.count)
        heartbeat = asyncio.create_task(self._beat_forever())
        try:
            await self.follow()
        finally:
            heartbeat.cancel()
            await self._suite_shadow.stop()
            await runner.cleanup()
            await self._user_requests.close()
            await self._engine.close()

    async def _beat_forever(self) -> None:
        while True:
            touch_heartbeat(self._config.state_dir)
            await asyncio.sleep(BEAT_EVERY)

    async def follow(self) -> None:
        """Run one session at a time; start a new one whenever its subject changes. Nothing is served meanwhile."""
        sources = self._read()
        while True:
            self._settings = sources.settings
            self.exposition.set_replay(sources.replay_passed)
            await self._follow_shadow(sources)
            self._context.recheck.confirm()
            session = asyncio.create_task(self._run_session(sources))
            try:
                sources = await self._until_changed(sources, session)
            finally:
                session.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await session
            log(
                "info",
                "Accuracy settings changed, restarted the evaluation session",
                suite=sources.settings.suite if sources.settings else "",
            )

    async def _until_changed(self, sources: Sources, session: asyncio.Task[None]) -> Sources:
        """Return the next sources that need another session. A session's own error ends the prober."""
        read_at = self._context.monotonic()
        while True:
            is_recheck = await self._wait_for_look(session)
            self._suite_shadow.check()
            if session.done():
                session.result()
                raise RuntimeError("The evaluation session ended; it must run until cancelled")
            due = is_recheck or self._context.monotonic() - read_at >= self._replay_every
            if not due and take_fingerprint(self._config.accuracy_dir) == sources.fingerprint:
                continue
            new_sources, read_at = self._read(), self._context.monotonic()
            if _subject(new_sources, self._config.identity) != _subject(sources, self._config.identity):
                return new_sources
            sources = new_sources
            self._settings = new_sources.settings
            self.exposition.set_replay(new_sources.replay_passed)
            await self._follow_shadow(new_sources)
            if is_recheck:
                self._context.recheck.confirm()

    async def _wait_for_look(self, session: asyncio.Task[None]) -> bool:
        """Wait until the files are due for another look; return whether a recheck of the scorer is requested."""
        recheck = asyncio.create_task(self._context.recheck.requested.wait())
        seconds = self._config.poll_interval
        try:
            await asyncio.wait({session, recheck}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            recheck.cancel()
        return self._context.recheck.requested.is_set()

    def _read(self) -> Sources:
        sources = read_sources(self._config.accuracy_dir, self._config.identity)
        self._config_digest = sources.digest
        return sources

    async def _follow_shadow(self, sources: Sources) -> None:
        """Keep the shadow suite running whatever becomes of the session, while the scorer is sound.

        Runs before a recheck is confirmed: the confirmation would let a shadow store what a broken scorer has found.
        """
        if sources.settings is None or sources.problem is not None:
            await self._suite_shadow.stop()
        else:
            await self._suite_shadow.follow(sources, self._newest_settings(sources.settings))

    async def _run_session(self, sources: Sources) -> None:
        identity = check_identity(self._config.revision_dir, self._config.identity)
        if isinstance(identity, SourceProblem):
            await self._report_blocked(identity)
            return
        if sources.problem or sources.settings is None or sources.suite is None:
            problem = sources.problem or SourceProblem("SuiteMissing", "no suite is mounted; check spec.accuracy.suite")
            await self._report_blocked(problem, identity, sources.settings)
            return
        items = {item.id: item for item in sources.suite.items}
        prompter = Prompter(self._engine, items, sources.suite.header.sampling, self.exposition)
        newest = self._newest_settings(sources.settings)
        session = EvaluationSession(self._context, prompter, identity, sources.suite, newest, sources.verdicts)
        async with asyncio.TaskGroup() as group:
            if self._service_probe is not None:
                may_serve = partial(is_admitted, self._context, self._config.identity)
                group.create_task(self._service_probe.run(sources.suite, newest, may_serve))
            await session.run()

    async def _report_blocked(
        self, problem: SourceProblem, identity: ServingIdentity | None = None, settings: MonitorSettings | None = None
    ) -> None:
        """Report why nothing can be scored, and wait for other files. `Observe` still admits the pod."""
        log("error", "Scoring is blocked", reason=problem.reason, detail=problem.message)
        self.exposition.set_accuracy(None)
        self.publisher.journal = None
        self.publisher.update(
            phase=Phase.BLOCKED,
            verdict=Verdict.NO_DATA,
            reason=problem.reason,
            message=problem.message,
            suite=settings.suite if settings else "",
            suite_hash=settings.suite_hash if settings else "",
            admitted=is_admitted(self._context, self._config.identity),
            gate=None,
            progress=None,
            sweep=None,
            watch=None,
            threshold=None,
            acknowledged=None,
        )
        if identity is not None and settings is not None and settings.gate is Gate.OBSERVE:
            await wait_until_ready(self._engine, self.exposition, self._config.poll_interval)
            admit(self._context, identity.digest(), settings.gate, Verdict.NO_DATA, settings.suite_hash)
        await asyncio.Event().wait()

    def _newest_settings(self, first: MonitorSettings) -> Callable[[], MonitorSettings]:
        return lambda: self._settings or first


def _listener(config: Config) -> socket.socket:
    """Return the supervisor's socket; without one, open another. OSError where the port is taken."""
    if config.listen_fd is not None:
        return socket.socket(fileno=config.listen_fd)
    return socket.create_server((config.host, config.port))


def _subject(sources: Sources, identity: str) -> tuple[object, ...]:
    """Return what a session is about; a change of anything else (the pace, other verdicts) does not restart it."""
    if sources.settings is None or sources.problem is not None:
        return (sources.settings, sources.problem)
    order = sources.settings.control
    ours = order if order and order.identity == identity else None
    return (sources.settings.suite_hash, sources.settings.threshold, sources.settings.gate, ours)


def build_prober(config: Config, service_probe_interval: float = INTERVAL_SECONDS) -> Prober:
    """Build the prober of a pod: it asks Triton in the same pod, and the Service of its deployment."""
    engine = TritonEngine(config.triton_http, config.triton_grpc, config.request_timeout, config.triton_metrics)

    def connect(target: str) -> EngineClient:
        return TritonEngine(config.triton_http, config.service or target, config.request_timeout)

    return Prober(config, engine, connect=connect, service_probe_interval=service_probe_interval)


async def _main(config: Config) -> None:
    task = asyncio.create_task(build_prober(config).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Entry point of the child."""
    asyncio.run(_main(read_config(sys.argv[1:])))


if __name__ == "__main__":
    main()
