"""The prober: the supervisor's child. Reads what is mounted, runs an episode for it, serves what it knows.

`python -m r1plus_monitoring.process.prober`. It is made to be killed: all that it must not forget is in the state
folder, and a bug ends the process with a traceback, since a supervisor stands behind it and the token outlives both.
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

from r1plus_contract.identity import ServingIdentity
from r1plus_contract.settings import MonitorSettings
from r1plus_contract.verdict import Gate, Phase, Verdict
from r1plus_monitoring.config import Config, read_config
from r1plus_monitoring.logs import Clock, log, utc_now
from r1plus_monitoring.probe.client import Engine, TritonEngine
from r1plus_monitoring.probe.probes import Prompter, until_ready
from r1plus_monitoring.probe.service_probe import EVERY, Connect, FrontDoor
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import Bulletin
from r1plus_monitoring.report.web import serve
from r1plus_monitoring.scoring.sources import Problem, Sources, check_identity, fingerprint, read_sources
from r1plus_monitoring.session.evaluation import Episode, admit, admitted
from r1plus_monitoring.session.store import Parts
from r1plus_monitoring.session.suite_shadow import Shadowing
from r1plus_monitoring.store.state import StateStore, beat, restarts

BEAT_EVERY: Final = 2.0
"""Seconds between heartbeats; the supervisor waits many times that."""
REPLAY_EVERY: Final = 600.0
"""Seconds after which everything mounted is read and replayed again though no file seems to have changed: what a score
means hangs on the scorer that runs, and on bytes that a file's date says nothing of."""


class Prober:
    """Wires the parts and follows the mounted files."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        clock: Clock = utc_now,
        retry_after: float = 30.0,
        replay_every: float = REPLAY_EVERY,
        connect: Connect | None = None,
        front_every: float = EVERY,
    ) -> None:
        """`retry_after`: seconds until an inconclusive gate starts anew. `connect`: how to ask the Service."""
        self._config = config
        self._replay_every = replay_every
        self._engine = engine
        self.exposition = Exposition(config.namespace, config.deployment, config.revision)
        store = StateStore(config.state_dir)
        count = restarts(config.state_dir)
        self.exposition.restarted(count)
        self.bulletin = Bulletin(
            revision=config.revision,
            identity=config.identity,
            restarts=count,
            store=store,
            exposition=self.exposition,
            clock=clock,
        )
        self._door = FrontDoor(connect, self.exposition, front_every) if connect else None
        self._parts = Parts(
            bulletin=self.bulletin,
            store=store,
            exposition=self.exposition,
            admission_dir=config.admission_dir,
            state_dir=config.state_dir,
            pod=config.pod,
            clock=clock,
            seed=lambda: random.SystemRandom().getrandbits(63),
            poll_interval=config.poll_interval,
            config_digest=lambda: self._config_digest,
            retry_after=retry_after,
        )
        self._settings: MonitorSettings | None = None
        self._config_digest = ""
        self._shadowing = Shadowing(self._parts, engine, config.identity)

    async def run(self) -> None:
        """Serve and follow until cancelled."""
        runner = await serve(self.bulletin, self.exposition, _listener(self._config))
        beating = asyncio.create_task(self._beat())
        try:
            await self._follow()
        finally:
            beating.cancel()
            await self._shadowing.stop()
            await runner.cleanup()
            await self._engine.close()

    async def _beat(self) -> None:
        while True:
            beat(self._config.state_dir)
            await asyncio.sleep(BEAT_EVERY)

    async def _follow(self) -> None:
        """One episode at a time; a new one whenever what it is about changes."""
        sources = self._read()
        while True:
            self._settings = sources.settings
            self.exposition.replayed(sources.replayed)
            await self._beside(sources)
            self._parts.doubt.answer()
            episode = asyncio.create_task(self._episode(sources))
            try:
                sources = await self._until_changed(sources, episode)
            finally:
                episode.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await episode
            log("info", "Accuracy settings changed", suite=sources.settings.suite if sources.settings else "")

    async def _until_changed(self, sources: Sources, episode: asyncio.Task[None]) -> Sources:
        """The next sources that ask for another episode. An episode's own error ends the prober."""
        read_at = time.monotonic()
        while True:
            doubted = await self._looked(episode)
            self._shadowing.check()
            if episode.done():
                episode.result()
                raise RuntimeError("episode: it ended, and an episode never does")
            due = doubted or time.monotonic() - read_at >= self._replay_every
            if not due and fingerprint(self._config.accuracy_dir) == sources.fingerprint:
                continue
            found, read_at = self._read(), time.monotonic()
            if _subject(found, self._config.identity) != _subject(sources, self._config.identity):
                return found
            sources = found
            self._settings = found.settings
            self.exposition.replayed(found.replayed)
            await self._beside(found)
            if doubted:
                self._parts.doubt.answer()

    async def _looked(self, episode: asyncio.Task[None]) -> bool:
        """Wait until it is time to look at the files again; whether somebody doubts the scorer."""
        raised = asyncio.create_task(self._parts.doubt.raised.wait())
        await asyncio.wait({episode, raised}, timeout=self._config.poll_interval, return_when=asyncio.FIRST_COMPLETED)
        raised.cancel()
        return self._parts.doubt.raised.is_set()

    def _read(self) -> Sources:
        found = read_sources(self._config.accuracy_dir, self._config.identity)
        self._config_digest = found.digest
        return found

    async def _beside(self, sources: Sources) -> None:
        """Whatever becomes of the episode: a suite that is asked beside goes on being asked, while the scorer is sound.

        Before a doubt is answered: the answer would let a shadow write down what the scorer in doubt has found.
        """
        if sources.settings is None or sources.problem is not None:
            await self._shadowing.stop()
        else:
            await self._shadowing.follow(sources, self._newest(sources.settings))

    async def _episode(self, sources: Sources) -> None:
        identity = check_identity(self._config.revision_dir, self._config.identity)
        if isinstance(identity, Problem):
            await self._blocked(identity)
            return
        if sources.problem or sources.settings is None or sources.suite is None:
            problem = sources.problem or Problem("SuiteMissing", "there is no suite")
            await self._blocked(problem, identity, sources.settings)
            return
        items = {item.id: item for item in sources.suite.items}
        prompter = Prompter(self._engine, items, sources.suite.header.sampling, self.exposition)
        newest = self._newest(sources.settings)
        episode = Episode(self._parts, prompter, identity, sources.suite, newest, sources.verdicts)
        async with asyncio.TaskGroup() as group:
            if self._door is not None:
                may_serve = partial(admitted, self._parts, self._config.identity)
                group.create_task(self._door.run(sources.suite, newest, may_serve))
            await episode.run()

    async def _blocked(
        self, problem: Problem, identity: ServingIdentity | None = None, settings: MonitorSettings | None = None
    ) -> None:
        """Say why nothing can be scored, and wait for other files. What `Observe` promises holds even so."""
        log("error", "Scoring is blocked", reason=problem.reason, detail=problem.message)
        self.exposition.accuracy(None)
        self.bulletin.journal = None
        self.bulletin.update(
            phase=Phase.BLOCKED,
            verdict=Verdict.NO_DATA,
            reason=problem.reason,
            message=problem.message,
            suite=settings.suite if settings else "",
            suite_hash=settings.suite_hash if settings else "",
            admitted=admitted(self._parts, self._config.identity),
            gate=None,
            progress=None,
            sweep=None,
            watch=None,
            threshold=None,
            acknowledged=None,
        )
        if identity is not None and settings is not None and settings.gate is Gate.OBSERVE:
            await until_ready(self._engine, self.exposition, self._config.poll_interval)
            admit(self._parts, identity.digest(), settings.gate, Verdict.NO_DATA, settings.suite_hash)
        await asyncio.Event().wait()

    def _newest(self, first: MonitorSettings) -> Callable[[], MonitorSettings]:
        return lambda: self._settings or first


def _listener(config: Config) -> socket.socket:
    """Return the supervisor's socket; without one, open another. OSError where the port is taken."""
    if config.listen_fd is not None:
        return socket.socket(fileno=config.listen_fd)
    return socket.create_server((config.host, config.port))


def _subject(sources: Sources, identity: str) -> tuple[object, ...]:
    """What an episode is about; a change of anything else (the pace, other verdicts) leaves it alone."""
    if sources.settings is None or sources.problem is not None:
        return (sources.settings, sources.problem)
    order = sources.settings.control
    ours = order if order and order.identity == identity else None
    return (sources.settings.suite_hash, sources.settings.threshold, sources.settings.gate, ours)


def made(config: Config, front_every: float = EVERY) -> Prober:
    """The prober of a pod: asks Triton beside it, and the Service of its deployment."""
    engine = TritonEngine(config.triton_http, config.triton_grpc, config.request_timeout, config.triton_metrics)

    def connect(target: str) -> Engine:
        return TritonEngine(config.triton_http, target, config.request_timeout)

    return Prober(config, engine, connect=connect, front_every=front_every)


async def _main(config: Config) -> None:
    task = asyncio.create_task(made(config).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Entry point of the child."""
    asyncio.run(_main(read_config(sys.argv[1:])))


if __name__ == "__main__":
    main()
