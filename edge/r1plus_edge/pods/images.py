"""What stands for the images of a pod: the programs of this environment, by digests of what they consist of.

An image's digest is part of the serving identity. So another version of Triton, of OpenVINO or of our own code is
another image, and nothing that was measured on the one counts for the other.
"""

import hashlib
import os
import secrets
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import r1plus_contract
import r1plus_model_repo.backends
import r1plus_monitoring
import r1plus_policies
from r1plus_contract import calculator, embedder, names
from r1plus_edge.pods import triton_sockets
from r1plus_edge.pods.places import LOOPBACK, PodPlaces
from r1plus_edge.pods.processes import mark, name_region
from r1plus_model_repo.importing import triton_server
from r1plus_operator.plan.settings import TritonRuntime
from r1plus_operator.plan.tenancy import gateway_objects

_REGISTRY: Final = "localhost"
_TORCH_PACKAGES: Final = ("torch", "transformers", "safetensors", "xgrammar")
_MODEL_PACKAGE: Final = "r1plus_model"
"""Package of the add-on training that Triton's Python computes with."""
_TRITON_PACKAGES: Final = ("openvino", "openvino-genai", "openvino-tokenizers", "numpy")
_MONITOR_PACKAGES: Final = ("tritonclient", "grpcio", "jsonschema")
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
MONITOR_FOLDERS: Final = {
    "ACCURACY_DIR": names.DIR_ACCURACY,
    "REVISION_DIR": names.DIR_REVISION,
    "ADMISSION_DIR": names.DIR_ADMISSION,
    "STATE_DIR": names.DIR_STATE,
}
"""Settings of the monitor that have a folder: its defaults are the paths in a pod."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images of this installation."""

    triton: str
    monitor: str
    gateway: str
    server: Path
    """Where tritonserver is laid out."""
    torch: TritonRuntime | None = None
    """The same Triton where torch is installed, for engines of that backend."""

    @property
    def of_model(self) -> frozenset[str]:
        """Those of serving pods."""
        return frozenset((self.triton, self.monitor, *((self.torch.image,) if self.torch else ())))


def find_images(server: Path) -> Images:
    """Return the images of this installation; `server`: where tritonserver is laid out."""
    contract = _list_sources(r1plus_contract.__path__[0])
    backends = _list_sources(r1plus_model_repo.backends.__path__[0])
    monitoring = [*_list_sources(r1plus_monitoring.__path__[0]), *_list_sources(r1plus_policies.__path__[0])]
    return Images(
        triton=_name_image("triton-cpu", (triton_server.WHEEL, *_list_versions(_TRITON_PACKAGES)), contract + backends),
        monitor=_name_image("r1plus-monitor", _list_versions(_MONITOR_PACKAGES), contract + monitoring),
        gateway=f"{_REGISTRY}/r1plus-gateway:{version('r1plus')}",
        server=server,
        torch=_find_torch_image(contract + backends),
    )


def _find_torch_image(sources: Sequence[Path]) -> TritonRuntime | None:
    """Return what serves engines of the backend torch; None: their packages, or the add-on, are not installed."""
    try:
        versions = _list_versions(_TORCH_PACKAGES)
    except PackageNotFoundError:
        return None
    model = find_spec(_MODEL_PACKAGE)
    if model is None or model.submodule_search_locations is None:
        return None
    sources = [*sources, *_list_sources(model.submodule_search_locations[0])]
    return TritonRuntime(_name_image("triton-torch", (triton_server.WHEEL, *versions), sources), version("torch"))


def _list_versions(packages: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}=={version(name)}" for name in packages)


def _list_sources(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob("*.py"))


def _name_image(name: str, versions: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\n".join(versions).encode())
    for source in sources:
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return f"{_REGISTRY}/{name}@sha256:{digest.hexdigest()}"


def build_command(container: Mapping[str, object], places: PodPlaces, images: Images, root: Path) -> list[str]:
    """Return what runs for a container of the plan."""
    command = [*_read_words(container, "command"), *_read_words(container, "args")]
    if not command and container["name"] == gateway_objects.CONTAINER:
        command = ["python3", "-m", "r1plus_gateway"]  # The image's own entry point.
    words = places.translate_command(command)
    if container["name"] != names.CONTAINER_TRITON:
        return words
    return [
        *words,
        *triton_sockets.OPTIONS,
        f"--backend-directory={images.server / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={name_region(root)}{secrets.token_hex(4)}-",
    ]


def _read_words(container: Mapping[str, object], field: str) -> list[str]:
    words = container.get(field)
    return [str(word) for word in words] if isinstance(words, list) else []


def build_environment(
    container: Mapping[str, object], pod: str, places: PodPlaces, images: Images, root: Path, tmp: Path
) -> dict[str, str]:
    """Return the whole environment of a container's processes. Nothing of the caller's goes with it."""
    path = f"{Path(sys.prefix) / 'bin'}:{_SYSTEM_PATH}"
    environment = {"LANG": "C.UTF-8", "HOME": str(tmp), "TMPDIR": str(tmp), "PYTHONUNBUFFERED": "1", **mark(root)}
    variables = container.get("env")
    for variable in variables if isinstance(variables, list) else ():
        # The one field that a template refers to is the pod's name.
        environment[variable["name"]] = places.translate(variable["value"]) if "value" in variable else pod
    if container["name"] == names.CONTAINER_TRITON:
        path = f"{images.server / 'bin'}:{path}"
        # The stub embeds Python and finds packages by the `python3` on the PATH.
        environment |= {"LD_LIBRARY_PATH": str(images.server / "lib")}
    if container["name"] in (names.CONTAINER_TRITON, names.INIT_VERIFY):
        environment |= {names.ENV_ENGINE_DIR: str(places.find(names.DIR_ENGINE))}
    if container["name"] == names.CONTAINER_MONITOR:
        environment |= _build_monitor_settings(places, tmp)
    if embedder.DEFAULT_ENGINE_DIR in places.folders:
        environment |= {embedder.ENV_ENGINE_DIR: str(places.find(embedder.DEFAULT_ENGINE_DIR))}
    if calculator.ENV_INTERPRETER in environment:
        environment |= {calculator.ENV_INTERPRETER: str(Path(sysconfig.get_path("scripts")) / "monty")}
    return environment | {"PATH": path}


def _build_monitor_settings(places: PodPlaces, tmp: Path) -> dict[str, str]:
    def at(port: int) -> str:
        # Seen from its working directory: the kernel takes 107 bytes for a path.
        return f"unix:{os.path.relpath(places.sockets[port], tmp)}"

    settings = {name: str(places.find(path)) for name, path in MONITOR_FOLDERS.items()}
    settings |= {"TRITON_HTTP": at(names.PORT_HTTP), "TRITON_GRPC": at(names.PORT_GRPC)}
    settings |= {"TRITON_METRICS": at(names.PORT_TRITON_METRICS), "SERVICE": at(names.PORT_GRPC)}
    settings |= {"HOST": LOOPBACK, "PORT": str(places.ports[names.PORT_MONITOR])}
    return {f"R1PLUS_MONITOR_{name}": value for name, value in settings.items()}
