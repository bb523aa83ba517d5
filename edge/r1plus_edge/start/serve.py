"""A deployment on this machine, from its engine's files to its gateway, until it is cancelled.

The start has steps, each told with its time. Then the plan's passes go on: they see a process that ended, a monitor
that reports a drop, a gate that is decided. Called by `update.supervisor`, which may replace all of it.
"""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.process.streams import read_at_most
from r1plus_contract.verdict import MonitorReport
from r1plus_edge.controller import Controller
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.gateway import END_SECONDS, EdgeGateway
from r1plus_edge.objects import Objects
from r1plus_edge.pods.guardian import END
from r1plus_edge.pods.images import Images, find_images
from r1plus_edge.pods.places import LOOPBACK
from r1plus_edge.pods.processes import remove_remains
from r1plus_edge.progress import StartProgress
from r1plus_edge.report import Reporter, ServePhase
from r1plus_edge.start.deployment import ServeRequest
from r1plus_edge.start.machine import LocalMachine, check_machine, describe_node, read_machine
from r1plus_edge.start.options import ServeOptions
from r1plus_edge.start.preparation import prepare_triton
from r1plus_edge.world import Installation, Preparation, World, prepare
from r1plus_model_repo.importing.triton_server import SERVER_VERSION
from r1plus_operator.plan.revision.record import Revision

log = logging.getLogger(__name__)
REPORT_SECONDS: Final = 2.0
MOST_REPORT_BYTES: Final = 256 * 1024
BUSY_SECONDS, IDLE_SECONDS = 0.5, 10.0
"""Between two passes, while something is on its way and while all is steady. A pod that changes starts one at once."""
POD_END_SECONDS: Final = 1.0
"""Grace of serving pods when `serve` ends: Triton has nothing to save, and its gateway is gone."""


async def install(
    options: ServeOptions,
    folder: DataFolder,
    reporter: Reporter,
    check: Callable[[LocalMachine, Path], None] = check_machine,
) -> Installation:
    """Check the machine, and make Triton if it is missing. Raises EdgeError: nothing can be served here."""
    with reporter.time_step("machine") as step:
        machine = read_machine(folder.root)
        check(machine, folder.root)
        step.detail = machine.text
    with reporter.time_step("triton") as step:
        server = await prepare_triton(options.cache, folder.root, tell_to(reporter))
        step.detail = f"tritonserver {SERVER_VERSION} in {server}"
    return Installation(folder, find_images(server), describe_node(machine))


def drop_other_images(objects: Objects, images: Images, reporter: Reporter) -> None:
    """Drop the revisions that software ran which is not here any more."""
    for name in objects.drop_other_images(images.of_model):
        reporter.narrator.note(f"Revision {name} ran other software, which is not here any more; the gate runs again")


async def prepare_engine(
    options: ServeOptions, installation: Installation, revisions: Mapping[str, Revision], reporter: Reporter
) -> Preparation:
    """Make what the options need. Raises EdgeError: it cannot be served here, or its files cannot be made."""
    with reporter.time_step("engine") as step:
        preparation = await prepare(options, installation, revisions, tell_to(reporter))
        step.detail = f"{preparation.target.engine.name} in {preparation.files}"
    return preparation


class Notice(Protocol):
    """What hears of each pass."""

    def __call__(self, *, is_serving: bool) -> None:
        """`is_serving`: whether callers reach a pod."""


@dataclass(slots=True)
class Serving:
    """What runs between start and end: the plan's passes, and the gateway that follows them."""

    controller: Controller
    gateway: EdgeGateway
    reporter: Reporter
    progress: StartProgress
    session: aiohttp.ClientSession
    is_drained_at_end: bool = False
    """Whether requests that run are answered before the end, since other software takes those that wait."""

    async def follow(self, notice: Notice, is_over: Callable[[], bool]) -> None:
        """Run passes until cancelled, or until `is_over` after one. Raises what `notice` raises."""
        controller, gateway = self.controller, self.gateway
        while not is_over():
            controller.wake.clear()
            try:
                await self._run_pass()
            except OSError as error:
                log.error("A pass failed, and is tried again: %s", error)
                await asyncio.sleep(IDLE_SECONDS)
                continue
            is_routing = gateway.pod.is_ready and await gateway.count_pods(self.session) > 0
            data = await gateway.read_data_state(self.session)
            is_steady = self.progress.tell(controller, gateway, data, is_routing=is_routing) and gateway.has_key
            notice(is_serving=is_routing and controller.serving_pod is not None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS if is_steady else BUSY_SECONDS):
                    await controller.wake.wait()

    async def _run_pass(self) -> None:
        """Let what runs be what the plan wants, and the gateway follow it. Raises OSError, as for a full disk."""
        controller, gateway = self.controller, self.gateway
        await controller.run_pass()
        gateway.set_model(controller.build_model())
        if not gateway.has_key and gateway.pod.is_ready:
            await gateway.ensure_key()

    async def end(self) -> None:
        """End all pods, those of callers last."""
        if self.is_drained_at_end:
            await self.gateway.drain()
        await self.controller.end(POD_END_SECONDS, asyncio.create_task(self.gateway.pod.end(END_SECONDS)))


@asynccontextmanager
async def open_serving(
    options: ServeOptions,
    installation: Installation,
    objects: Objects,
    request: ServeRequest,
    world: World,
    reporter: Reporter,
    listener: socket.socket,
    may_listen: asyncio.Event | None = None,
) -> AsyncIterator[Serving]:
    """Serve for the block, whose passes `follow` runs; at its end nothing runs.

    `listener`: where callers connect; `may_listen`: what the gateway waits for before it takes them.
    """
    folder, images, wake = installation.folder, installation.images, asyncio.Event()
    gateway = EdgeGateway(
        folder,
        request.namespace,
        options.listening,
        images,
        world.config,
        wake.set,
        options.tenant,
        options.cache,
        reporter.narrator.note,
        listener,
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REPORT_SECONDS)) as session:
        controller = Controller(folder, objects, request, world, images, _ReportReader(session).read, wake)
        controller.ask_for(request, world)
        progress = StartProgress(reporter, options.listening, lambda: gateway.has_key)
        serving = Serving(controller, gateway, reporter, progress, session)
        running = asyncio.create_task(_run_gateway(gateway, may_listen))
        try:
            yield serving
        finally:
            reporter.update(phase=ServePhase.STOPPING)
            await serving.end()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            gateway.pod.remove()


async def _run_gateway(gateway: EdgeGateway, may_listen: asyncio.Event | None) -> None:
    if may_listen is not None:
        await may_listen.wait()
    await gateway.run()


def tell_to(reporter: Reporter) -> Callable[[str], None]:
    """Return what tells a line below the step that runs."""
    return lambda line: reporter.narrator.note(f"           {line}")


class _ReportReader:
    """Reads reports of monitors on loopback."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def read(self, port: int) -> MonitorReport | None:
        """Return the report of the monitor at a port; None for any failure."""
        try:
            async with self._session.get(f"http://{LOOPBACK}:{port}/verdict") as response:
                text = await read_at_most(response.content.iter_chunked(64 * 1024), MOST_REPORT_BYTES)
            return loads(MonitorReport, text, tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError):
            return None


@contextmanager
def guard(folder: DataFolder) -> Iterator[None]:
    """Have a guardian for the block: if this process is killed, it ends what is left."""
    # -P: no module of the current folder, such as a medium's, in place of Python's own.
    command = [sys.executable, "-P", "-m", "r1plus_edge.pods.guardian", str(folder.root)]
    # It lives as long as this process, so it must not hold a pipe to whoever waits for our output.
    silence = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=silence, stderr=silence, start_new_session=True
    ) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            remove_remains(folder.root, folder.pods)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(END)
                process.stdin.close()
