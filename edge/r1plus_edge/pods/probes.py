"""The checks of a container's probes, as the plan renders them: an HTTP request, or a command.

Triton listens at Unix sockets here, which bash, in which the plan writes the check of its readiness, does not know. So
this process makes that check: by the admission token, the engine's heartbeat, and the model's own readiness.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from r1plus_contract import names
from r1plus_contract.engine.heartbeat import HEARTBEAT, describe_lateness, measure_lateness
from r1plus_contract.inference import MODEL_NAME
from r1plus_contract.monitor.admission import TOKEN_FILE
from r1plus_edge.pods.places import LOOPBACK, PodPlaces, short_path

PERIOD_SECONDS, TIMEOUT_SECONDS, FAILURES = 10.0, 1.0, 3
"""Kubernetes' defaults."""
MOST_TEXT: Final = 500
NOT_ADMITTED: Final = "no admission token for this identity: the gate has not passed"


@dataclass(frozen=True, slots=True)
class ContainerProbe:
    """One probe of a container, on this machine."""

    period: float
    timeout: float
    failures: int
    """In a row, after which it has failed."""
    path: str = ""
    port: int = 0
    socket: Path | None = None
    """Instead of the port."""
    token: Path | None = None
    """File whose first line has to be the identity in the environment, before the server is asked."""
    heartbeat: Path | None = None
    """The engine's, which has to be on time, before the server is asked."""
    command: tuple[str, ...] = ()
    """Instead of all these."""

    async def check(self, environment: Mapping[str, str], folder: Path = Path("/")) -> str:
        """Ask once, a command in the container's working directory; return why it fails, empty if it does not."""
        if self.token is not None and not _is_admitted(self.token, environment):
            return NOT_ADMITTED
        if self.heartbeat is not None and (late := measure_lateness(self.heartbeat)):
            return describe_lateness(late)
        try:
            async with asyncio.timeout(self.timeout):
                return await (_run(self.command, environment, folder) if self.command else self._ask())
        except TimeoutError:
            return f"no answer in {self.timeout:g} s"
        except OSError as error:  # This machine has no room for a process.
            return f"it cannot be asked: {error.strerror or error}"

    async def _ask(self) -> str:
        try:
            async with open_answer(self.socket or self.port, self.path) as reader:
                status = (await reader.readline()).split(maxsplit=2)
        except (OSError, ValueError) as error:  # ValueError: a line without an end.
            return f"{self.socket.name if self.socket else f'port {self.port}'}: {error}"
        if status[1:2] == [b"200"]:
            return ""
        what = "the model is not ready: " if self.token else "the server is not live: " if self.heartbeat else ""
        return f"{what}HTTP {b' '.join(status[1:2]).decode(errors='replace') or 'none'}"


def read_probe(container: Mapping[str, Any], name: str, places: PodPlaces) -> ContainerProbe | None:
    """Return a probe of a container; None: it has none of this name."""
    probe = container.get(name)
    if probe is None:
        return None
    period = float(probe.get("periodSeconds", PERIOD_SECONDS))
    timeout, failures = (
        float(probe.get("timeoutSeconds", TIMEOUT_SECONDS)),
        int(probe.get("failureThreshold", FAILURES)),
    )
    if "exec" in probe:
        command = tuple(places.translate_command(probe["exec"]["command"]))
        return ContainerProbe(period, timeout, failures, command=command)
    request = probe["httpGet"]
    port = next(one["containerPort"] for one in container["ports"] if one["name"] == request["port"])
    if port in places.sockets:
        return ContainerProbe(period, timeout, failures, request["path"], socket=places.sockets[port])
    return ContainerProbe(period, timeout, failures, request["path"], places.ports[port])


def build_readiness(probe: ContainerProbe, places: PodPlaces) -> ContainerProbe:
    """Return the probe of Triton's readiness that asks at its socket what the plan's script asks at its port."""
    path, token = f"/v2/models/{MODEL_NAME}/ready", places.find(names.DIR_ADMISSION) / TOKEN_FILE
    return replace(build_liveness(probe, places), path=path, token=token)


def build_liveness(probe: ContainerProbe, places: PodPlaces) -> ContainerProbe:
    """Return the probe of Triton's liveness; the same, and for a template of an older version too."""
    socket, heartbeat = places.sockets[names.PORT_HTTP], places.find(HEARTBEAT)
    return replace(probe, path="/v2/health/live", socket=socket, heartbeat=heartbeat, command=())


def _is_admitted(token: Path, environment: Mapping[str, str]) -> bool:
    try:
        with token.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == environment[names.ENV_IDENTITY]
    except (OSError, ValueError):
        return False


async def _run(command: tuple[str, ...], environment: Mapping[str, str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    text = output.decode(errors="replace").strip()[-MOST_TEXT:]
    return "" if process.returncode == 0 else text or f"status {process.returncode}"


@asynccontextmanager
async def open_answer(server: Path | int, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Have the answer of a server of our own to a GET by HTTP/1.0, head and all, for the block.

    `server`: a socket, or a port of loopback. A client library would be most of this process' memory.

    Raises:
        OSError: it does not listen, or breaks off.
    """
    if isinstance(server, Path):
        with short_path(server) as short:
            reader, writer = await asyncio.open_unix_connection(short)
    else:
        reader, writer = await asyncio.open_connection(LOOPBACK, server)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
        yield reader
    finally:
        writer.close()
