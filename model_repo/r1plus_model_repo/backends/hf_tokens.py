"""Text to tokens and back with a Hugging Face tokenizer: what the GPU engines share.

Checked against the sources of transformers 4.57.1, 5.0.0 and 5.24.0: tokenization_utils_base.py, the fast tokenizers.
"""

import copy
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from r1plus_contract import inference
from r1plus_model_repo.backends.requests import Ask, RefusedError, check_size, new_tokens

GENERATION_CONFIG = "generation_config.json"
"""Beside a checkpoint; names all tokens that end an answer, where there are several."""


class HfTokens:
    """The tokenizer in `folder`, which is read from there alone: nothing is fetched, no code of it is run."""

    def __init__(self, folder: Path, context: int) -> None:
        self._folder = folder
        self._context = context
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        # Triton's thread encodes while the loop's decodes, and a tokenizer has state of its own: each has its own one.
        self._decoder = copy.deepcopy(self._tokenizer)
        self._encoding = threading.Lock()

    def fit(self, ask: Ask) -> tuple[list[int], int]:
        """The prompt's tokens, and how many may be generated; RefusedError. Safe from any thread."""
        check_size(ask.prompt, ask.system, self._context)
        with self._encoding:
            text = ask.prompt if ask.raw_prompt else self._chat(ask)
            # The template writes the special tokens that a raw prompt still lacks.
            ids = list(self._tokenizer.encode(text, add_special_tokens=ask.raw_prompt))
        return ids, new_tokens(ask, len(ids), self._context)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens to text without the special ones; an unfinished character at the end is U+FFFD.

        Spaces stay as they are: tidying them up would change text that was already sent.
        """
        if not ids:
            return ""
        return str(self._decoder.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def end_ids(self) -> list[int]:
        """The tokens that end an answer: the tokenizer's own first, then what else the checkpoint names."""
        own = self._tokenizer.eos_token_id
        path = self._folder / GENERATION_CONFIG
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        more = named if isinstance(named, list) else [named]
        ids = list(dict.fromkeys(token for token in (own, *more) if token is not None))
        if not ids:
            raise ValueError(f"{self._folder} names no token that ends an answer")
        return ids

    def pad_id(self) -> int | None:
        """The padding token, where there is one."""
        return None if self._tokenizer.pad_token_id is None else int(self._tokenizer.pad_token_id)

    def _chat(self, ask: Ask) -> str:
        if not self._tokenizer.chat_template:
            raise RefusedError(
                f"{inference.PROMPT}: the engine's tokenizer has no chat template; set {inference.RAW_PROMPT}"
            )
        system = [{"role": "system", "content": ask.system}] if ask.system else []
        messages = [*system, {"role": "user", "content": ask.prompt}]
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template raises what it likes, e.g. where it knows no system message
            raise RefusedError(f"{inference.PROMPT}: the engine's chat template refuses it: {error}") from error
