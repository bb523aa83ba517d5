"""The packages of `make test-long NAME=exports`: ONNX Runtime GenAI, its builder, Keras and TensorFlow, each at one version and hash.

A folder in the cache, made once per lock, in addition to the packages of `make test-long NAME=model`, which has torch and
transformers. `add_to_path` lets this process import them; `list_folders` is for another process's PYTHONPATH.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.steps import Steps
from support import locked_packages
from support.model import environment as model_environment

LOCK: Final = Path(__file__).with_name("requirements.lock")
NEEDED_BYTES: Final = 4 * 10**9
"""Of the disk: the folder, and as much again in uv's cache where that is on another one."""


def prepare() -> Path:
    """Return the folder of packages; it is made on first use, and again when the lock changes.

    Raises:
        SystemExit: the disk has too little room.
        CommandError: uv fails.
    """
    folder = cache_dir() / "exports" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    with locked("exports"):
        if not folder.is_dir():
            locked_packages.check_room(folder, NEEDED_BYTES, "ONNX Runtime GenAI and TensorFlow")
            log = log_dir() / "exports.log"
            with Steps(1).step("ONNX Runtime GenAI and TensorFlow", log=log) as step, staged(folder) as made:
                locked_packages.install(sys.executable, LOCK, "--target", made, log=log, step=step)
                step.built()
    return folder


def list_folders() -> tuple[Path, Path]:
    """Return the folders that hold the packages."""
    return prepare(), model_environment.prepare()


def add_to_path() -> None:
    """Let this process import the packages, after its own, and its child processes, too."""
    folders = [str(folder) for folder in list_folders()]
    sys.path += [folder for folder in folders if folder not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), *folders)))


if __name__ == "__main__":
    sys.stdout.write(os.pathsep.join(map(str, list_folders())) + "\n")
