"""The trial of other software: its own `serve`, beside what serves, in a folder of its own, until its gate is decided.

What it has recorded of its revision, its verdict included, is what the new software goes on with. What the old software
had recorded stays beside it: whichever software starts next finds the revisions that it can run.
"""

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.objects import Objects, load_objects, write_synced
from r1plus_edge.pods.container import die_with_parent
from r1plus_edge.pods.images import Images
from r1plus_edge.pods.processes import remove_remains
from r1plus_edge.report import ServePhase, ServeStatus, read_status
from r1plus_edge.update.handover import Handover, build_environment
from r1plus_edge.update.slots import find_program

TRIAL_SECONDS: Final = 3600.0
"""As long as a rollout may take."""
FAILING_SECONDS: Final = 60.0
"""For a process that ends again and again to come up after all."""
END_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.5
_MOST_ERROR: Final = 1500
_UNDECIDED: Final = "taking-over"
"""File in `former`: the folder of software that goes on with a trial, until it serves."""


async def run_trial(
    software: Path, words: Sequence[str], handover: Handover, folder: DataFolder, tell: Callable[[int, str], None]
) -> ServeStatus:
    """Let other software gate what it would serve, and return the state in which it served. It has ended by then.

    `tell`: tells how far the gate is, in percent and in words.

    Raises:
        EdgeError: it does not serve, and why.
        OSError: it cannot be started.
    """
    remove_trial(folder)
    trial, log = folder.trial, folder.logs / "trial.log"
    trial.root.mkdir(mode=0o700)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(find_program(software)),
            *words,
            env=build_environment(handover),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        return await _follow(process, trial, log, tell)
    except asyncio.CancelledError:  # All ends, within seconds.
        process.kill()
        remove_trial(folder)
        raise
    finally:
        await _end(process)


async def _follow(
    process: asyncio.subprocess.Process, trial: DataFolder, log: Path, tell: Callable[[int, str], None]
) -> ServeStatus:
    began, failing_since = time.monotonic(), 0.0
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                code = await process.wait()
            raise EdgeError(f"the new software ended with status {code}: {_read_end(log)}")
        status, now = read_status(trial.status), time.monotonic()
        if status is None or status.pid != process.pid:
            continue
        if status.phase is ServePhase.SERVING:
            return status
        if status.phase is ServePhase.REFUSED:
            raise EdgeError(status.message)
        if status.percent:
            tell(status.percent, f"suite {status.suite}" if status.suite else "")
        failing_since = (failing_since or now) if status.failures else 0.0
        if failing_since and now - failing_since > FAILING_SECONDS:
            raise EdgeError("\n".join(status.failures))
        if now - began > TRIAL_SECONDS:
            raise EdgeError(f"it did not serve within {TRIAL_SECONDS / 60:g} min: {status.message}; see {log}")


def _read_end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-_MOST_ERROR:]


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()  # Its guardian ends the rest.
        await process.wait()


def remove_trial(folder: DataFolder) -> None:
    """Remove what is left of a trial."""
    trial = folder.trial
    remove_remains(trial.root, trial.pods)
    shutil.rmtree(trial.root, ignore_errors=True)


def adopt_trial(folder: DataFolder, own: str = sys.prefix) -> None:
    """Go on with what a trial has recorded; what the old software had recorded stays for it. Each write is synced.

    Until `settle_trial`, other software than `own` finds what was recorded before.

    Raises:
        EdgeError: there is no trial.
        OSError: the disk does not take it; what the old software had recorded is whole.
    """
    try:
        text = folder.trial.objects.read_text(encoding="utf-8")
    except OSError as error:
        raise EdgeError(f"{folder.trial.root}: has no trial to go on with ({error.strerror})") from error
    former = folder.former
    former.root.mkdir(mode=0o700, exist_ok=True)
    for source, target in ((folder.objects, former.objects), (folder.update, former.update)):
        if source.exists():
            write_synced(target, source.read_text(encoding="utf-8"))
    write_synced(former.root / _UNDECIDED, own)
    write_synced(folder.objects, text)


def settle_trial(folder: DataFolder) -> None:
    """Let what was adopted hold for whichever software runs it: it serves."""
    with contextlib.suppress(OSError):  # It stays for this software, which serves by it.
        (folder.former.root / _UNDECIDED).unlink(missing_ok=True)


def load_own_objects(folder: DataFolder, images: Images, own: str = sys.prefix) -> tuple[Objects, bool]:
    """Return the objects on record, and whether they are those that this software had before another one served.

    They are also where the other one, though of the same images, has not come up: its update is not in force.

    Raises:
        EdgeError: they are damaged.
        OSError: the disk does not take what the other software's are replaced with.
    """
    objects = load_objects(folder.objects)
    if not folder.former.objects.exists() or (objects.runs_on(images.of_model) and not _is_undecided(folder, own)):
        return objects, False
    former = load_objects(folder.former.objects)
    if not former.runs_on(images.of_model):
        return objects, False
    if folder.former.update.exists():
        write_synced(folder.update, folder.former.update.read_text(encoding="utf-8"))
    write_synced(folder.objects, folder.former.objects.read_text(encoding="utf-8"))
    settle_trial(folder)
    return load_objects(folder.objects), True


def _is_undecided(folder: DataFolder, own: str) -> bool:
    """Whether other software has taken over, and had not come up."""
    try:
        return (folder.former.root / _UNDECIDED).read_text(encoding="utf-8") != own
    except FileNotFoundError:
        return False
