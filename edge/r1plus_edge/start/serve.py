"""`r1plus serve`: one deployment on this machine, from its engine's files to its gateway, until it is cancelled.

The start has steps, each told with its time. Then the plan's passes go on: they see a process that ended, a monitor
that reports a drop, a gate that is decided.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.process.streams import read_at_most
from r1plus_contract.verdict import MonitorReport
from r1plus_edge.control import OwnerVerb, listen_for_requests
from r1plus_edge.controller import Controller
from r1plus_edge.data_folder import DataFolder, hold, open_data_folder
from r1plus_edge.errors import EdgeError
from r1plus_edge.gateway import END_SECONDS, EdgeGateway
from r1plus_edge.objects import Objects
from r1plus_edge.pods.confinement import find_refusals
from r1plus_edge.pods.guardian import END
from r1plus_edge.pods.images import Images, find_images
from r1plus_edge.pods.places import LOOPBACK
from r1plus_edge.pods.processes import check_unmarked, measure_processor, remove_remains
from r1plus_edge.progress import StartProgress
from r1plus_edge.report import Narrator, Reporter, ServePhase
from r1plus_edge.start.listening import Listening, open_listener
from r1plus_edge.start.machine import LocalMachine, await_clock, check_machine, describe_node, read_machine
from r1plus_edge.start.options import ServeOptions
from r1plus_edge.start.preparation import prepare_triton
from r1plus_edge.update.handover import Handover, HandoverKind, become, return_handover
from r1plus_edge.update.request import (
    UpdateRecord,
    UpdateRequest,
    UpdateResult,
    load_record,
    save_record,
    settle_interrupted,
)
from r1plus_edge.update.takeover import TakeOver
from r1plus_edge.update.trial import adopt_trial, load_own_objects, remove_trial
from r1plus_edge.update.updater import Updater
from r1plus_edge.world import Installation, Preparation, prepare
from r1plus_model_repo.importing.triton_server import SERVER_VERSION
from r1plus_operator.plan.revision.storage import read_revisions

log = logging.getLogger(__name__)
REPORT_SECONDS: Final = 2.0
MOST_REPORT_BYTES: Final = 256 * 1024
BUSY_SECONDS, IDLE_SECONDS = 0.5, 10.0
"""Between two passes, while something is on its way and while all is steady. A pod that changes starts one at once."""
_HEED_SECONDS: Final = 0.01
"""Some turns of the event loop: it reads a signal in one, and acts on it in the next."""
POD_END_SECONDS: Final = 1.0
"""Grace of serving pods when `serve` ends: Triton has nothing to save, and its gateway is gone."""


async def serve(options: ServeOptions, narrator: Narrator, handover: Handover | None = None) -> None:
    """Serve until this is cancelled; then nothing of it is left running.

    `handover`: what the release says that has started this one. After an update to other software this process is that.

    Raises:
        EdgeError: this machine cannot serve it.
    """
    with ExitStack() as stack:
        try:
            check_unmarked()
            folder = open_data_folder(options.data)
            lock = stack.enter_context(hold(folder))
            front = stack.enter_context(open_front(options.listening, handover))
        except Exception as error:
            if handover is not None and handover.kind is HandoverKind.FORWARD:
                return_handover(handover, str(error), options.words)
            raise
        with guard(folder):
            following = await _serve(options, narrator, folder, front)
        await heed_signals()
        while following is not None:
            following = replace(following, listener=front.listener.fileno())
            software = Path(following.former if following.kind is HandoverKind.BACK else following.request.software)
            descriptors = (lock, following.listener, *filter(None, (following.asker,)))
            try:
                become(software, options.words, following, descriptors)
            except OSError as error:
                if following.kind is HandoverKind.BACK:
                    raise EdgeError(f"{software}: cannot be started: {error.strerror}; start it again") from error
                following = following.go_back(f"{software} cannot be started: {error.strerror}")


@dataclass(frozen=True, slots=True)
class Front:
    """Where callers connect, and whether another release has had them before."""

    listener: socket.socket
    handover: Handover | None
    takeover: TakeOver | None


@contextmanager
def open_front(listening: Listening, handover: Handover | None) -> Iterator[Front]:
    """Have a socket that listens for the block: the one that another release hands over, else a new one.

    Raises:
        EdgeError: the port is taken.
    """
    is_takeover = handover is not None and handover.kind is not HandoverKind.TRIAL
    own = socket.socket(fileno=handover.listener) if handover and is_takeover else open_listener(listening)
    with own as listener:
        yield Front(listener, handover, TakeOver(handover) if handover and is_takeover else None)


async def heed_signals() -> None:
    """Let the loop act on signals that came while it did not run: in other software they would be lost."""
    await asyncio.sleep(_HEED_SECONDS)


async def _serve(options: ServeOptions, narrator: Narrator, folder: DataFolder, front: Front) -> Handover | None:
    """Serve until this is cancelled, or until other software has to go on; return what that gets to know."""
    request, takeover = options.request, front.takeover
    reporter = Reporter(folder.status, narrator, measure_processor=lambda: measure_processor(folder.root))
    try:
        await await_clock(lambda text: _tell_wait(reporter, text))
        reporter.update(
            message="",
            confinement=find_refusals(folder.pods),
            deployment=request.name,
            tier=request.spec.tier.value,
            threshold=float(request.spec.accuracy.threshold),
            pid=os.getpid(),
            started_at=time.time(),
        )
        return await _run(options, folder, reporter, front)
    except Exception as error:
        reporter.update(message=str(error))
        if takeover is None or takeover.is_done:
            raise
        if takeover.handover.kind is HandoverKind.FORWARD:
            narrator.note(f"The new software does not serve, and goes back: {error}")
            return takeover.handover.go_back(str(error))
        takeover.tell(UpdateResult(False, f"Fail, and nothing serves: {takeover.handover.problem}; then: {error}"))
        raise
    finally:
        reporter.update(phase=ServePhase.STOPPED, pid=0)


async def _run(options: ServeOptions, folder: DataFolder, reporter: Reporter, front: Front) -> Handover | None:
    if killed := remove_remains(folder.root, folder.pods):
        reporter.narrator.note(
            f"An earlier r1plus serve was killed; ended the {len(killed)} processes that it had left"
        )
    installation = await _install(options, folder, reporter, front.takeover)
    if front.takeover is not None and front.takeover.handover.kind is HandoverKind.FORWARD:
        adopt_trial(folder)
    remove_trial(folder)
    objects = _load(folder, installation.images, reporter)
    record, preparation = await _prepare(options, installation, objects, reporter, front.handover)
    images, wake, request = installation.images, asyncio.Event(), preparation.request
    config = preparation.world.config
    world = front.takeover.restrict(preparation.world) if front.takeover is not None else preparation.world
    gateway = EdgeGateway(
        folder,
        request.namespace,
        options.listening,
        images,
        config,
        wake.set,
        options.tenant,
        options.cache,
        reporter.narrator.note,
        front.listener,
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REPORT_SECONDS)) as session:
        read = _ReportReader(session).read
        controller = Controller(folder, objects, request, world, images, read, wake)
        controller.ask_for(request, world)
        updater = Updater(controller, installation, options, record, reporter, is_busy=front.takeover is not None)
        serving = asyncio.create_task(_run_gateway(gateway, front.takeover))
        progress = StartProgress(reporter, options.listening, lambda: gateway.has_key)
        try:
            acts = {OwnerVerb.CONFIRM_TIME: gateway.confirm_time, OwnerVerb.SIGN_TOKEN: gateway.sign_token}
            async with listen_for_requests(folder, updater.run, acts):
                await _follow(controller, gateway, session, progress, updater, front.takeover)
            return updater.handover
        finally:
            reporter.update(phase=ServePhase.STOPPING)
            if updater.handover is not None:
                await gateway.drain()
            await controller.end(POD_END_SECONDS, asyncio.create_task(gateway.pod.end(END_SECONDS)))
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            gateway.pod.remove()


async def _run_gateway(gateway: EdgeGateway, takeover: TakeOver | None) -> None:
    """Run the gateway; after other software only when there is a pod for the callers that wait."""
    if takeover is not None:
        await takeover.may_listen.wait()
    await gateway.run()


async def _follow(
    controller: Controller,
    gateway: EdgeGateway,
    session: aiohttp.ClientSession,
    progress: StartProgress,
    updater: Updater,
    takeover: TakeOver | None,
) -> None:
    """Run passes until cancelled, or until other software has to go on; let the gateway and an update follow them.

    Raises:
        EdgeError: this software has taken over, and does not come up.
    """
    while updater.handover is None:
        controller.wake.clear()
        try:
            await _run_pass(controller, gateway)
        except OSError as error:
            log.error("A pass failed, and is tried again: %s", error)
            await asyncio.sleep(IDLE_SECONDS)
            continue
        is_routing = gateway.pod.is_ready and await gateway.count_pods(session) > 0
        data = await gateway.read_data_state(session)
        is_steady = progress.tell(controller, gateway, data, is_routing=is_routing) and gateway.has_key
        updater.notice_pass()
        if takeover is not None:
            is_serving = is_routing and controller.serving_pod is not None
            if result := takeover.notice_pass(controller, is_serving=is_serving):
                updater.is_busy = False
                progress.note(f"Update: {result.text}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS if is_steady else BUSY_SECONDS):
                await controller.wake.wait()


async def _run_pass(controller: Controller, gateway: EdgeGateway) -> None:
    """Let what runs be what the plan wants, and the gateway follow it. Raises OSError, as for a full disk."""
    await controller.run_pass()
    gateway.set_model(controller.build_model())
    if not gateway.has_key and gateway.pod.is_ready:
        await gateway.ensure_key()


async def _install(
    options: ServeOptions, folder: DataFolder, reporter: Reporter, takeover: TakeOver | None
) -> Installation:
    """Check the machine, and make Triton if it is missing."""
    with reporter.time_step("machine") as step:
        machine = read_machine(folder.root)
        check_start(machine, folder.root, takeover)
        step.detail = machine.text
    with reporter.time_step("triton") as step:
        server = await prepare_triton(options.cache, folder.root, _tell_to(reporter))
        step.detail = f"tritonserver {SERVER_VERSION} in {server}"
    return Installation(folder, find_images(server), describe_node(machine))


def check_start(machine: LocalMachine, folder: Path, takeover: TakeOver | None) -> None:
    """Refuse a machine on which nothing here can run.

    What takes over has had its trial here, and what goes back has served here. For a disk that has become fuller since
    then, both would end, and nothing would serve.
    """
    if takeover is None:
        check_machine(machine, folder)


async def _prepare(
    options: ServeOptions,
    installation: Installation,
    objects: Objects,
    reporter: Reporter,
    handover: Handover | None = None,
) -> tuple[UpdateRecord, Preparation]:
    """Make what the options need, with the update that is in force on them; after other software, with its request."""
    folder, revisions = installation.folder, read_revisions(objects.children)
    stored = load_record(folder.update, options.digest)
    record = settle_interrupted(stored, revisions)
    if handover is not None and handover.kind is not HandoverKind.BACK:
        stored = record = UpdateRecord(options.digest, replace(handover.request, software=""))
        options = options.reread(record.in_force)
    elif record.in_force != UpdateRequest():
        try:
            options = options.reread(record.in_force)
            reporter.narrator.note("           an update is in force; other options than at its time undo it")
        except EdgeError as error:
            reporter.narrator.note(f"The update that was in force is not any more: {error}")
            record = UpdateRecord(record.origin)
    if stored.pending is not None and record.in_force != stored.pending:
        reporter.narrator.note("An update was interrupted before it took traffic; repeat it with `r1plus serve update`")
    with reporter.time_step("engine") as step:
        preparation = await prepare(options, installation, revisions, _tell_to(reporter))
        step.detail = f"{preparation.target.engine.name} in {preparation.files}"
    save_record(folder.update, record)
    return record, preparation


def _tell_wait(reporter: Reporter, text: str) -> None:
    reporter.update(message=text, pid=os.getpid())
    reporter.narrator.note(text)


def _tell_to(reporter: Reporter) -> Callable[[str], None]:
    return lambda line: reporter.narrator.note(f"           {line}")


def _load(folder: DataFolder, images: Images, reporter: Reporter) -> Objects:
    objects, is_former = load_own_objects(folder, images)
    if is_former:
        reporter.narrator.note("Other software has served meanwhile; what this one had recorded before holds again")
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
