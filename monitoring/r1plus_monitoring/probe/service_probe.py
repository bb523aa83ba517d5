"""The Service probe: once a minute one item is asked as a user would ask it, through the Service.

A probe of Triton inside its own pod does not cover names, the Service, network policies and the way to another node.
Any pod may answer here, so these probes are counted separately: no verdict, detector or sweep uses them. The prober
runs them next to the evaluation session. Each opens a new connection, since a Service balances connections.
"""

import asyncio
import random
import time
import traceback
from collections.abc import Callable
from typing import Final

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.monitor.settings import MonitorSettings
from r1plus_contract.suites.suite import Suite
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import EngineClient
from r1plus_monitoring.probe.probes import LABELS, classify_reply
from r1plus_monitoring.report.exposition import Exposition

INTERVAL_SECONDS: Final = 60.0
"""Seconds between two of one pod's probes through the Service."""

Connect = Callable[[str], EngineClient]
"""Opens a new connection to a host and port."""


class ServiceProbe:
    """One pod's probes through the Service of its deployment."""

    def __init__(self, connect: Connect, exposition: Exposition, interval: float = INTERVAL_SECONDS) -> None:
        self._connect = connect
        self._exposition = exposition
        self._interval = interval

    async def run(self, suite: Suite, settings: Callable[[], MonitorSettings], is_admitted: Callable[[], bool]) -> None:
        """Ask for ever, while the operator names a Service and this pod may serve."""
        while True:
            await asyncio.sleep(self._interval)
            if (target := settings().service) and is_admitted():
                await self._ask_safely(suite, target)

    async def _ask_safely(self, suite: Suite, target: str) -> None:
        """Ask once. A failure here must not end the evaluation session, so it is counted and logged."""
        start = time.monotonic()
        try:
            await self._ask(suite, target)
        except Exception as error:  # noqa: BLE001 - counted, and logged without its text, which may quote an answer
            self._exposition.record_service_probe(OutcomeLabel.ERROR, time.monotonic() - start, 0, 0)
            trace = "".join(traceback.format_tb(error.__traceback__))
            log("error", "Probe through the Service failed", failure=type(error).__name__, detail=trace)

    async def _ask(self, suite: Suite, target: str) -> None:
        item = random.choice(suite.items)  # noqa: S311 - a sample, not a secret
        engine, start = self._connect(target), time.monotonic()
        try:
            reply = await engine.ask(item.prompt, suite.header.sampling)
        finally:
            await engine.close()
        outcome = LABELS[classify_reply(item, reply)]
        self._exposition.record_service_probe(
            outcome, time.monotonic() - start, reply.prompt_tokens, reply.completion_tokens
        )
        if reply.failure is not None:
            log("warning", "Probe through the Service got no answer", failure=reply.failure, detail=reply.detail)
