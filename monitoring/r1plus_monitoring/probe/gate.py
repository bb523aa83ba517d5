"""Drives a gate run against the engine: keeps the slots full and records the scores. Called by the evaluation
session.

`GateRun` decides what is asked and what it means; this module only waits and asks.
"""

import asyncio
from collections.abc import Awaitable, Callable

from r1plus_monitoring.probe.probes import SCORES, Ask, Result
from r1plus_policies.gate.run import GateRun, Probe
from r1plus_policies.gate.verdict import Judgement

UntilReady = Callable[[], Awaitable[None]]


async def drive_gate(
    run: GateRun,
    *,
    ask: Ask,
    pace: Callable[[], Awaitable[None]],
    until_ready: UntilReady,
    on_score: Callable[[], None],
) -> Judgement:
    """Ask until the run has decided. `pace` is awaited before every probe, `on_score` called after every score.

    After a transport failure no probe follows until the engine is ready again. So a restart does not use up the retries
    of the whole suite.
    """
    in_flight: dict[asyncio.Task[Result], Probe] = {}
    try:
        while run.decision is None:
            for probe in run.next_probes(run.rules.batch - len(in_flight)):
                await pace()
                in_flight[asyncio.ensure_future(ask(probe.item))] = probe
            if not in_flight:
                raise RuntimeError("gate: nothing to ask and nothing decided")
            finished_tasks, _ = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            transport_failed = False
            for task in finished_tasks:
                result = task.result()
                run.record(in_flight.pop(task), SCORES[result])
                transport_failed = transport_failed or result is Result.TRANSPORT
            on_score()
            if transport_failed and run.decision is None:
                await until_ready()
        return run.decision
    finally:
        await _cancel_tasks(in_flight)


async def _cancel_tasks(tasks: dict[asyncio.Task[Result], Probe]) -> None:
    """Cancel the probes in flight: nothing needs their answers any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
