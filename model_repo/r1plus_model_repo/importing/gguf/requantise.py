"""Conversion of a GGUF file to another precision: each matrix is expanded to its exact numbers and stored again.

One matrix is in memory at a time. Norms, biases and metadata (tokenizer, chat template) are copied, so that only the
precision differs. Used by `r1plus engine quantize` and for the demo's engines.
"""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import gguf
import numpy
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.header import read_header


class Precision(Enum):
    """Target precisions: tensor type and declared file type."""

    F16 = (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16)
    Q8_0 = (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)
    Q4_0 = (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0)
    Q4_1 = (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1)


_FILE_TYPE = "general.file_type"
_WRITER_KEYS = ("GGUF.", "general.architecture", "general.alignment")
"""Keys that the writer sets."""
_FLOATS = frozenset({gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16})


def requantise(
    source: Path, target: Path, precision: Precision, progress: Callable[[str], None] = lambda _: None
) -> None:
    """Write `source` to `target` in `precision`; the same bytes every time. Memory: the largest matrix, in FP32.

    `target` appears when it is complete: it is written under another name and renamed.

    Raises:
        WeightsError: the file cannot be read, or has a quantisation that cannot be expanded.
    """
    architecture = read_header(source).metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise WeightsError(str(source), ("general.architecture: missing or no text; get the file again",))
    reader = gguf.GGUFReader(source)  # It trusts the file, so the header was checked first.
    _check_expandable(source, reader)
    part = target.with_name(f".part-{target.name}")
    try:
        _write(reader, architecture, part, precision, progress)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _check_expandable(source: Path, reader: gguf.GGUFReader) -> None:
    for tensor in reader.tensors:
        try:
            dequantize(tensor.data[:1], tensor.tensor_type)
        except NotImplementedError as error:
            what = f"tensor {tensor.name}: type {tensor.tensor_type.name} cannot be expanded"
            raise WeightsError(str(source), (f"{what}; use the model in F16, BF16 or Q8_0",)) from error


def _write(
    reader: gguf.GGUFReader, architecture: str, part: Path, precision: Precision, progress: Callable[[str], None]
) -> None:
    writer = gguf.GGUFWriter(part, architecture)
    try:
        _copy_metadata(reader, writer, precision)
        kinds = [_choose_type(tensor, precision.value[0]) for tensor in reader.tensors]
        for tensor, kind in zip(reader.tensors, kinds, strict=True):
            # A file lists shapes innermost first, the writer takes them outermost first. A shape in bytes would need
            # another dtype; `kind` says what is stored.
            shape = tuple(int(length) for length in reversed(tensor.shape))
            size = 1
            for length in quant_shape_to_byte_shape(shape, kind):
                size *= length
            writer.add_tensor_info(tensor.name, shape, numpy.dtype("float32"), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for index, (tensor, kind) in enumerate(zip(reader.tensors, kinds, strict=True)):
            if index % 50 == 0:
                progress(f"tensor {index + 1} of {len(kinds)}")
            writer.write_tensor_data(_convert_tensor(tensor, kind))
    finally:
        writer.close()


def _choose_type(tensor: gguf.ReaderTensor, target: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Return the type to store a tensor as: F16 if a row is not a whole number of blocks."""
    if len(tensor.shape) < 2 and tensor.tensor_type in _FLOATS:
        return tensor.tensor_type
    block = gguf.GGML_QUANT_SIZES[target][0]
    return target if int(tensor.shape[0]) % block == 0 else gguf.GGMLQuantizationType.F16


def _convert_tensor(tensor: gguf.ReaderTensor, kind: gguf.GGMLQuantizationType) -> Any:
    if tensor.tensor_type == kind:
        return tensor.data
    return quantize(dequantize(tensor.data, tensor.tensor_type), kind)


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, precision: Precision) -> None:
    has_file_type = False
    for key, field in reader.fields.items():
        if key.startswith(_WRITER_KEYS):
            continue
        has_file_type = has_file_type or key == _FILE_TYPE
        value = int(precision.value[1]) if key == _FILE_TYPE else field.contents()
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY and not value:
            continue  # gguf cannot write an empty array. A missing key has the same meaning.
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, kind, sub_type=inner)
    if not has_file_type:
        writer.add_file_type(int(precision.value[1]))
