"""A scripted engine behind the prober's `Engine` protocol, a small suite, and a pod's folders in a temporary place.

Run as a program it is a real prober process on a scripted engine, for tests that kill processes (`prober_process`);
the environment variable SCRIPT_WRONG holds ids of items that it answers wrongly.
"""

import asyncio
import contextlib
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.settings import ControlOrder, Former, KnownVerdicts, MonitorSettings
from r1plus_contract.suites.suite import (
    SCORER_VERSION,
    Item,
    Suite,
    SuiteHeader,
    SuiteSampling,
    encode_items,
    load_suite,
    suite_hash,
)
from r1plus_contract.verdict import Gate, GateReport, MonitorReport, Phase, Verdict
from r1plus_monitoring.config import Config, read_config
from r1plus_monitoring.logs import Clock, utc_now
from r1plus_monitoring.probe.client import ProbeReply
from r1plus_monitoring.process.prober import REPLAY_EVERY, Prober
from r1plus_monitoring.store.state import MonitorState, StateStore
from support.waiting import DEADLINE_SECONDS, eventually

Behaviour = Callable[[str, int], Awaitable[ProbeReply | None]]
"""(item id, how often it has been asked before) -> a reply of its own, or None for the scripted answer."""

IDENTITY = ServingIdentity(
    engine="tiny", engine_digest="e" * 64, config_digest="c" * 64, triton_image="t", batch=4, context=128
)

ADDITIONS = {f"additions-{n:03}" for n in range(25)}
"""Half of the small suite."""
WHOLE_GATE = 200
"""Probes of a gate on the small suite that passes: three sweeps at the batch, one at batch 1."""


def small_suite(per_stratum: int = 25, strata: tuple[str, ...] = ("additions", "capitals")) -> tuple[str, str]:
    """`suite.json` and `items.jsonl`; item ids are `additions-000` and so on, the prompt is the id."""
    items = [
        Item(id=f"{stratum}-{n:03}", stratum=stratum, prompt=f"{stratum}-{n:03}", scorer="exact", answers=("yes",))
        for stratum in strata
        for n in range(per_stratum)
    ]
    text = encode_items(items)
    sampling = SuiteSampling()
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
    answers: float = math.inf
    """How many questions are answered; whoever asks more than that waits for ever."""
    asked: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    closed: bool = False
    queue: int | None = None
    """Requests that wait for a slot."""
    user_requests: int | None = 0
    looks: int = 0
    ready_looks: int = 0
    _times: Counter[str] = field(default_factory=Counter)

    async def is_model_ready(self) -> bool:
        self.ready_looks += 1
        return self.is_ready

    async def ask(self, prompt: str, sampling: SuiteSampling) -> ProbeReply:
        before, self._times[prompt] = self._times[prompt], self._times[prompt] + 1
        self.asked.append(prompt)
        is_answered = len(self.asked) <= self.answers
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
            if not is_answered:
                await asyncio.Event().wait()
            if self.behaviour is not None and (reply := await self.behaviour(prompt, before)) is not None:
                return reply
            return ProbeReply("no" if prompt in self.wrong else "yes", "stop", 5, 1)
        finally:
            self.running -= 1

    async def count_waiting_requests(self) -> int | None:
        self.looks += 1
        return self.queue

    async def count_user_requests(self) -> int | None:
        return self.user_requests

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
        """Write the accuracy ConfigMap, all at once.

        `former`: a suite that counts for those identities, or for ours.
        """
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
        self.swap(files | {"settings.json": dumps(settings)})

    def swap(self, files: Mapping[str, str]) -> None:
        """As the kubelet does: names are links into a folder that is exchanged in one step."""
        folder = Path(tempfile.mkdtemp(prefix="..", dir=self.accuracy))
        for name, text in files.items():
            (folder / name).write_text(text)
            if not (self.accuracy / name).is_symlink():
                _link(self.accuracy / name, f"..data/{name}")
        _link(self.accuracy / "..data", folder.name)

    def config(self, port: int = 0) -> Config:
        return replace(read_config(self.flags(port), self.environ()), poll_interval=0.01)

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


def gate_report(pod: Pod, suite: Suite | None = None, **changes: Any) -> GateReport:
    """Return a gate's Pass on the small suite, as the operator tells it to the pods of a revision; `changes` apply."""
    header = (suite or loaded()).header
    report = GateReport(
        verdict=Verdict.PASS,
        reason="Passed",
        message="said elsewhere",
        identity=pod.identity.digest(),
        suite=header.name,
        suite_hash=header.sha256,
        scorer_version=SCORER_VERSION,
        threshold=0.96,
        items=50,
        lost=0,
        allowed=2,
        batch=pod.identity.batch,
    )
    return replace(report, **changes)


def stored_state(pod: Pod) -> MonitorState:
    """Return what a prober that starts now would remember."""
    return StateStore(pod.state).state


async def until(holds: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait on a condition."""
    await eventually(lambda: bool(holds()), what, seconds, period_s=0.005)


@contextlib.asynccontextmanager
async def running(
    pod: Pod, engine: ScriptedEngine, clock: Clock = utc_now, replay_every: float = REPLAY_EVERY, **door: Any
) -> AsyncIterator[Prober]:
    """Run a prober; it is cancelled at the end, and its own error fails the test."""
    prober = Prober(pod.config(), engine, clock, retry_after=0.05, replay_every=replay_every, **door)
    task = asyncio.create_task(prober.run())
    try:
        yield prober
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def comes_to(prober: Prober, phase: Phase) -> MonitorReport:
    """Return the report once the prober is in this phase."""
    await until(lambda: prober.publisher.report.phase is phase, phase.value)
    return prober.publisher.report


async def watching(prober: Prober) -> MonitorReport:
    """Return the report once the gate is decided."""
    return await comes_to(prober, Phase.WATCHING)


@contextlib.asynccontextmanager
async def watched(pod: Pod, engine: ScriptedEngine, **options: Any) -> AsyncIterator[Prober]:
    """Run a prober as `running` does, from the moment that its gate is decided."""
    async with running(pod, engine, **options) as prober:
        await watching(prober)
        yield prober


async def decide(pod: Pod, engine: ScriptedEngine) -> MonitorReport:
    """Run a prober until the gate is decided, and return its report."""
    async with watched(pod, engine) as prober:
        return prober.publisher.report


def metric(prober: Prober, name: str, **labels: str) -> float:
    """Return the sum of the samples of that name which have these labels."""
    families = text_string_to_metric_families(prober.exposition.render().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def prober_process(pod: Pod, port: int) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a real prober process on a scripted engine."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "support.monitoring.scripted", *pod.flags(port)]
    return command, {**os.environ, **pod.environ(), "PYTHONPATH": path}


def main() -> None:
    """A prober process on a scripted engine."""
    engine = ScriptedEngine(wrong=set(os.environ.get("SCRIPT_WRONG", "").split(",")), delay=0.005)
    config = read_config(sys.argv[1:])
    asyncio.run(Prober(config, engine).run())


if __name__ == "__main__":
    main()
