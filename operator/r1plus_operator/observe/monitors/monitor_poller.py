"""Poller of the monitors: the only way by which verdicts reach the operator. A changed report enqueues its deployment.

The outcomes of a pod's probes come the same way, and are folded into the pooled detector of its revision
(`pooled_detectors`), which in turn says when there is news. A gateway is polled as well: whether it can use the
tenant's data. Runs as one task of main. A monitor that has not answered for two minutes counts as silent
(`accuracy.unresponsive`); its outcomes are dropped with the pod.

A tenant decides how long its pods take to answer. So only pods of the operator's own revisions, Jobs and gateways are
polled.
Each namespace has a turn of its own, with a share of the connections, and a slow turn holds up no other.
"""

import asyncio
import hashlib
import logging
import math
import random
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import aiohttp
from aiohttp.client_proto import ResponseHandler

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import PROGRESS_PATH, FillProgress
from r1plus_contract.gateway import DATA_PATH, PORT_INTERNAL, DataState
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.monitor.outcomes import OutcomePage
from r1plus_contract.process.connections import PLAIN, BoundedResponse, limit_responses
from r1plus_contract.process.streams import read_at_most
from r1plus_contract.verdict import MonitorReport
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.monitors.pooled_detectors import Pools
from r1plus_operator.observe.monitors.report_limits import check_report
from r1plus_operator.observe.observer import Observer
from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.plan.accuracy.unresponsive import SILENT_SECONDS, build_silent_report, is_stopped, should_answer

log = logging.getLogger(__name__)
T = TypeVar("T")
TIMEOUT_SECONDS = 3.0
CONCURRENCY = 32
SHARES = 4
"""A namespace has this part of the connections at most."""
ROUND_SECONDS = 2 * TIMEOUT_SECONDS
"""How long a round waits for turns; one that takes longer continues during the next rounds."""
MAX_REPORT_BYTES = 256 * 1024
MAX_PAGE_BYTES = 512 * 1024
"""A page of outcomes: 2,000 of them with ids of 128 characters are half of it."""
MAX_STATE_BYTES = 16 * 1024
DATA_STATE_SECONDS = 60.0
"""How long a gateway's last answer counts while it does not answer."""


class _Response(BoundedResponse, ResponseHandler):
    """One pod's answers."""


def open_session() -> aiohttp.ClientSession:
    """Return the session for pods, which may be compromised: answers are bounded, and nothing is unpacked."""
    return aiohttp.ClientSession(
        connector=limit_responses(aiohttp.TCPConnector(), _Response),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        headers=PLAIN,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class MonitorPoller:
    """Poller of `/verdict` of every pod, each `interval` seconds, jittered."""

    def __init__(
        self,
        observer: Observer,
        pools: Pools,
        interval: float,
        rand: random.Random,
        port: int = names.PORT_MONITOR,
        clock: Callable[[], float] = time.monotonic,
        round_seconds: float = ROUND_SECONDS,
        gateway_port: int = PORT_INTERNAL,
        open_session: Callable[[], aiohttp.ClientSession] = open_session,
    ) -> None:
        self._observer = observer
        self._monitors = observer.monitors
        self._pools = pools
        self._interval = interval
        self._rand = rand
        self._port = port
        self._gateway_port = gateway_port
        self._clock = clock
        self._round_seconds = round_seconds
        self._open_session = open_session
        self._answered_at: dict[str, float] = {}
        """Pod's uid -> when its monitor answered last, or was first seen to run; of a gateway, the former."""
        self._answers: dict[str, tuple[bytes, MonitorReport]] = {}
        """Pod's uid -> digest of its monitor's last answer, and the report in it: most answers are the one before."""
        self._unanswered: set[str] = set()
        """uids of pods whose monitor did not answer the last request."""
        self._connections = asyncio.Semaphore(CONCURRENCY)
        self._turns: dict[str, asyncio.Task[None]] = {}
        """Namespace -> its turn, while that runs."""
        self.first_round = asyncio.Event()
        """Set after the first round: before it, a missing report means nothing."""

    async def run(self) -> None:
        """Poll until cancelled."""
        async with self._open_session() as session:
            try:
                while True:
                    await self.poll_all(session)
                    self.first_round.set()
                    await asyncio.sleep(self._interval * self._rand.uniform(0.8, 1.2))
            finally:
                await self.close()

    async def close(self) -> None:
        """Cancel the turns that run."""
        for turn in self._turns.values():
            turn.cancel()
        await asyncio.gather(*self._turns.values(), return_exceptions=True)

    async def poll_all(self, session: aiohttp.ClientSession) -> None:
        """Poll all pods that have an address, once; drop the reports of pods that are gone."""
        pods_to_poll = self._monitors.list_pods()
        self._forget_except({pod.uid for pod in pods_to_poll})
        pods = [pod for pod in pods_to_poll if pod.facts.ip and not pod.facts.terminating]
        for namespace, pods_of_namespace in groupby(sorted(pods, key=_get_namespace), key=_get_namespace):
            if namespace not in self._turns:
                self._turns[namespace] = asyncio.create_task(self._poll_namespace(session, list(pods_of_namespace)))
        if self._turns:
            await asyncio.wait(self._turns.values(), timeout=self._round_seconds)
        for namespace in [namespace for namespace, turn in self._turns.items() if turn.done()]:
            if error := self._turns.pop(namespace).exception():
                # An unexpected answer in one namespace must not stop the others.
                log.error("Monitors of namespace %s could not be polled", namespace, exc_info=error)
        for key in list(self._observer.crs):
            self._refresh_pool(key)
        self._monitors.drop_stale_pools()

    def _forget_except(self, uids: set[str]) -> None:
        """Drop what is stored of pods that are gone or not polled any more.

        Else their last report would count for ever.
        """
        self._unanswered &= uids
        by_uid: tuple[dict[str, Any], ...] = (self._answered_at, self._answers)
        for values in by_uid:
            for uid in values.keys() - uids:
                del values[uid]
        self._monitors.drop_stale_pods(uids)

    async def _poll_namespace(self, session: aiohttp.ClientSession, pods: list[ServingPod]) -> None:
        """Poll a namespace's pods, those that answered last time first: so a dead node's pods delay no others."""
        start = self._clock()
        share = asyncio.Semaphore(CONCURRENCY // SHARES)

        async def poll(pod: ServingPod) -> None:
            async with share, self._connections:
                if pod.deployment and is_stopped(pod.facts):
                    self._ignore(pod)
                elif pod.deployment:
                    await self._poll_report(session, pod)
                    await self._poll_outcomes(session, pod)
                elif pod.is_gateway:
                    await self._poll_data_state(session, pod)
                else:
                    await self._poll_progress(session, pod)

        pods.sort(key=lambda pod: pod.uid in self._unanswered)
        await asyncio.gather(*map(poll, pods))
        for pod in pods:
            if pod.deployment:
                self._record_silence(pod, start)

    def _ignore(self, pod: ServingPod) -> None:
        """Count a pod whose monitor does not run as silent: another container of it may listen on the port."""
        self._unanswered.add(pod.uid)
        self._monitors.forget_user_requests(pod)

    async def _poll_report(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        self._unanswered.add(pod.uid)
        read = partial(self._read_report, pod.uid)
        report = await self._fetch(session, pod, "/verdict", MonitorReport, MAX_REPORT_BYTES, read=read)
        if report is None or report.revision != pod.facts.revision:
            self._monitors.forget_user_requests(pod)
        if report is None:
            return
        try:
            if report is not self._monitors.reports.get(pod.uid):  # What is stored was checked.
                check_report(report)
        except ContractError as error:
            log.warning("Report of pod %s/%s was invalid and ignored: %s", pod.namespace, pod.name, error)
            return
        self._unanswered.discard(pod.uid)
        if report.revision != pod.facts.revision:
            where = pod.namespace, pod.name
            log.warning("Monitor of pod %s/%s reports another revision: %.80r", *where, report.revision)
            return
        self._answered_at[pod.uid] = self._clock()
        self._monitors.store_report(pod, report)

    def _record_silence(self, pod: ServingPod, round_start: float) -> None:
        """Replace the report of a pod that is silent for too long, measured up to the start of the round."""
        answered_at = self._answered_at.get(pod.uid)
        if answered_at is None and should_answer(pod.facts):
            self._answered_at[pod.uid] = self._clock()
        elif answered_at is not None and round_start - answered_at >= SILENT_SECONDS:
            self._monitors.store_report(
                pod, build_silent_report(self._monitors.reports.get(pod.uid), pod.facts, pod.namespace)
            )

    async def _poll_outcomes(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        key = DeploymentKey(pod.namespace, pod.deployment)
        since = self._pools.find_start(key, pod.name)
        if since is None:
            return
        page = await self._fetch(session, pod, f"/outcomes?since={since}", OutcomePage, MAX_PAGE_BYTES)
        try:
            if page is not None:
                self._pools.fold_page(key, pod.name, page)
        except ContractError as error:
            log.warning("Outcomes of pod %s/%s were invalid and ignored: %s", pod.namespace, pod.name, error)

    async def _poll_progress(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        """Poll how far a Job has filled a volume; a Job that has ended reports it in its status."""
        if any(c.name == names.CONTAINER_FILL and c.exit_code is not None for c in pod.facts.containers):
            return
        progress = await self._fetch(session, pod, PROGRESS_PATH, FillProgress, MAX_REPORT_BYTES)
        if progress is not None:
            self._monitors.store_progress(pod, progress)

    async def _poll_data_state(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
        state = await self._fetch(session, pod, DATA_PATH, DataState, MAX_STATE_BYTES, self._gateway_port)
        if state is not None:
            self._answered_at[pod.uid] = self._clock()
        elif self._clock() - self._answered_at.get(pod.uid, -math.inf) < DATA_STATE_SECONDS:
            return
        self._monitors.store_data_state(pod, state)

    async def _fetch(
        self,
        session: aiohttp.ClientSession,
        pod: ServingPod,
        path: str,
        kind: type[T],
        most: int,
        port: int = 0,
        read: Callable[[bytes], T] | None = None,
    ) -> T | None:
        """Return the pod's answer, of its monitor if no port is named; None if there is none that can be read."""
        read = read or partial(loads, kind, tolerant=True)
        host = f"[{pod.facts.ip}]" if ":" in pod.facts.ip else pod.facts.ip
        try:
            async with session.get(f"http://{host}:{port or self._port}{path}", allow_redirects=False) as response:
                response.raise_for_status()
                return read(await _read_bounded(response, kind.__name__, most))
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError) as error:
            log.debug("Pod %s/%s did not answer %s: %s", pod.namespace, pod.name, path, error)
            return None

    def _read_report(self, uid: str, body: bytes) -> MonitorReport:
        """Return the report of a pod's answer; the same object as the last time where the answer is the same."""
        digest = hashlib.blake2b(body, digest_size=16).digest()
        answer = self._answers.get(uid)
        if answer is None or answer[0] != digest:
            answer = self._answers[uid] = digest, loads(MonitorReport, body, tolerant=True)
        return answer[1]

    def _refresh_pool(self, key: DeploymentKey) -> None:
        """Store what a deployment's pool shows now, and enqueue the deployment if that is news."""
        signal = self._pools.read_view(key, lambda: self._monitors.list_sweeps(key))
        view, is_news = signal if signal else (None, False)
        self._monitors.store_pool(key, view, is_news=is_news)


def _get_namespace(pod: ServingPod) -> str:
    return pod.namespace


async def _read_bounded(response: aiohttp.ClientResponse, what: str, most: int) -> bytes:
    """Read a body of at most `most` bytes, else raise ContractError: a compromised pod must not fill our memory."""
    body = await read_at_most(response.content.iter_chunked(16 * 1024), most + 1)
    if len(body) > most:
        raise ContractError(f"{what}: larger than {most} bytes")
    return body
