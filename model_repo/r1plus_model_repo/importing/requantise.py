"""A GGUF file in another precision: every quantised tensor is expanded to its exact numbers and stored again.

Norms stay FP32 and metadata (tokenizer, chat template) is copied as it is, so that precision is all that differs.
"""

from enum import Enum
from pathlib import Path

import gguf
from gguf.quants import dequantize, quantize


class Precision(Enum):
    """Target precisions: the tensors' type and what the file declares itself to be."""

    F16 = (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16)
    Q8_0 = (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)


_FILE_TYPE = "general.file_type"
_PLAIN = frozenset({gguf.GGMLQuantizationType.F32})


def requantise(source: Path, target: Path, precision: Precision) -> None:
    """Write `source` to `target` in `precision`; the same bytes every time."""
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    _copy_metadata(reader, writer, precision)
    for tensor in reader.tensors:
        if tensor.tensor_type in _PLAIN or tensor.tensor_type == precision.value[0]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        exact = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, quantize(exact, precision.value[0]), raw_dtype=precision.value[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, precision: Precision) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = int(precision.value[1]) if key == _FILE_TYPE else field.contents()
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, kind, sub_type=inner)
