"""What is made before anything can serve, each in a process of its own: it can be ended, and its memory goes."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from r1plus_edge.data_folder import check_path
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.container import die_with_parent
from r1plus_edge.pods.processes import mark
from r1plus_edge.start.engines import find_embedding_files, find_made_engine
from r1plus_edge.start.machine import MIB
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.demo_engines import DEMO_EMBEDDING_ENGINE, MAKERS
from r1plus_model_repo.importing.triton_server import WHEEL

MOST_ERROR: Final = 1500
MADE_BYTES: Final = 512 * MIB
"""What Triton, or a small engine, takes of a disk while it is made, and some more."""
MADE_OVER_WEIGHTS: Final = 1.2
"""What an engine takes meanwhile, to its weights in memory: the file that it is made of is as large as what is made."""


async def prepare_triton(cache: Path, root: Path, progress: Callable[[str], None]) -> Path:
    """Return the folder where tritonserver is laid out.

    Raises:
        EdgeError: it cannot be fetched.
    """
    check_path("R1PLUS_CACHE", cache)
    check_cache_owner(cache)
    target = cache / "tritonserver" / WHEEL.replace("==", "-")
    if not target.is_dir():
        await _make(
            "Triton", ["r1plus_model_repo.importing.triton_server", "--out", str(target)], cache, root, progress
        )
    return target


async def prepare_engine(
    engine: Engine, given: Path | None, cache: Path, root: Path, progress: Callable[[str], None]
) -> Path:
    """Return the folder with the engine's files. The pod's init container verifies them.

    Raises:
        EdgeError: they are not here, and cannot be made here.
    """
    if given is not None:
        return given
    folder = find_made_engine(engine, cache)
    if not folder.is_dir():
        command = [MAKERS[folder.name], "--out", str(folder.parent), "--engine", folder.name]
        needed = int(MADE_OVER_WEIGHTS * bytes_of(engine.spec.requirements.weights_memory))
        await _make(f"engine {engine.name}", command, cache, root, progress, max(MADE_BYTES, needed))
    return folder


async def prepare_embedding(name: str, cache: Path, root: Path, progress: Callable[[str], None]) -> None:
    """Make the files of an embedding engine in the cache. The embedder verifies them.

    Raises:
        EdgeError: they cannot be made here.
    """
    folder = find_embedding_files(name, cache)
    if name != DEMO_EMBEDDING_ENGINE:
        raise EdgeError(f"engine {name}: its files are not on this machine; put them into {folder}")
    command = ["r1plus_model_repo.importing.embedding.minilm", "--out", str(folder.parent)]
    await _make(f"engine {name}", command, cache, root, progress)


async def _make(
    what: str,
    module: Sequence[str],
    cache: Path,
    root: Path,
    progress: Callable[[str], None],
    needed: int = MADE_BYTES,
) -> None:
    """Run a module that makes something, and tell its lines. It ends when this is cancelled."""
    _make_cache(cache)
    _check_room(what, cache, needed)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m"),  # -P: no module of the current folder in place of Python's own
        *module,
        env={**os.environ, **mark(root)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        async for line in process.stdout:
            progress(line.decode(errors="replace").strip())
        code = await process.wait()
        text = (await errors).decode(errors="replace").strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        errors.cancel()
    if code != 0:
        reason = text.splitlines()[-1][-MOST_ERROR:] if text else f"it ended with status {code}"
        raise EdgeError(f"{what} cannot be made: {reason}")


def check_cache_owner(cache: Path) -> None:
    """Refuse a cache that another user may change: programs are run out of it. One of root's is fine.

    Raises:
        EdgeError: it is another user's, or all may write there.
    """
    for folder in (cache, cache / "tritonserver", cache / "bundles"):
        try:
            about = folder.stat()
        except OSError:
            continue  # It is made, or refused, in a moment.
        if about.st_uid not in (0, os.geteuid()) or about.st_mode & stat.S_IWOTH:
            raise EdgeError(
                f"{folder}: another user may change what runs out of it; name a folder of your own with R1PLUS_CACHE"
            )


def _make_cache(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeError(f"{cache}: {error.strerror}; name another folder with R1PLUS_CACHE") from error


def _check_room(what: str, cache: Path, needed: int) -> None:
    if (free := shutil.disk_usage(cache).free) < needed:
        raise EdgeError(
            f"{what} cannot be made: {cache}: {free / MIB:.0f} MiB of disk are free, {needed / MIB:.0f} MiB are"
            " needed; free some, or name a folder on another disk with R1PLUS_CACHE"
        )
