"""The process: read what the engine is, then serve until SIGTERM."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Final

from r1plus_contract.embedder import (
    DEFAULT_ENGINE_DIR,
    ENV_ENGINE,
    ENV_ENGINE_DIR,
    ENV_IDLE_SECONDS,
    ENV_SHA256,
    ENV_THREADS,
)
from r1plus_contract.frame_server import SocketError, serve_until_sigterm
from r1plus_embedder.files import EngineFilesError, read_engine_files
from r1plus_embedder.health import read_socket_path
from r1plus_embedder.server import IDLE_SECONDS, run_embedder
from r1plus_sandbox.seccomp import SandboxError, refuse_networks

log = logging.getLogger(__name__)
MOST_THREADS: Final = 64
MOST_IDLE_SECONDS: Final = 86400


class VariableError(RuntimeError):
    """An environment variable that cannot be used."""


def run() -> int:
    """Run the embedder; return the exit status: 2 for a socket, files, variables or a kernel that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        refuse_networks()
        threads = _read_number(ENV_THREADS, 1, MOST_THREADS)
        idle_seconds = _read_number(ENV_IDLE_SECONDS, int(IDLE_SECONDS), MOST_IDLE_SECONDS)
        folder = Path(os.environ.get(ENV_ENGINE_DIR, DEFAULT_ENGINE_DIR))
        files = read_engine_files(folder, _read_name(), os.environ.get(ENV_SHA256, ""))
        path = read_socket_path()
        server = run_embedder(path, files, threads, idle_seconds=idle_seconds)
        asyncio.run(serve_until_sigterm(server, "Embedder", f"{path}, engine {files.identity}"))
    except (VariableError, EngineFilesError, SocketError, SandboxError) as error:
        log.error("Embedder cannot start: %s", error)
        return 2
    return 0


def _read_name() -> str:
    name = os.environ.get(ENV_ENGINE, "")
    if not name:
        raise VariableError(f"{ENV_ENGINE}: not set; set it to the name of the R1PlusEngine")
    return name


def _read_number(name: str, default: int, most: int) -> int:
    text = os.environ.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise VariableError(f"{name}: {text!r:.40} is not a whole number from 1 to {most}; correct it, or leave it out")
    return int(text)
