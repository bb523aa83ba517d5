"""Drives a gate run against the engine: keeps the slots full, hands scores back. Called by the episode.

`GateRun` decides what is asked and what it means; here is only waiting and asking.
"""

import asyncio
from collections.abc import Awaitable, Callable

from r1plus_monitoring.probe.probes import SCORES, Ask, Result
from r1plus_policies.gate.run import GateRun, Probe
from r1plus_policies.gate.verdict import Judgement

UntilReady = Callable[[], Awaitable[None]]


async def drive(
    run: GateRun,
    *,
    ask: Ask,
    pace: Callable[[], Awaitable[None]],
    until_ready: UntilReady,
    scored: Callable[[], None],
) -> Judgement:
    """Ask until the run has decided. `pace` is awaited before every probe, `scored` called after every score.

    When the engine was not there, no probe follows until it is ready again, so that an engine that restarts does not
    use up the retries of the whole suite.
    """
    flying: dict[asyncio.Task[Result], Probe] = {}
    try:
        while run.decision is None:
            for probe in run.next_probes(run.rules.batch - len(flying)):
                await pace()
                flying[asyncio.ensure_future(ask(probe.item))] = probe
            if not flying:
                raise RuntimeError("gate: nothing to ask and nothing decided")
            done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            gone = False
            for task in done:
                result = task.result()
                run.record(flying.pop(task), SCORES[result])
                gone = gone or result is Result.TRANSPORT
            scored()
            if gone and run.decision is None:
                await until_ready()
        return run.decision
    finally:
        await _stop(flying)


async def _stop(tasks: dict[asyncio.Task[Result], Probe]) -> None:
    """Cancel what still flies: a decided gate needs no more answers, and a cancelled one wants none."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
