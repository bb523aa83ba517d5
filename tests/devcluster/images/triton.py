"""tritonserver of the image `triton-cpu`: `r1plus_model_repo.importing.triton_server` says where it comes from and how it lies."""

from pathlib import Path

from devcluster.cache import locked, staged
from devcluster.images import store
from devcluster.images.python_layers import install_into
from devcluster.images.sources import link_file
from r1plus_model_repo.importing import triton_server
from r1plus_model_repo.importing.triton_server import WHEEL

__all__ = ("WHEEL", "lay_out", "unpacked")


def unpacked() -> Path:
    """Folder with the wheel's files, from the cache or freshly fetched."""
    folder = store.images_dir() / "tritonserver" / WHEEL.replace("==", "-")
    with locked("tritonserver"):
        if not folder.is_dir():
            with staged(folder) as target:
                install_into(target, (WHEEL,), store.build_log("triton-cpu"))
    return folder


def lay_out(source: Path, target: Path) -> None:
    """Put the server's files where NVIDIA's image has them; an image's user can read them."""
    triton_server.lay_out(source, target, link_file)
