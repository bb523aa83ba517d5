"""Conversion between text and tokens with a Hugging Face tokenizer, for all engines but OpenVINO's.

Checked against the sources of transformers 4.57.1, 5.0.0 and 5.24.0: tokenization_utils_base.py, the fast tokenizers.
Run on 5.24.0 with SmolLM2's tokenizer: the prompts of all shipped suites have the token ids that OpenVINO gives them.
"""

import copy
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from r1plus_contract import inference
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, check_request_size, limit_new_tokens
from r1plus_model_repo.backends.text.control_tokens import ControlTokens

GENERATION_CONFIG = "generation_config.json"
"""Next to a checkpoint; names all tokens that end an answer, if there are several."""


class HfTokens:
    """The tokenizer in `folder`: nothing is downloaded, and no code of the folder runs."""

    def __init__(self, folder: Path, context: int) -> None:
        self._folder = folder
        self._context = context
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        # Triton's thread encodes while the loop's thread decodes, and a tokenizer has state: each uses its own.
        self._decoder = copy.deepcopy(self._tokenizer)
        self._encoding = threading.Lock()
        self._control = ControlTokens(self._list_control_strings())

    @property
    def library_tokenizer(self) -> Any:
        """The library's own tokenizer, for what reads its vocabulary."""
        return self._tokenizer

    def prepare_prompt(self, request: GenerationRequest) -> tuple[list[int], int]:
        """Return the prompt's tokens and how many may be generated. Raise RefusedError. Safe from any thread."""
        ids = self.encode_prompt(request)
        return ids, limit_new_tokens(request, len(ids), self._context)

    def encode_prompt(self, request: GenerationRequest) -> list[int]:
        """Return the prompt's tokens. Raise RefusedError. Safe from any thread."""
        check_request_size(request, self._context)
        with self._encoding:
            if request.raw_prompt:  # The template adds special tokens; a raw prompt needs them added here.
                return list(self._tokenizer.encode(request.prompt, add_special_tokens=True))
            conversation, mark = self._control.mark(request)
            text = self._apply_template(conversation, mark, request.prompt_input)
            pieces = text.split(mark) if mark else [text]
            return [token for piece in pieces for token in self._tokenizer.encode(piece, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens without the special ones; an incomplete character at the end is U+FFFD.

        Spaces stay as they are: cleaning them up would change text that was already sent.
        """
        if not ids:
            return ""
        return str(self._decoder.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def get_end_ids(self) -> list[int]:
        """Return the tokens that end an answer: the tokenizer's own first, then those of the checkpoint."""
        tokenizer_id = self._tokenizer.eos_token_id
        path = self._folder / GENERATION_CONFIG
        config_ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        further_ids = config_ids if isinstance(config_ids, list) else [config_ids]
        ids = list(dict.fromkeys(token for token in (tokenizer_id, *further_ids) if token is not None))
        if not ids:
            raise ValueError(
                f"{self._folder} has no token that ends an answer (eos_token); export the checkpoint again"
            )
        return ids

    def list_vocabulary(self) -> list[str]:
        """Return the tokens, as the tokenizer writes them, by id."""
        vocabulary = self._tokenizer.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    def dump_tokenizer(self) -> str | None:
        """Return the tokenizer as its library serialises it, which says how tokens are written; None if it cannot."""
        library = getattr(self._tokenizer, "backend_tokenizer", None)
        return None if library is None else str(library.to_str())

    def get_pad_id(self) -> int | None:
        """Return the padding token, or None."""
        return None if self._tokenizer.pad_token_id is None else int(self._tokenizer.pad_token_id)

    def _apply_template(self, conversation: list[dict[str, str]], mark: str, name: str) -> str:
        """Return the text of a conversation. `name` is the input that it came from, for errors."""
        if not self._tokenizer.chat_template:
            remedy = (
                f"set {inference.RAW_PROMPT}"
                if name == inference.PROMPT
                else f"send {inference.PROMPT} with {inference.RAW_PROMPT}"
            )
            raise RefusedError(f"{name}: the engine's tokenizer has no chat template; {remedy}")
        try:
            return str(self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template may raise anything, e.g. if it does not support a system message
            reason = str(error).replace(mark, "") if mark else str(error)
            raise RefusedError(f"{name}: the engine's chat template rejects it: {reason}") from error

    def _list_control_strings(self) -> list[str]:
        """Return the strings of added tokens that are special, or that the chat template writes."""
        template = str(self._tokenizer.chat_template or "")
        return [
            token.content
            for token in self._tokenizer.added_tokens_decoder.values()
            if token.special or token.content in template
        ]
