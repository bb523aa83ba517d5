"""tritonserver for machines without a GPU, taken out of the wheel that carries it.

The server, its Python backend and the libraries that both are linked with; the wheel's Python client, the stubs for
other Pythons and the library of another Python stay out. Laid out as NVIDIA's image is, so a pod's command is the same.
"""

from pathlib import Path

from devcluster.cache import locked, staged
from devcluster.images import store
from devcluster.images.python_layers import PYTHON, install_into
from devcluster.images.sources import link_file

WHEEL = "nvidia-pytriton==0.7.0"
_UNUSED_LIBRARIES = ("libpython3-*",)
_PROGRAM_MODE = 0o755


def unpacked() -> Path:
    """Folder with the wheel's files, from the cache or freshly fetched."""
    folder = store.images_dir() / "tritonserver" / WHEEL.replace("==", "-")
    with locked("tritonserver"):
        if not folder.is_dir():
            with staged(folder) as target:
                install_into(target, (WHEEL,), store.build_log("triton-cpu"))
    return folder


def lay_out(source: Path, target: Path) -> None:
    """Put the server's files where NVIDIA's image has them: bin/, lib/, backends/python/."""
    server = source / "pytriton" / "tritonserver"
    _place(server / "bin" / "tritonserver", target / "bin", program=True)
    for library in sorted((source / "nvidia_pytriton.libs").iterdir()):
        if not any(library.match(pattern) for pattern in _UNUSED_LIBRARIES):
            _place(library, target / "lib")
    backend = target / "backends" / "python"
    _place(server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub", backend, program=True)
    for file in sorted((server / "backends" / "python").iterdir()):
        if file.is_file():
            _place(file, backend)


def _place(file: Path, folder: Path, program: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if program:
        file.chmod(_PROGRAM_MODE)
    link_file(file, folder / file.name)
