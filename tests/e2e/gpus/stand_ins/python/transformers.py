"""A stand-in for transformers, in the image that stands for NVIDIA's: tokens are bytes, and 256 is the end."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class AutoTokenizer:
    """What `r1plus_model_repo.backends.text.hf_tokens` uses of it."""

    eos_token_id, pad_token_id, chat_template = 256, None, "a template"
    added_tokens_decoder: ClassVar[dict[int, object]] = {}

    @classmethod
    def from_pretrained(cls, name: str, *, local_files_only: bool, trust_remote_code: bool) -> "AutoTokenizer":
        """From a folder alone, and no code of it."""
        assert local_files_only
        assert not trust_remote_code
        assert (Path(name) / "tokenizer.json").is_file()
        return cls()

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Bytes."""
        return list(text.encode())

    def decode(self, ids: Sequence[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Text of bytes; the end is none."""
        return bytes(i for i in ids if i < self.eos_token_id).decode(errors="replace")

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Who says what, in angle brackets."""
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"
