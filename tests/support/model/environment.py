"""The packages of `make test-long NAME=model`: torch, and transformers as its reference, every one at one version and hash.

A folder in the cache, 1.2 GB, made once per lock; it is whole or absent. It adds to `.venv`, whose Python runs the
tests: `add_to_path` here, `write_python` for Triton and `r1plus serve`, and for another process `PYTHONPATH`.
`python -m support.model.environment` prints the folder.
"""

import hashlib
import sys
import sysconfig
from pathlib import Path
from typing import Final

from devcluster import packages
from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.shell import run
from devcluster.steps import Steps
from devcluster.toolchain import uv
from support import locked_packages
from support.vllm.cuda_libraries import PROGRAMS, write_cuda_libraries
from support.vllm.environment import PYTHON

LOCK: Final = Path(__file__).with_name("requirements.lock")
NEEDED_BYTES: Final = 3 * 10**9
"""Of the disk: the folder, and as much again in uv's cache where that is on another one."""


def prepare() -> Path:
    """Return the folder of packages; it is made on first use, and again when the lock changes.

    Raises:
        SystemExit: the disk has too little room, or Debian packages are missing.
        CommandError: uv or the compiler fails.
    """
    folder = cache_dir() / "model" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    with locked("model"):
        if not folder.is_dir():
            _make(folder)
    return folder


def add_to_path() -> Path:
    """Let this process import the packages, after its own; return their folder."""
    folder = prepare()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder


def write_python(root: Path) -> Path:
    """Write an environment that has the packages of this one and torch, below `root`; return its Python.

    As after `pip install r1plus[edge,torch]`: Triton's stub reads no PYTHONPATH, and path files it does. It is Debian's
    Python, whose library the stub embeds.
    """
    made = root / "with-torch"
    packages.install(Steps(1), (PYTHON, f"lib{PYTHON}"))
    run([uv(), "venv", "--no-config", "--python", f"/usr/bin/{PYTHON}", made], log=log_dir() / "model.log")
    (site,) = made.glob("lib/python3.*/site-packages")
    own = sysconfig.get_paths()["purelib"]
    (site / "r1plus.pth").write_text(f"import site; site.addsitedir({own!r})\n{prepare()}\n")
    command = made / "bin" / "r1plus"
    command.write_text(f"#!{made / 'bin' / 'python3'}\nfrom r1plus_cli.main import main\n\nmain()\n")
    command.chmod(0o755)
    return made / "bin" / "python3"


def _make(folder: Path) -> None:
    locked_packages.check_room(folder, NEEDED_BYTES, "torch")
    log = log_dir() / "model.log"
    steps = Steps(2)
    packages.install(steps, PROGRAMS)
    with steps.step("torch", log=log) as step, staged(folder) as made:
        # The lock has what .venv lacks, and leaves out CUDA's libraries.
        locked_packages.install(sys.executable, LOCK, "--target", made, log=log, step=step)
        step.progress("substitutes for CUDA's libraries")
        write_cuda_libraries(made)
        step.progress("a first import")
        program = f"import sys; sys.path.append({str(made)!r}); import torch; assert not torch.cuda.is_available()"
        run([sys.executable, "-c", program], log=log)
        step.built()


if __name__ == "__main__":
    sys.stdout.write(f"{prepare()}\n")
