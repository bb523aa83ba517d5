"""The one road by which verdicts reach the operator: ask each serving pod's monitor, enqueue its deployment on news.

Runs as one task of main. A monitor that does not answer changes nothing here: silence is the alert's business, and what
the pod said last is dropped only with the pod.
"""

import asyncio
import logging
import random

import aiohttp

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.verdict import MonitorReport
from r1plus_operator.observe import Observer
from r1plus_operator.projections import ServingPod

log = logging.getLogger(__name__)
TIMEOUT_SECONDS = 3.0
CONCURRENCY = 32
MAX_REPORT_BYTES = 256 * 1024


class VerdictSource:
    """Polls `/verdict` of every pod each `interval` seconds, jittered."""

    def __init__(
        self, observer: Observer, interval: float, rand: random.Random, port: int = names.PORT_MONITOR
    ) -> None:
        self._observer = observer
        self._interval = interval
        self._rand = rand
        self._port = port
        self.asked = asyncio.Event()
        """Set after the first round: before it, silence of the monitors means nothing."""

    async def run(self) -> None:
        """Ask for ever."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self.ask_all(session)
                self.asked.set()
                await asyncio.sleep(self._interval * self._rand.uniform(0.8, 1.2))

    async def ask_all(self, session: aiohttp.ClientSession) -> None:
        """One round over all pods that have an address; reports of pods that are gone are dropped."""
        pods = self._observer.pods.store.items()
        for uid in self._observer.reports.keys() - {pod.uid for pod in pods}:
            del self._observer.reports[uid]
        gate = asyncio.Semaphore(CONCURRENCY)

        async def ask(pod: ServingPod) -> None:
            async with gate:
                await self._ask(session, pod)

        await asyncio.gather(*(ask(pod) for pod in pods if pod.facts.ip and not pod.facts.terminating))

    async def _ask(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        host = f"[{pod.facts.ip}]" if ":" in pod.facts.ip else pod.facts.ip
        try:
            async with session.get(f"http://{host}:{self._port}/verdict", allow_redirects=False) as response:
                response.raise_for_status()
                report = loads(MonitorReport, await _bounded(response), tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError) as error:
            log.debug("Monitor of pod %s/%s said nothing: %s", pod.namespace, pod.name, error)
            return
        if report.revision != pod.facts.revision:
            log.warning("Monitor of pod %s/%s speaks of another revision: %s", pod.namespace, pod.name, report.revision)
            return
        self._take(pod, report)

    def _take(self, pod: ServingPod, report: MonitorReport) -> None:
        if self._observer.reports.get(pod.uid) != report:
            self._observer.reports[pod.uid] = report
            self._observer.news((pod.namespace, pod.deployment))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, unless it is larger than any report: a pod that was broken into must not fill our memory."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_REPORT_BYTES:
            raise ContractError(f"MonitorReport: larger than {MAX_REPORT_BYTES} bytes")
    return bytes(body)
