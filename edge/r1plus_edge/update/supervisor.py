"""`r1plus serve`: lets `start.serve` serve, carries out updates of it, and replaces it by other software.

What serves knows nothing of updates: this gives it what is in force, hears of its passes, and ends it.
"""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from r1plus_edge.control import OwnerVerb, listen_for_requests
from r1plus_edge.data_folder import DataFolder, hold, open_data_folder
from r1plus_edge.errors import EdgeError
from r1plus_edge.objects import Objects
from r1plus_edge.pods.confinement import find_refusals
from r1plus_edge.pods.images import Images
from r1plus_edge.pods.processes import check_unmarked, measure_processor, remove_remains
from r1plus_edge.report import Narrator, Reporter, ServePhase
from r1plus_edge.start.listening import Listening, open_listener
from r1plus_edge.start.machine import LocalMachine, await_clock, check_machine
from r1plus_edge.start.serve import Serving, drop_other_images, guard, install, open_serving, prepare_engine
from r1plus_edge.update.handover import Handover, HandoverKind, become, return_handover
from r1plus_edge.update.options import UpdatableOptions
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
from r1plus_edge.world import Installation, Preparation
from r1plus_operator.plan.revision.storage import read_revisions

_HEED_SECONDS: Final = 0.01
"""Some turns of the event loop: it reads a signal in one, and acts on it in the next."""


async def serve(options: UpdatableOptions, narrator: Narrator, handover: Handover | None = None) -> None:
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


async def _serve(options: UpdatableOptions, narrator: Narrator, folder: DataFolder, front: Front) -> Handover | None:
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


async def _run(options: UpdatableOptions, folder: DataFolder, reporter: Reporter, front: Front) -> Handover | None:
    if killed := remove_remains(folder.root, folder.pods):
        reporter.narrator.note(
            f"An earlier r1plus serve was killed; ended the {len(killed)} processes that it had left"
        )
    takeover = front.takeover
    installation = await install(options, folder, reporter, partial(check_start, takeover=takeover))
    if takeover is not None and takeover.handover.kind is HandoverKind.FORWARD:
        adopt_trial(folder)
    remove_trial(folder)
    objects = _load(folder, installation.images, reporter)
    record, preparation = await _prepare(options, installation, objects, reporter, front.handover)
    world = takeover.restrict(preparation.world) if takeover is not None else preparation.world
    async with open_serving(
        options,
        installation,
        objects,
        preparation.request,
        world,
        reporter,
        front.listener,
        takeover.may_listen if takeover is not None else None,
    ) as serving:
        is_busy, controller = takeover is not None, serving.controller
        updater = Updater(controller, installation, options, record, reporter, is_busy=is_busy)
        try:
            await _attend(serving, updater, takeover)
        finally:
            serving.is_drained_at_end = updater.handover is not None
        return updater.handover


async def _attend(serving: Serving, updater: Updater, takeover: TakeOver | None) -> None:
    """Follow the passes, and take requests, until cancelled or until other software has to go on.

    Raises:
        EdgeError: this software has taken over, and does not come up.
    """

    def notice(*, is_serving: bool) -> None:
        updater.notice_pass()
        if takeover is not None and (result := takeover.notice_pass(serving.controller, is_serving=is_serving)):
            updater.is_busy = False
            serving.progress.note(f"Update: {result.text}")

    gateway = serving.gateway
    acts = {OwnerVerb.CONFIRM_TIME: gateway.confirm_time, OwnerVerb.SIGN_TOKEN: gateway.sign_token}
    async with listen_for_requests(serving.controller.folder, updater.run, acts):
        await serving.follow(notice, lambda: updater.handover is not None)


def check_start(machine: LocalMachine, folder: Path, takeover: TakeOver | None) -> None:
    """Refuse a machine on which nothing here can run.

    What takes over has had its trial here, and what goes back has served here. For a disk that has become fuller since
    then, both would end, and nothing would serve.
    """
    if takeover is None:
        check_machine(machine, folder)


async def _prepare(
    options: UpdatableOptions,
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
    preparation = await prepare_engine(options, installation, revisions, reporter)
    save_record(folder.update, record)
    return record, preparation


def _tell_wait(reporter: Reporter, text: str) -> None:
    reporter.update(message=text, pid=os.getpid())
    reporter.narrator.note(text)


def _load(folder: DataFolder, images: Images, reporter: Reporter) -> Objects:
    objects, is_former = load_own_objects(folder, images)
    if is_former:
        reporter.narrator.note("Other software has served meanwhile; what this one had recorded before holds again")
    drop_other_images(objects, images, reporter)
    return objects
