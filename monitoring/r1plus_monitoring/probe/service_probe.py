"""The front door: now and then one item is asked as a user would ask it, through the Service.

A probe beside Triton, in its own pod, cannot see what lies between: names, the Service, walls, the way to another node.
What is asked here may be answered by any pod, so it is counted apart, and no verdict, detector or sweep hears of it.
Run by the prober beside the episode; a connection of its own for each, since a Service balances connections.
"""

import asyncio
import random
import time
import traceback
from collections.abc import Callable
from typing import Final

from r1plus_contract.metrics import Outcome
from r1plus_contract.settings import MonitorSettings
from r1plus_contract.suite import Suite
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import Engine
from r1plus_monitoring.probe.probes import LABELS, judged
from r1plus_monitoring.report.exposition import Exposition

EVERY: Final = 60.0
"""Seconds between two of one pod's probes through the Service."""

Connect = Callable[[str], Engine]
"""A new connection to a host and port."""


class FrontDoor:
    """One pod's probes through the Service of its deployment."""

    def __init__(self, connect: Connect, exposition: Exposition, every: float = EVERY) -> None:
        self._connect = connect
        self._exposition = exposition
        self._every = every

    async def run(self, suite: Suite, settings: Callable[[], MonitorSettings], admitted: Callable[[], bool]) -> None:
        """Ask for ever, while the operator names a Service and this pod may serve."""
        while True:
            await asyncio.sleep(self._every)
            if (target := settings().service) and admitted():
                await self._asked(suite, target)

    async def _asked(self, suite: Suite, target: str) -> None:
        """Ask once. Nothing of it is evidence, so whatever goes wrong in it must not end what gathers evidence."""
        started = time.monotonic()
        try:
            await self._ask(suite, target)
        except Exception as error:  # noqa: BLE001 - counted, and logged without its text, which may quote an answer
            self._exposition.fronted(Outcome.ERROR, time.monotonic() - started, 0, 0)
            trace = "".join(traceback.format_tb(error.__traceback__))
            log("error", "Probe through the Service broke", failure=type(error).__name__, detail=trace)

    async def _ask(self, suite: Suite, target: str) -> None:
        item = random.choice(suite.items)  # noqa: S311 - a sample, not a secret
        engine, started = self._connect(target), time.monotonic()
        try:
            reply = await engine.ask(item.prompt, suite.header.sampling)
        finally:
            await engine.close()
        outcome = LABELS[judged(item, reply)]
        self._exposition.fronted(outcome, time.monotonic() - started, reply.prompt_tokens, reply.completion_tokens)
        if reply.failure is not None:
            log("warning", "Probe through the Service got no answer", failure=reply.failure, detail=reply.detail)
