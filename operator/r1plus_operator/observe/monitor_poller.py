"""The one road by which verdicts reach the operator: ask each serving pod's monitor, enqueue its deployment on news.

What a pod's watch gave, probe by probe, comes the same way, and is folded into the pooled detector of its revision
(`pools`), which says in turn when there is news. Runs as one task of main. A monitor that has not answered for two
minutes is no longer taken at its last word (`accuracy.unresponsive`); what it counted is dropped only with the pod.

Who makes pods decides how long they take to answer. So only pods of the operator's own revisions and Jobs are asked;
each namespace has a turn of its own, with a share of the connections, and a slow turn holds up no other.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, MutableMapping
from itertools import groupby
from typing import Any, TypeVar

import aiohttp

from r1plus_contract import names
from r1plus_contract.engine_fetch import PROGRESS_PATH, FillProgress
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.outcomes import OutcomePage
from r1plus_contract.streams import read_at_most
from r1plus_contract.verdict import MonitorReport
from r1plus_operator.observe.observer import VOLUMES_NAME, Observer
from r1plus_operator.observe.pooled_detectors import Key, Pools
from r1plus_operator.observe.projections import ServingPod
from r1plus_operator.plan.accuracy.unresponsive import SILENT_SECONDS, build_silent_report, should_answer

log = logging.getLogger(__name__)
T = TypeVar("T")
TIMEOUT_SECONDS = 3.0
CONCURRENCY = 32
SHARES = 4
"""A namespace has this part of the connections at most."""
ROUND_SECONDS = 2 * TIMEOUT_SECONDS
"""How long a round waits for turns: one that takes longer goes on beside the next rounds."""
MAX_REPORT_BYTES = 256 * 1024
MAX_PAGE_BYTES = 512 * 1024
"""A page of outcomes: 2,000 of them with ids of 128 characters are half of it."""


class VerdictSource:
    """Polls `/verdict` of every pod each `interval` seconds, jittered."""

    def __init__(
        self,
        observer: Observer,
        pools: Pools,
        interval: float,
        rand: random.Random,
        port: int = names.PORT_MONITOR,
        clock: Callable[[], float] = time.monotonic,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._observer = observer
        self._pools = pools
        self._interval = interval
        self._rand = rand
        self._port = port
        self._clock = clock
        self._round_seconds = round_seconds
        self._heard: dict[str, float] = {}
        """Pod's uid -> when its monitor answered last, or was first seen to run."""
        self._unanswered: set[str] = set()
        """uids of pods whose monitor did not answer when it was asked last."""
        self._connections = asyncio.Semaphore(CONCURRENCY)
        self._turns: dict[str, asyncio.Task[None]] = {}
        """Namespace -> its turn, while that goes on."""
        self.asked = asyncio.Event()
        """Set after the first round: before it, silence of the monitors means nothing."""

    async def run(self) -> None:
        """Ask for ever."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while True:
                    await self.ask_all(session)
                    self.asked.set()
                    await asyncio.sleep(self._interval * self._rand.uniform(0.8, 1.2))
            finally:
                await self.close()

    async def close(self) -> None:
        """End the turns that go on."""
        for turn in self._turns.values():
            turn.cancel()
        await asyncio.gather(*self._turns.values(), return_exceptions=True)

    async def ask_all(self, session: aiohttp.ClientSession) -> None:
        """One round over all pods that have an address; reports of pods that are gone are dropped."""
        monitored = self._observer.monitored_pods()
        self._forget_all_but({pod.uid for pod in monitored})
        pods = [pod for pod in monitored if pod.facts.ip and not pod.facts.terminating]
        for namespace, own in groupby(sorted(pods, key=_namespace), key=_namespace):
            if namespace not in self._turns:
                self._turns[namespace] = asyncio.create_task(self._ask_namespace(session, list(own)))
        if self._turns:
            await asyncio.wait(self._turns.values(), timeout=self._round_seconds)
        for namespace in [namespace for namespace, turn in self._turns.items() if turn.done()]:
            if error := self._turns.pop(namespace).exception():
                # One namespace's pods have said what we cannot take. The others are asked on.
                log.error("Monitors of namespace %s could not be polled", namespace, exc_info=error)
        for key in list(self._observer.crs):
            self._look_at_pool(key)
        for key in self._observer.pools.keys() - self._observer.crs.keys():
            del self._observer.pools[key]

    def _forget_all_but(self, uids: set[str]) -> None:
        """Keep nothing of pods that are gone, or not asked any more: what they said last would stand for ever."""
        self._unanswered &= uids
        by_uid: tuple[MutableMapping[str, Any], ...] = (self._observer.reports, self._observer.progress, self._heard)
        for known in by_uid:
            for uid in known.keys() - uids:
                del known[uid]

    async def _ask_namespace(self, session: aiohttp.ClientSession, pods: list[ServingPod]) -> None:
        """One turn. Those that answered last time come first, so that a dead node's pods delay no others."""
        begun = self._clock()
        share = asyncio.Semaphore(CONCURRENCY // SHARES)

        async def ask(pod: ServingPod) -> None:
            async with share, self._connections:
                if not pod.deployment:
                    await self._ask_progress(session, pod)
                    return
                await self._ask(session, pod)
                await self._ask_outcomes(session, pod)

        pods.sort(key=lambda pod: pod.uid in self._unanswered)
        await asyncio.gather(*map(ask, pods))
        for pod in pods:
            if pod.deployment:
                self._note_silence(pod, begun)

    async def _ask(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        self._unanswered.add(pod.uid)
        report = await self._get(session, pod, "/verdict", MonitorReport, MAX_REPORT_BYTES)
        if report is None:
            return
        self._unanswered.discard(pod.uid)
        if report.revision != pod.facts.revision:
            where = pod.namespace, pod.name
            log.warning("Monitor of pod %s/%s reports another revision: %.80r", *where, report.revision)
            return
        self._heard[pod.uid] = self._clock()
        self._take(pod, report)

    def _note_silence(self, pod: ServingPod, begun: float) -> None:
        """Up to the beginning of the round: how long the round takes is no silence of those who answered in it."""
        heard = self._heard.get(pod.uid)
        if heard is None and should_answer(pod.facts):
            self._heard[pod.uid] = self._clock()
        elif heard is not None and begun - heard >= SILENT_SECONDS:
            self._take(pod, build_silent_report(self._observer.reports.get(pod.uid), pod.facts, pod.namespace))

    async def _ask_outcomes(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        key = (pod.namespace, pod.deployment)
        since = self._pools.since(key, pod.name)
        if since is None:
            return
        page = await self._get(session, pod, f"/outcomes?since={since}", OutcomePage, MAX_PAGE_BYTES)
        try:
            if page is not None:
                self._pools.take(key, pod.name, page)
        except ContractError as error:
            log.warning("Outcomes of pod %s/%s were invalid and ignored: %s", pod.namespace, pod.name, error)

    async def _ask_progress(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        """How far a Job has filled a volume; one that has ended says it in its status."""
        if any(c.name == names.CONTAINER_FILL and c.exit_code is not None for c in pod.facts.containers):
            return
        said = await self._get(session, pod, PROGRESS_PATH, FillProgress, MAX_REPORT_BYTES)
        if said is not None and self._observer.progress.get(pod.uid) != said:
            self._observer.progress[pod.uid] = said
            self._observer.news((pod.namespace, VOLUMES_NAME))

    async def _get(
        self, session: aiohttp.ClientSession, pod: ServingPod, path: str, kind: type[T], most: int
    ) -> T | None:
        """What the monitor answers, or None where it says nothing that can be read."""
        host = f"[{pod.facts.ip}]" if ":" in pod.facts.ip else pod.facts.ip
        try:
            async with session.get(f"http://{host}:{self._port}{path}", allow_redirects=False) as response:
                response.raise_for_status()
                return loads(kind, await _bounded(response, kind.__name__, most), tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError) as error:
            log.debug("Monitor of pod %s/%s did not answer %s: %s", pod.namespace, pod.name, path, error)
            return None

    def _look_at_pool(self, key: Key) -> None:
        """Hand on what a deployment's pool says now, and enqueue where that is news."""
        found = self._pools.view(key, lambda: self._sweeps(key))
        if found is None:
            self._observer.pools.pop(key, None)
            return
        view, news = found
        self._observer.pools[key] = view
        if news:
            self._observer.news(key)

    def _sweeps(self, key: Key) -> dict[str, str]:
        """Pod -> when the last sweep ended that it told of."""
        pods = self._observer.pods.store.by_index(f"{key[0]}/{key[1]}")
        reports = {pod.name: self._observer.reports.get(pod.uid) for pod in pods}
        return {name: report.sweep.finished_at for name, report in reports.items() if report and report.sweep}

    def _take(self, pod: ServingPod, report: MonitorReport) -> None:
        if self._observer.reports.get(pod.uid) != report:
            self._observer.reports[pod.uid] = report
            self._observer.news((pod.namespace, pod.deployment))


def _namespace(pod: ServingPod) -> str:
    return pod.namespace


async def _bounded(response: aiohttp.ClientResponse, what: str, most: int) -> bytes:
    """The body, unless it is larger than any that is due: a pod that was broken into must not fill our memory."""
    body = await read_at_most(response.content.iter_chunked(16 * 1024), most + 1)
    if len(body) > most:
        raise ContractError(f"{what}: larger than {most} bytes")
    return body
