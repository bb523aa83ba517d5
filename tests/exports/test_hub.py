"""`torch.hub.load` with addons/training/hubconf.py: R1+'s own architecture, and a Llama, as text."""

from pathlib import Path
from typing import Any

import pytest
import torch

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, ModelError
from r1plus_model.checkpoint import load_model, save_model
from support.paths import TESTS
from support.tables import for_each

pytestmark = [pytest.mark.exports, pytest.mark.timeout(600)]
FOLDER = TESTS.parent / "addons" / "training"


def load(checkpoint: Path) -> Any:
    return torch.hub.load(str(FOLDER), "r1plus", str(checkpoint), source="local")


def test_a_llama_answers_as_in_transformers(llama: Path) -> None:
    from r1plus_export.hf import HuggingFaceModel

    reference = HuggingFaceModel(llama)
    ids = reference.encode([{"role": "user", "content": "hello world"}])
    expected = reference.decode(reference.generate(ids, 12, lambda _: False))

    assert load(llama).generate("hello world", max_new_tokens=12) == expected


def test_the_own_architecture_answers_with_its_options(llama: Path, tmp_path: Path) -> None:
    options = LlamaArchitecture(window=4, sinks=1, active=0.5)
    save_model(load_model(llama, options), tmp_path / "r1plus", llama)
    model = load(tmp_path / "r1plus")

    assert model.model.architecture == options
    assert isinstance(model.generate("hello world, hello world", max_new_tokens=8), str)
    assert model.generate("hello world " * 3, 8) != load(llama).generate("hello world " * 3, 8)


def test_an_answer_ends_before_a_stop_string(llama: Path) -> None:
    model = load(llama)
    whole = model.generate("hello world", max_new_tokens=12)
    middle = whole[len(whole) // 2]

    assert model.generate("hello world", max_new_tokens=12, stop=[middle]) == whole.partition(middle)[0]


def test_a_clone_is_enough(llama: Path) -> None:
    """Only the architecture is imported of the core, so that a clone without an installation loads."""
    import subprocess
    import sys

    program = (
        "import sys, torch; model = torch.hub.load(*sys.argv[1:3], sys.argv[3], source='local');"
        "model.generate('hello', 2); print([name for name in sys.modules if name.startswith('r1plus')])"
    )
    command = [sys.executable, "-c", program, str(FOLDER), "r1plus", str(llama)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()[-1]

    assert "r1plus_model.sampling.generation" in names
    assert "r1plus_contract.engine.llama_architecture" in names and "r1plus_contract.jsonable" not in names
    assert "r1plus_model_repo" not in names


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no tokens": ({"max_new_tokens": 0}, "max_new_tokens: 0 is not a whole number from 1"),
    "more than the context": ({"max_new_tokens": 10**12}, "together more than 512, the longest sequence"),
    "a text instead of a list": ({"stop": "END"}, "stop: 'END' is not a list of texts"),
    "an empty stop string": ({"stop": [""]}, r"stop: \[''\] is not a list of texts"),
    "half a token": ({"max_new_tokens": 1.5}, "max_new_tokens: 1.5 is not a whole number from 1"),
}


@for_each("options, message", BAD)
def test_a_bad_option_is_named(llama: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(llama).generate("hello", **options)


BROKEN: dict[str, tuple[str, str, str]] = {
    "ends cut short": ("generation_config.json", "{", r"generation_config.json: cannot be read: .*; get the file"),
    "ends that are a list": (
        "generation_config.json",
        "[2]",
        r"generation_config.json: not a JSON object; get the file",
    ),
    "an end that is a word": (
        "generation_config.json",
        '{"eos_token_id": ["</s>"]}',
        r"generation_config.json: eos_token_id: '</s>' is not the number of a token; get the file again",
    ),
    "a tokenizer's settings that are a list": (
        "tokenizer_config.json",
        "[]",
        r"checkpoint: .*tokenizer_config.json: not a JSON object; get the file again",
    ),
}


@for_each("name, content, message", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, llama: Path, name: str, content: str, message: str) -> None:
    for path in llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(ModelError, match=r"checkpoint: .*none is not a folder"):
        load(tmp_path / "none")
    (tmp_path / "tokenizer.json").write_text("{}")
    for path in llama.iterdir():
        if path.name != "tokenizer.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"checkpoint: .*tokenizer.json cannot be read: .*; get the file again"):
        load(tmp_path)
