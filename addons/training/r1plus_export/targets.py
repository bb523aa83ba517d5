"""What an engine is exported to: the name, the packages, the precisions and the architectures of each target.

Needs none of these packages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

from r1plus_contract.engine.llama_architecture import ModelError, read_shape
from r1plus_export.errors import ExportError

F16, F32, INT4 = "F16", "F32", "INT4"


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """One kind of export."""

    name: str
    module: str
    """Has `open_model`."""
    maker: str | None
    """Program that makes the folder: CHECKPOINT FOLDER PRECISION; None: the checkpoint is the folder."""
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...]
    """The first is the default."""
    architectures: tuple[str, ...] | None
    """Values of model_type in config.json; None: all that transformers has."""
    bytes_per_parameter: int
    """Of the disk while the folder is made, at most: the checkpoint between and the result."""
    is_own_code: bool = False
    """Whether r1plus computes the model itself: a Llama of the shapes that it reads, and nothing else."""


TARGETS: Final[Mapping[str, ExportTarget]] = MappingProxyType(
    {
        "hf": ExportTarget("hf", "r1plus_export.hf", None, ("torch", "transformers"), "hf", (F16, F32), None, 4),
        "onnx": ExportTarget(
            "onnx",
            "r1plus_export.onnx",
            "r1plus_export.onnx",
            ("torch", "transformers", "onnx_ir", "onnxruntime_genai"),
            "onnx",
            (F32, INT4),
            ("llama", "qwen2"),
            16,
        ),
        "keras": ExportTarget(
            "keras",
            "r1plus_export.keras",
            "r1plus_export.keras",
            ("keras", "tensorflow", "safetensors", "tokenizers", "jinja2"),
            "keras",
            (F32,),
            ("llama",),
            12,
            is_own_code=True,
        ),
    }
)


def find_target(name: str) -> ExportTarget:
    """Return the target; raise ExportError if there is none of this name."""
    if name not in TARGETS:
        raise ExportError(f"--to: {name!r:.40} is not one of {', '.join(TARGETS)}")
    return TARGETS[name]


def check_packages(target: ExportTarget) -> None:
    """Raise ModuleNotFoundError for the first package that is missing, before anything is made."""
    for name in target.packages:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def choose_precision(target: ExportTarget, wanted: str | None) -> str:
    """Return the precision of the numbers; raise ExportError if the target does not have the wanted one."""
    if wanted is None:
        return target.precisions[0]
    if wanted not in target.precisions:
        raise ExportError(
            f"--precision: {wanted!r:.40}: --to {target.name} is written in {' or '.join(target.precisions)}"
        )
    return wanted


def check_architecture(target: ExportTarget, fields: Mapping[str, Any]) -> None:
    """Raise ExportError if the model in config.json is none that the target computes."""
    kind = fields.get("model_type")
    if kind == "r1plus":
        raise ExportError(
            "model_type: r1plus: R1+'s own architecture is not in other libraries; load its checkpoint by torch.hub"
            " (docs/exports.md), or export the engine that it was made of"
        )
    if target.architectures is not None and kind not in target.architectures:
        raise ExportError(
            f"model_type: {kind!r:.40}: --to {target.name} exports {' and '.join(target.architectures)}; use --to hf"
        )
    if target.architectures is not None and fields.get("quantization_config") is not None:
        raise ExportError(
            f"quantization_config: the checkpoint's weights are quantised, and --to {target.name} reads F16, BF16 and"
            " F32; export it to hf, or import the checkpoint in one of them"
        )
    if target.is_own_code:
        try:
            read_shape(fields)
        except ModelError as error:
            raise ExportError(f"--to {target.name}: {error}; or use --to hf") from error
