"""Removal of the tokenizer's silent length limit.

A converted tokenizer silently cuts each prompt to the model's context (8192 tokens): the model would answer the *end*
of a long question. The backend rejects such a prompt with both lengths, so the tokenizer must count all of it. In the
IR the limit is a 32-bit constant that feeds a `Minimum`; it is set to the largest such number.
"""

import re
from pathlib import Path

from r1plus_model_repo.importing.errors import ImportingError

_LAYER = re.compile(r'<layer id="(\d+)" name="[^"]*" type="(\w+)".*?</layer>', re.DOTALL)
_DATA = re.compile(r'<data element_type="i32" shape="" offset="(\d+)" size="4"')
_EDGE = re.compile(r'<edge from-layer="(\d+)" from-port="\d+" to-layer="(\d+)"')
LARGEST_LIMIT = (2**31 - 1).to_bytes(4, "little")


def remove_limit(folder: Path) -> None:
    """Rewrite the tokenizer in `folder`. Raise ImportingError if it has no such limit or several."""
    xml = (folder / "openvino_tokenizer.xml").read_text(encoding="utf-8")
    offset = _find_limit_offset(xml)
    weights = folder / "openvino_tokenizer.bin"
    content = bytearray(weights.read_bytes())
    content[offset : offset + 4] = LARGEST_LIMIT
    weights.write_bytes(bytes(content))


def _find_limit_offset(xml: str) -> int:
    layers = {match.group(1): match for match in _LAYER.finditer(xml)}
    minima = {number for number, layer in layers.items() if layer.group(2) == "Minimum"}
    input_layers = [layers[source] for source, to in _EDGE.findall(xml) if to in minima and source in layers]
    constants = [data for layer in input_layers if layer.group(2) == "Const" and (data := _DATA.search(layer.group()))]
    if len(constants) != 1:
        raise ImportingError(f"openvino_tokenizer.xml: expected one length limit, found {len(constants)}")
    offset = constants[0].group(1)
    if len(re.findall(rf'offset="{offset}"', xml)) != 1:
        raise ImportingError("openvino_tokenizer.xml: the length limit shares its constant with another layer")
    return int(offset)
