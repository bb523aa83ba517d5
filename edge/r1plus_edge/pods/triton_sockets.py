"""Triton's endpoints on one machine: Unix sockets in a folder that only its user may enter.

Callers of Triton are not authenticated; in a cluster network policies choose them. Ports of loopback are open to all
users of a machine and to pages in their browsers, and so is a key among a process' options.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract import names
from r1plus_contract.metrics import ENGINE_RUNNING_REQUESTS, ENGINE_SCHEMA_USED_RATIO, ENGINE_WAITING_REQUESTS
from r1plus_edge.pods.probes import open_answer
from r1plus_operator.plan.podspec.pod import GRACE_SECONDS, HUNG_LOOKS, PRESTOP_SECONDS

_HTTP, _GRPC, _METRICS = "http.sock", "grpc.sock", "metrics.sock"
OPTIONS: Final = tuple(
    f"--{kind}-address=unix:{name}" for kind, name in (("http", _HTTP), ("grpc", _GRPC), ("metrics", _METRICS))
)
"""Of tritonserver, in whose working directory the sockets are: the kernel takes 107 bytes for a path."""
_GAUGES: Final = (ENGINE_RUNNING_REQUESTS, ENGINE_WAITING_REQUESTS)
_LOOK_SECONDS: Final = 1.0


def find_sockets(folder: Path) -> Mapping[int, Path]:
    """Return port in the pod -> socket, where `folder` is Triton's working directory."""
    return {
        names.PORT_HTTP: folder / _HTTP,
        names.PORT_GRPC: folder / f"{_GRPC}:{names.PORT_GRPC}",  # gRPC takes address and port for one path.
        names.PORT_TRITON_METRICS: folder / _METRICS,
    }


@dataclass(frozen=True, slots=True)
class Drain:
    """The wait for requests before SIGTERM: what the plan's preStop hook does in a cluster, by bash and ports."""

    metrics: Path
    """Triton's socket."""
    seconds: float
    """Longest wait for requests, after callers had time to leave."""
    answer_seconds: float = 10.0
    clock: Callable[[], float] = time.monotonic

    async def wait(self) -> None:
        """Return when no request runs or waits, or the time is up. A server that is gone or hangs is not waited for."""
        await asyncio.sleep(PRESTOP_SECONDS)
        await self.wait_for_requests()

    async def wait_for_requests(self) -> None:
        """The same, where no caller comes any more."""
        deadline, hung = self.clock() + self.seconds, 0
        while self.clock() < deadline:
            try:
                async with asyncio.timeout(self.answer_seconds):
                    if not await self._has_requests():
                        return
                hung = 0
            except TimeoutError:
                hung += 1
                if hung == HUNG_LOOKS:
                    return
            except (OSError, ValueError):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _has_requests(self) -> bool:
        """Return whether a gauge of the engine is above 0. Raises OSError, ValueError: it breaks off, or is no text."""
        return any(value > 0 for value in await _read_gauges(self.metrics, _GAUGES))


async def read_schema_share(metrics: Path) -> float | None:
    """Return which part of the memory for compiled schemas is used; None: the engine does not say."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            return max(await _read_gauges(metrics, (ENGINE_SCHEMA_USED_RATIO,)), default=None)
    except (TimeoutError, OSError, ValueError):
        return None


async def _read_gauges(metrics: Path, gauges: tuple[str, ...]) -> list[float]:
    """Return the values of Triton's gauges. Raises OSError, ValueError: the answer breaks off, or is no text."""
    values = []
    async with open_answer(metrics, "/metrics") as reader:
        async for line in reader:
            name, _, value = line.decode().strip().rpartition(" ")
            if name.startswith(gauges):
                values.append(float(value))
    return values


def build_drain(spec: Mapping[str, object], sockets: Mapping[int, Path]) -> Drain:
    """Return the wait of a pod that the plan rendered; `spec`: the pod's."""
    seconds = spec.get("terminationGracePeriodSeconds", 0)
    assert isinstance(seconds, int)
    return Drain(sockets[names.PORT_TRITON_METRICS], seconds - GRACE_SECONDS)
