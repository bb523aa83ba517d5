"""`--to onnx`: a folder for ONNX Runtime GenAI, made by its own builder, and opened by it.

`python -m r1plus_export.onnx CHECKPOINT FOLDER PRECISION` makes it.
"""

import json
import runpy
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime_genai
from transformers import AutoTokenizer

from r1plus_export.answering import IsFinished, TextModel
from r1plus_export.errors import ExportError

_PRECISIONS: Final = {"F32": "fp32", "INT4": "int4"}
"""Names of the builder. On CPU it has no F16."""
GENAI_CONFIG: Final = "genai_config.json"


class OnnxModel:
    """A folder in ONNX Runtime GenAI."""

    def __init__(self, folder: Path) -> None:
        self._model = onnxruntime_genai.Model(str(folder))
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        config: dict[str, Any] = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8"))
        ends = config["model"]["eos_token_id"]
        self._ends = set(ends if isinstance(ends, list) else [ends])

    @property
    def end_ids(self) -> Collection[int]:
        """Tokens that end an answer."""
        return self._ends

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation in the chat template."""
        text = self._tokenizer.apply_chat_template(messages=json.dumps(list(messages)), add_generation_prompt=True)
        return [int(one) for one in self._tokenizer.encode(text)]

    def generate(self, ids: list[int], most: int, is_finished: IsFinished) -> list[int]:
        """Return the most likely continuation."""
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        # The folder's own defaults are the checkpoint's, which may punish repetition.
        parameters.set_search_options(
            max_length=len(ids) + most, do_sample=False, repetition_penalty=1.0, no_repeat_ngram_size=0, min_length=0
        )
        generator = onnxruntime_genai.Generator(self._model, parameters)
        generator.append_tokens(ids)
        answer: list[int] = []
        while not generator.is_done():
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
            if is_finished(answer):
                break
        return answer

    def decode(self, ids: list[int]) -> str:
        """Return the text without special tokens."""
        return str(self._tokenizer.decode(ids)) if ids else ""


def open_model(folder: Path) -> TextModel:
    """Open an exported folder."""
    return OnnxModel(folder)


def write_folder(checkpoint: Path, folder: Path, precision: str) -> None:
    """Make the folder of a checkpoint, for CPUs, by the builder's command.

    Raises:
        ExportError: the vocabulary has no token for padding.
    """
    # Beside the checkpoint, in the caller's scratch: this process may be killed.
    with tempfile.TemporaryDirectory(prefix="cache-", dir=checkpoint.parent) as cache:
        words = {"-i": checkpoint, "-o": folder, "-p": _PRECISIONS[precision], "-e": "cpu", "-c": cache}
        sys.argv[1:] = [str(word) for pair in words.items() for word in pair]
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    set_padding(folder)


def set_padding(folder: Path) -> None:
    """Write a padding token that no prompt ends with.

    ONNX Runtime GenAI reads the logits before the padding tokens at a prompt's end. For a checkpoint without one, the
    builder writes the token that ends a turn, with which a chat template may end a prompt.

    Raises:
        ExportError: the vocabulary has no such token.
    """
    path = folder / GENAI_CONFIG
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = config["model"]
    ends = model["eos_token_id"]
    used = {*(ends if isinstance(ends, list) else [ends]), model.get("bos_token_id")}
    if model["pad_token_id"] not in used:
        return
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    names = set(tokenizer.get_vocab().values())
    spare = [
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and number not in used and token.content not in (tokenizer.chat_template or "")
    ]
    spare += [number for number in range(model["vocab_size"]) if number not in names]
    if not spare:
        raise ExportError(
            f"pad_token_id: {model['pad_token_id']} begins or ends a text, and every other special token is in the chat"
            " template, so ONNX Runtime GenAI would take the end of a prompt for padding; add a special token for"
            " padding to tokenizer.json, or use --to hf"
        )
    model["pad_token_id"] = spare[0]
    path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        write_folder(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except ExportError as error:
        sys.exit(str(error))
