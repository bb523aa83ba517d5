"""A model's pod as a process that a test kills: it emits tokens on a timetable, and answers for its monitor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from support.apiserver.process import PythonProcess
from support.paths import TESTS
from support.ports import free_port
from support.waiting import eventually


@dataclass(frozen=True)
class Port:
    """Where something listens on loopback."""

    port: int


class PodProcess(PythonProcess):
    """`bench.gateway.timetable`. A prompt is `NAME TOKENS GAP_MS`; each token is one word."""

    def __init__(self, folder: Path) -> None:
        grpc, http = free_port(), free_port()
        super().__init__(folder / "pod.log", "bench.gateway.timetable", "--grpc", str(grpc), "--http", str(http))
        self.port = grpc
        self.monitor = Port(http)

    @property
    def environment(self) -> dict[str, str]:
        """With the benches, also where a test is run alone."""
        return {**super().environment, "PYTHONPATH": str(TESTS)}

    async def answers(self) -> bool:
        """Return whether it serves."""
        try:
            url = f"http://127.0.0.1:{self.monitor.port}/verdict"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def running_pod(folder: Path) -> AsyncIterator[PodProcess]:
    """Run such a pod."""
    pod = PodProcess(folder)
    pod.start()
    try:
        await eventually(pod.answers, "the pod answers")
        yield pod
    finally:
        pod.kill()
