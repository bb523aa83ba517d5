"""The padding token of a folder for ONNX Runtime GenAI, which takes such tokens at a prompt's end for no part of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1plus_export.errors import ExportError
from r1plus_export.onnx import GENAI_CONFIG, set_padding
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from support.exports.tiny_engine import write_weights
from support.model_repo import tiny_gguf
from support.tables import for_each

pytestmark = [pytest.mark.exports, pytest.mark.timeout(600)]
BEGIN, END, UNNAMED = 0, 2, len(tiny_gguf.TOKENS) - 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("padding")
    weights = write_weights(root / "tiny.gguf")
    return convert_gguf_to_checkpoint(weights, root / "checkpoint", "F16", lambda _: None).folder


def write_folder(folder: Path, checkpoint: Path, token: dict[str, Any] | None, **fields: Any) -> Path:
    """Write what the builder writes beside its graph; `token` is added to the vocabulary."""
    folder.mkdir()
    for path in checkpoint.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    if token:
        like = tokenizer["added_tokens"][0]
        tokenizer["added_tokens"].append(like | {"id": UNNAMED} | token)
        path.write_text(json.dumps(tokenizer))
    model = {"bos_token_id": BEGIN, "eos_token_id": [END], "pad_token_id": END, "vocab_size": UNNAMED + 1} | fields
    (folder / GENAI_CONFIG).write_text(json.dumps({"model": model}))
    return folder


def read_padding(folder: Path) -> Any:
    return json.loads((folder / GENAI_CONFIG).read_text())["model"]["pad_token_id"]


CHOSEN: dict[str, tuple[dict[str, Any] | None, dict[str, Any], int]] = {
    "the checkpoint's own stays": (None, {"pad_token_id": 7}, 7),
    "a special token that the template lacks": ({"content": "[PAD]"}, {}, UNNAMED),
    "else a number without a token": (None, {}, UNNAMED),
    "the token that ends may be one number": ({"content": "[PAD]"}, {"eos_token_id": END}, UNNAMED),
}


@for_each("token, fields, expected", CHOSEN)
def test_no_prompt_ends_with_it(
    checkpoint: Path, tmp_path: Path, token: dict[str, Any] | None, fields: dict[str, Any], expected: int
) -> None:
    folder = write_folder(tmp_path / "onnx", checkpoint, token, **fields)
    set_padding(folder)
    assert read_padding(folder) == expected


def test_a_vocabulary_without_a_spare_token_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "onnx", checkpoint, {"content": "zz", "special": False})
    with pytest.raises(
        ExportError, match=r"pad_token_id: 2 begins or ends a text, .*; add a special token for padding"
    ):
        set_padding(folder)
