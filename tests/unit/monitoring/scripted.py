"""A scripted engine behind the prober's `Engine` protocol, a small suite, and a pod's folders in a temporary place.

Run as a program it is a real prober process on a scripted engine, for tests that kill processes:
`python scripted.py PROBER-FLAGS`; the environment variable SCRIPT_WRONG holds ids of items that it answers wrongly.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from r1plus_contract.identity import ServingIdentity
from r1plus_contract.jsonable import dumps
from r1plus_contract.settings import ControlOrder, Former, KnownVerdicts, MonitorSettings
from r1plus_contract.suite import (
    SCORER_VERSION,
    Item,
    Sampling,
    Suite,
    SuiteHeader,
    encode_items,
    load_suite,
    suite_hash,
)
from r1plus_contract.verdict import Gate, GateReport, MonitorReport, Phase
from r1plus_monitoring.client import Reply
from r1plus_monitoring.config import Config, read_config
from r1plus_monitoring.logs import Clock, utc_now
from r1plus_monitoring.prober import REPLAY_EVERY, Prober

Behaviour = Callable[[str, int], Awaitable[Reply | None]]
"""(item id, how often it has been asked before) -> a reply of its own, or None for the scripted answer."""

IDENTITY = ServingIdentity(
    engine="tiny", engine_digest="e" * 64, config_digest="c" * 64, triton_image="t", batch=4, context=128
)


def small_suite(per_stratum: int = 25, strata: tuple[str, ...] = ("additions", "capitals")) -> tuple[str, str]:
    """`suite.json` and `items.jsonl`; item ids are `additions-000` and so on, the prompt is the id."""
    items = [
        Item(id=f"{stratum}-{n:03}", stratum=stratum, prompt=f"{stratum}-{n:03}", scorer="exact", answers=("yes",))
        for stratum in strata
        for n in range(per_stratum)
    ]
    text = encode_items(items)
    sampling = Sampling()
    header = SuiteHeader(
        name="small-v1",
        version="1.0.0",
        family="tiny",
        tier="full",
        description="for tests",
        reference_engine="tiny",
        sha256=suite_hash(text, sampling, SCORER_VERSION),
        items=len(items),
        sampling=sampling,
    )
    return dumps(header), text


def loaded(per_stratum: int = 25) -> Suite:
    """The small suite, read."""
    return load_suite(*small_suite(per_stratum))


@dataclass
class ScriptedEngine:
    """Answers `yes` except where told otherwise, and remembers how it was asked."""

    wrong: set[str] = field(default_factory=set)
    behaviour: Behaviour | None = None
    is_ready: bool = True
    delay: float = 0.0
    asked: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    closed: bool = False
    queue: int | None = None
    """Requests that wait for a slot."""
    looks: int = 0

    async def ready(self) -> bool:
        return self.is_ready

    async def ask(self, prompt: str, sampling: Sampling) -> Reply:
        before = self.asked.count(prompt)
        self.asked.append(prompt)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
            if self.behaviour is not None and (reply := await self.behaviour(prompt, before)) is not None:
                return reply
            return Reply("no" if prompt in self.wrong else "yes", "stop", 5, 1)
        finally:
            self.running -= 1

    async def waiting(self) -> int | None:
        self.looks += 1
        return self.queue

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Pod:
    """The folders that a serving pod mounts."""

    root: Path
    identity: ServingIdentity = IDENTITY

    @classmethod
    def make(cls, root: Path, identity: ServingIdentity = IDENTITY) -> "Pod":
        for name in ("accuracy", "revision", "admission", "state"):
            (root / name).mkdir()
        (root / "revision" / "identity.json").write_text(dumps(identity))
        return cls(root, identity)

    @property
    def admission(self) -> Path:
        return self.root / "admission"

    @property
    def accuracy(self) -> Path:
        return self.root / "accuracy"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def mount(
        self,
        *,
        gate: Gate = Gate.ENFORCE,
        threshold: float = 0.96,
        probes_per_minute: int = 600_000,
        suite: tuple[str, str] | None = None,
        known: tuple[GateReport, ...] = (),
        promised_hash: str | None = None,
        steadiness: float = 0.98,
        acknowledged: str = "",
        control: ControlOrder | None = None,
        restored: str = "",
        service: str = "",
        former: tuple[str, str] | None = None,
        former_for: tuple[str, ...] | None = None,
    ) -> None:
        """Write the accuracy ConfigMap, all at once. `former`: a suite that counts for those identities, or for ours."""
        header, items = suite or small_suite()
        found = load_suite(header, items).header if promised_hash is None else None
        settings = MonitorSettings(
            suite="small-v1",
            suite_hash=promised_hash or (found.sha256 if found else ""),
            threshold=threshold,
            gate=gate,
            probes_per_minute=probes_per_minute,
            steadiness=steadiness,
            acknowledged=acknowledged,
            control=control,
            restored=restored,
            service=service,
        )
        files = {"suite.json": header, "items.jsonl": items, "verdicts.json": dumps(KnownVerdicts(known))}
        if former is not None:
            before = load_suite(*former).header
            ours = (self.identity.digest(),) if former_for is None else former_for
            settings = replace(settings, former=Former(before.name, before.sha256, ours))
            files |= {"former-suite.json": former[0], "former-items.jsonl": former[1]}
        self._swap(files | {"settings.json": dumps(settings)})

    def _swap(self, files: dict[str, str]) -> None:
        """As the kubelet does: names are links into a folder that is exchanged in one step."""
        folder = Path(tempfile.mkdtemp(prefix="..", dir=self.accuracy))
        for name, text in files.items():
            (folder / name).write_text(text)
            if not (self.accuracy / name).is_symlink():
                _link(self.accuracy / name, f"..data/{name}")
        _link(self.accuracy / "..data", folder.name)

    def config(self, port: int = 0) -> Config:
        return replace(read_config(self.flags(port), self.environ()), poll_interval=0.02)

    def flags(self, port: int) -> list[str]:
        folders = [f"--{n}-dir={self.root / n}" for n in ("accuracy", "revision", "admission", "state")]
        return [*folders, "--host=127.0.0.1", f"--port={port}", "--poll-interval=0.05"]

    def environ(self) -> dict[str, str]:
        return {
            "R1PLUS_IDENTITY": self.identity.digest(),
            "R1PLUS_NAMESPACE": "bank",
            "R1PLUS_DEPLOYMENT": "credit",
            "R1PLUS_REVISION": "credit-1",
            "R1PLUS_POD": "credit-1-abcde",
        }


def _link(path: Path, to: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.symlink_to(to)
    part.replace(path)


async def until(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait on a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    pod: Pod, engine: ScriptedEngine, clock: Clock = utc_now, replay_every: float = REPLAY_EVERY, **door: Any
) -> AsyncIterator[Prober]:
    """A prober at work; it is cancelled at the end, and its own error fails the test."""
    prober = Prober(pod.config(), engine, clock, retry_after=0.05, replay_every=replay_every, **door)
    task = asyncio.create_task(prober.run())
    try:
        yield prober
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def watching(prober: Prober) -> MonitorReport:
    """The report once the gate is decided."""
    await until(lambda: prober.bulletin.report.phase is Phase.WATCHING, "watching")
    return prober.bulletin.report


def main() -> None:
    """A prober process on a scripted engine."""
    engine = ScriptedEngine(wrong=set(os.environ.get("SCRIPT_WRONG", "").split(",")), delay=0.005)
    config = read_config(sys.argv[1:])
    asyncio.run(Prober(config, engine).run())


if __name__ == "__main__":
    main()
