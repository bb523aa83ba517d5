"""`r1plus serve`: one deployment on this machine, from its engine's files to its gateway, until it is cancelled.

The start has steps, each told with its time. Then the plan's passes go on: they see a process that ended, a monitor
that reports a drop, a gate that is decided.
"""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.streams import read_at_most
from r1plus_contract.verdict import MonitorReport
from r1plus_edge.controller import Controller, World
from r1plus_edge.data_folder import DataFolder, hold, open_data_folder
from r1plus_edge.deployment import Request
from r1plus_edge.engines import find_cache
from r1plus_edge.errors import EdgeError
from r1plus_edge.gateway import END_SECONDS, EdgeGateway
from r1plus_edge.guardian import END
from r1plus_edge.images import Images, find_images
from r1plus_edge.listening import Listening
from r1plus_edge.machine import check_machine, describe_node, read_machine
from r1plus_edge.objects import Objects, load_objects
from r1plus_edge.places import LOOPBACK
from r1plus_edge.preparation import prepare_engine, prepare_triton
from r1plus_edge.processes import check_unmarked, measure_processor, remove_remains
from r1plus_edge.progress import Progress
from r1plus_edge.report import Narrator, Reporter, ServePhase
from r1plus_edge.tenant import TenantRequest
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.triton_server import SERVER_VERSION
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.observation import NodeFacts, SuiteSource, VolumeFacts
from r1plus_operator.plan.settings import OperatorConfig, SuiteTrust, VolumeTerms

log = logging.getLogger(__name__)
NAMESPACE: Final = "r1plus-system"
REPORT_SECONDS: Final = 2.0
MOST_REPORT_BYTES: Final = 256 * 1024
BUSY_SECONDS, IDLE_SECONDS = 0.5, 5.0
"""Between two passes, while something is on its way and while all is steady."""
POD_END_SECONDS: Final = 1.0
"""Grace of serving pods when `serve` ends: Triton has nothing to save, and its gateway is gone."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve, with what, and where."""

    request: Request
    engines: tuple[Engine, ...]
    """Those that may be chosen."""
    suites: Mapping[str, SuiteSource]
    trust: SuiteTrust
    family: str
    """Of engines, where the spec names none."""
    data: Path
    listening: Listening
    given_engine: Path | None = None
    """Folder with the engine's files, where the user names one."""
    cache: Path = field(default_factory=find_cache)
    tenant: TenantRequest = field(kw_only=True)
    """What of the gateway is on, and what it keeps."""


async def serve(options: ServeOptions, narrator: Narrator) -> None:
    """Serve until this is cancelled; then nothing of it is left running.

    Raises:
        EdgeError: this machine cannot serve it.
    """
    check_unmarked()
    folder, request = open_data_folder(options.data), options.request
    with hold(folder), guard(folder):
        reporter = Reporter(folder.status, narrator, measure_processor=lambda: measure_processor(folder.root))
        reporter.update(
            deployment=request.name,
            tier=request.spec.tier.value,
            threshold=float(request.spec.accuracy.threshold),
            pid=os.getpid(),
            started_at=time.time(),
        )
        try:
            await _run(options, folder, reporter)
        except EdgeError as error:
            reporter.update(message=str(error))
            raise
        finally:
            reporter.update(phase=ServePhase.STOPPED, pid=0)


async def _run(options: ServeOptions, folder: DataFolder, reporter: Reporter) -> None:
    if killed := remove_remains(folder.root, folder.pods):
        reporter.narrator.note(
            f"An earlier r1plus serve was killed; ended the {len(killed)} processes that it had left"
        )
    world, images = await _prepare(options, folder, reporter)
    objects = _load(options.request, folder, images, reporter)
    wake = asyncio.Event()
    gateway = EdgeGateway(
        folder,
        options.request.namespace,
        options.listening,
        images,
        world.config,
        wake.set,
        options.tenant,
        options.cache,
        reporter.narrator.note,
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REPORT_SECONDS)) as session:
        controller = Controller(folder, objects, world, images, _ReportReader(session).read, wake)
        serving = asyncio.create_task(gateway.run())
        try:
            await _follow(controller, gateway, session, Progress(reporter, options.listening, lambda: gateway.has_key))
        finally:
            reporter.update(phase=ServePhase.STOPPING)
            await gateway.pod.end(END_SECONDS)
            await controller.end(POD_END_SECONDS)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def _follow(
    controller: Controller, gateway: EdgeGateway, session: aiohttp.ClientSession, progress: Progress
) -> None:
    """Run passes until cancelled; let the gateway follow them."""
    while True:
        controller.wake.clear()
        try:
            await _run_pass(controller, gateway)
        except OSError as error:
            log.error("A pass failed, and is tried again: %s", error)
            await asyncio.sleep(IDLE_SECONDS)
            continue
        is_routing = gateway.pod.is_ready and await gateway.count_pods(session) > 0
        is_steady = progress.tell(controller, gateway, is_routing=is_routing) and gateway.has_key
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS if is_steady else BUSY_SECONDS):
                await controller.wake.wait()


async def _run_pass(controller: Controller, gateway: EdgeGateway) -> None:
    """Let what runs be what the plan wants, and the gateway follow it. Raises OSError, as for a full disk."""
    await controller.run_pass()
    gateway.set_model(controller.build_model())
    if not gateway.has_key and gateway.pod.is_ready:
        await gateway.ensure_key()


async def _prepare(options: ServeOptions, folder: DataFolder, reporter: Reporter) -> tuple[World, Images]:
    """Check the machine, and make what is missing: Triton, and the engine that the plan chooses."""

    def tell(line: str) -> None:
        reporter.narrator.note(f"           {line}")

    with reporter.time_step("machine") as step:
        machine = read_machine(folder.root)
        check_machine(machine, folder.root)
        step.detail = machine.text
    with reporter.time_step("triton") as step:
        server = await prepare_triton(options.cache, folder.root, tell)
        step.detail = f"tritonserver {SERVER_VERSION} in {server}"
    images, node = find_images(server), describe_node(machine)
    config = build_config(options, images)
    target = _resolve(options, config, node)
    with reporter.time_step("engine") as step:
        files = await prepare_engine(target.engine, options.given_engine, options.cache, folder.root, tell)
        step.detail = f"{target.engine.name} in {files}"
    claim = _link_claim(folder, target, files)
    volume = target.volume
    assert volume is not None  # `Request` asks for one.
    facts = {volume.name: VolumeFacts(delivered_digest=volume.order.digest)}
    return World(options.engines, options.suites, node, config, facts, {volume.name: claim}), images


def build_config(options: ServeOptions, images: Images) -> OperatorConfig:
    """Return the operator's settings that hold on one machine."""
    return OperatorConfig(
        monitor_image=images.monitor,
        triton_image=images.triton,
        gateway_image=images.gateway,
        default_family=options.family,
        operator_namespace=NAMESPACE,
        monitoring_namespace=NAMESPACE,
        suite_trust=options.trust,
        # Who names the engine's folder owns the machine; its digest is verified all the same.
        volumes=VolumeTerms(require_signature=False),
    )


def _resolve(options: ServeOptions, config: OperatorConfig, node: NodeFacts) -> Target:
    """Return what the plan would serve, so that its files can be made first."""
    target = resolve(
        options.request.spec, options.engines, dict(options.suites), (node,), config, suite_names=options.suites.keys()
    )
    if isinstance(target, Problem):
        raise EdgeError(f"{target.reason.value}: {target.message}")
    return target


def _link_claim(folder: DataFolder, target: Target, files: Path) -> Path:
    """Return a folder in which `engine` is the engine's folder, as on a cluster's volume."""
    claim = folder.root / "claims" / target.engine.name
    claim.mkdir(parents=True, exist_ok=True)
    link = claim / "engine"
    link.unlink(missing_ok=True)
    link.symlink_to(files, target_is_directory=True)
    return claim


def _load(request: Request, folder: DataFolder, images: Images, reporter: Reporter) -> Objects:
    objects = load_objects(folder.objects)
    objects.ask_for(request.name, request.namespace, request.document, time.time())
    for name in objects.drop_other_images(images.of_model):
        reporter.narrator.note(f"Revision {name} ran other software, which is not here any more; the gate runs again")
    return objects


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
    command = [sys.executable, "-m", "r1plus_edge.guardian", str(folder.root)]
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
