"""The checks of a container's probes, as the plan renders them: an HTTP request, or a command."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from r1plus_edge.places import LOOPBACK, Places

PERIOD_SECONDS, TIMEOUT_SECONDS, FAILURES = 10.0, 1.0, 3
"""Kubernetes' defaults."""
MOST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of a container, on this machine."""

    period: float
    timeout: float
    failures: int
    """In a row, after which it has failed."""
    path: str = ""
    port: int = 0
    command: tuple[str, ...] = ()
    """Instead of path and port."""

    async def check(self, environment: Mapping[str, str], folder: Path = Path("/")) -> str:
        """Ask once, a command in the container's working directory; return why it fails, empty if it does not."""
        try:
            async with asyncio.timeout(self.timeout):
                return await (_run(self.command, environment, folder) if self.command else _get(self.port, self.path))
        except TimeoutError:
            return f"no answer in {self.timeout:g} s"
        except OSError as error:  # This machine has no room for a process.
            return f"it cannot be asked: {error.strerror or error}"


def read_probe(container: Mapping[str, Any], name: str, places: Places) -> Probe | None:
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
        return Probe(period, timeout, failures, command=command)
    request = probe["httpGet"]
    port = next(one["containerPort"] for one in container["ports"] if one["name"] == request["port"])
    return Probe(period, timeout, failures, request["path"], places.ports[port])


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


async def _get(port: int, path: str) -> str:
    """Ask a server of our own on loopback, by HTTP/1.0: a client library would be most of this process' memory."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError as error:
        return f"port {port}: {error.strerror or error}"
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
        status = (await reader.readline()).split()
        return "" if len(status) > 1 and status[1] == b"200" else f"HTTP {b' '.join(status[1:2]).decode() or 'none'}"
    except (OSError, ValueError) as error:
        return f"port {port}: {error}"
    finally:
        writer.close()
