"""What is measured are the most likely tokens, also where the checkpoint's own settings punish repetition."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from r1plus_export.answering import TextModel
from r1plus_export.hf import HuggingFaceModel
from r1plus_export.onnx import GENAI_CONFIG, OnnxModel, write_folder
from r1plus_model.encoder import GENERATION_CONFIG

pytestmark = [pytest.mark.exports, pytest.mark.timeout(1200)]
PENALTY: Final = 9.0
TOKENS: Final = 40


def change(folder: Path, name: str, section: str | None) -> Path:
    """Let the settings in a copy of the folder punish repetition; return it."""
    copy = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-punishing")))
    path = copy / name
    settings: dict[str, Any] = json.loads(path.read_text())
    (settings[section] if section else settings)["repetition_penalty"] = PENALTY
    path.write_text(json.dumps(settings))
    return copy


def answer(model: TextModel) -> list[int]:
    ids = model.encode([{"role": "user", "content": "hello 1 world"}])
    return model.generate(ids, TOKENS, lambda _: False)


def test_in_transformers(llama: Path) -> None:
    expected = answer(HuggingFaceModel(llama))

    assert len(set(expected)) < len(expected), "a penalty would change it"
    assert answer(HuggingFaceModel(change(llama, GENERATION_CONFIG, None))) == expected


def test_in_onnx_runtime(llama: Path) -> None:
    folder = llama.with_name("onnx")
    write_folder(llama, folder, "F32")
    expected = answer(OnnxModel(folder))

    assert len(set(expected)) < len(expected), "a penalty would change it"
    assert answer(OnnxModel(change(folder, GENAI_CONFIG, "search"))) == expected
