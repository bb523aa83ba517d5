"""What a pod's monitor says of the revision that it serves, compared with what the operator wrote."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.process.connections import PLAIN, BoundedResponse, limit_responses
from r1plus_contract.process.streams import read_at_most
from r1plus_contract.verdict import MonitorReport
from r1plus_gateway.access.caller import AnswerEvidence, RevisionFigures
from r1plus_gateway.settings import RevisionFacts

UNVERIFIED: Final = AnswerEvidence(revision="", engine_digest="", verdict="unverified")
CACHE_SECONDS: Final = 2.0
FETCH_SECONDS: Final = 0.5
"""Longest wait for a report, and so of an answer for its evidence."""
MOST_ITEMS: Final = 10**6
"""Of a suite, as far as a report is believed."""
_SUITE: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
MOST_REPORT_BYTES: Final = 256 * 1024


class ReportReader(Protocol):
    """Reads reports of monitors."""

    async def __call__(self, target: str) -> MonitorReport | None:
        """Return the report of the monitor at `HOST:PORT`; None for any failure."""


class _Response(BoundedResponse, ResponseHandler):
    """One monitor's answers."""


def open_session() -> aiohttp.ClientSession:
    """Return the session for monitors, whose pods may be compromised: answers are bounded, and nothing is unpacked."""
    connector = limit_responses(aiohttp.TCPConnector(), _Response)
    jar = aiohttp.DummyCookieJar()
    return aiohttp.ClientSession(
        connector=connector, headers=PLAIN, auto_decompress=False, cookie_jar=jar, trust_env=False
    )


class MonitorReader:
    """Reads `GET /verdict` over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, seconds: float = FETCH_SECONDS) -> None:
        self._session = session
        self._seconds = seconds

    async def __call__(self, target: str) -> MonitorReport | None:
        """See `ReportReader`."""
        try:
            async with (
                asyncio.timeout(self._seconds),
                # A compromised pod could send us to an address that the gateway reaches and the pod does not.
                self._session.get(f"http://{target}/verdict", allow_redirects=False) as response,
            ):
                if response.status != 200:
                    return None
                text = await read_at_most(response.content.iter_chunked(64 * 1024), MOST_REPORT_BYTES)
            return loads(MonitorReport, text, tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError):
            return None


class EvidenceCache:
    """The evidence of one pod, at most `CACHE_SECONDS` old."""

    def __init__(self, target: str, read_report: ReportReader, clock: Callable[[], float]) -> None:
        self._target = target
        self._read_report = read_report
        self._clock = clock
        self._report: MonitorReport | None = None
        self._read_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False

    def refresh(self) -> None:
        """Begin to read the report, if the last one is too old and no read is under way."""
        if self._task is None and self._clock() - self._read_at > CACHE_SECONDS:
            self._task = asyncio.create_task(self._read())

    async def get(self, revisions: Sequence[RevisionFacts]) -> AnswerEvidence:
        """Return the evidence; waits for a read that has begun, as long as the reader does.

        A monitor that did not answer the last time delays no second request: it is read in the background.
        """
        self.refresh()
        if self._task is not None and not self._is_failing:
            await asyncio.shield(self._task)
        return match_report(self._report, revisions)

    async def _read(self) -> None:
        try:
            self._report = await self._read_report(self._target)
            self._is_failing = self._report is None
        finally:
            self._read_at = self._clock()
            self._task = None

    async def close(self) -> None:
        """End a read that has begun."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def match_report(report: MonitorReport | None, revisions: Sequence[RevisionFacts]) -> AnswerEvidence:
    """Return the evidence of a report; `UNVERIFIED` unless the operator knows this revision by this identity."""
    if report is None:
        return UNVERIFIED
    for facts in revisions:
        if facts.name == report.revision and facts.identity == report.identity:
            return AnswerEvidence(facts.name, facts.engine_digest, report.verdict.value, _read_gate(report))
    return UNVERIFIED


def _read_gate(report: MonitorReport) -> RevisionFigures | None:
    """Return the figures of the gate that the verdict rests on."""
    gate = report.gate
    # The pod's word, which becomes a header: a suite is an object of Kubernetes, and has such a name.
    if gate is None or gate.verdict is not report.verdict or not _SUITE.fullmatch(gate.suite):
        return None
    if not (0 <= gate.lost <= gate.allowed <= gate.items <= MOST_ITEMS):
        return None
    return RevisionFigures(gate.suite, gate.items, gate.lost, gate.allowed)
