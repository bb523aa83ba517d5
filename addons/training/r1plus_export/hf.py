"""`--to hf`: a Hugging Face folder, opened by transformers. The folder is the checkpoint itself."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from r1plus_export.answering import IsFinished, TextModel


class _Finished(StoppingCriteria):  # type: ignore[misc]  # Its type is not known without transformers.
    def __init__(self, begin: int, is_finished: IsFinished) -> None:
        self._begin, self._is_finished = begin, is_finished

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.tensor([self._is_finished(input_ids[0, self._begin :].tolist())])


class HuggingFaceModel:
    """A folder in transformers. Numbers are computed with in 32 bits, as the served engines do on CPU."""

    def __init__(self, folder: Path) -> None:
        options = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
        self._model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, **options).eval()
        ends = self._model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        # The checkpoint's own may punish repetition, and the engine is asked for its most likely tokens.
        self._model.generation_config = GenerationConfig(eos_token_id=sorted(self._ends), pad_token_id=min(self._ends))

    @property
    def end_ids(self) -> Collection[int]:
        """Tokens that end an answer."""
        return self._ends

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation in the chat template."""
        text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def generate(self, ids: list[int], most: int, is_finished: IsFinished) -> list[int]:
        """Return the most likely continuation."""
        tokens = torch.tensor([ids])
        result = self._model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=most,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([_Finished(len(ids), is_finished)]),
        )
        continuation: list[int] = result[0, len(ids) :].tolist()
        return continuation

    def decode(self, ids: list[int]) -> str:
        """Return the text without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def open_model(folder: Path) -> TextModel:
    """Open an exported folder."""
    return HuggingFaceModel(folder)
