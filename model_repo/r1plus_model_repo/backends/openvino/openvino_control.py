"""The strings that a converted tokenizer turns into control tokens, from its IR.

The layer SpecialTokensSplit has them as a regular expression: groups of escaped strings, some with white space around
(openvino_tokenizers 2026.4: tokenizer_pipeline.py; OpenVINO GenAI 2026.4: gguf_utils/gguf_tokenizer.cpp).
"""

import re
from pathlib import Path

_LAYER = re.compile(r'<layer id="(\d+)" name="[^"]*" type="(\w+)".*?</layer>', re.DOTALL)
_EDGE = re.compile(r'<edge from-layer="(\d+)" from-port="\d+" to-layer="(\d+)"')
_DATA = re.compile(r'<data element_type="(?:u8|string)" shape="[^"]*" offset="(\d+)" size="(\d+)"')
_SPACE_AROUND = r"(?:\s*)"


def read_split_strings(folder: Path) -> list[str]:
    """Return the strings, without their order. Empty if the tokenizer splits none."""
    xml = (folder / "openvino_tokenizer.xml").read_text(encoding="utf-8")
    weights = (folder / "openvino_tokenizer.bin").read_bytes()
    layers = {match.group(1): match for match in _LAYER.finditer(xml)}
    splits = {number for number, layer in layers.items() if layer.group(2) == "SpecialTokensSplit"}
    strings: list[str] = []
    for source, target in _EDGE.findall(xml):
        layer = layers.get(source)
        if target in splits and layer and layer.group(2) == "Const" and (data := _DATA.search(layer.group())):
            offset, size = map(int, data.groups())
            strings += parse_pattern(weights[offset : offset + size].decode())
    return strings


def parse_pattern(pattern: str) -> list[str]:
    """Return the strings of an expression such as `(\\<a\\>|\\<b\\>)|(?:\\s*)(\\<c\\>)`."""
    strings, text, is_escaped = [], "", False
    for character in pattern.replace(_SPACE_AROUND, ""):
        if is_escaped:
            text, is_escaped = text + character, False
        elif character == "\\":
            is_escaped = True
        elif character in "(|)":
            strings.append(text)
            text = ""
        else:
            text += character
    return [string for string in [*strings, text] if string]
