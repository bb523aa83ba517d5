"""A stand-in for transformers, and modules of the backends as they are where such libraries are installed."""

import importlib
import sys
from types import ModuleType
from typing import Any, ClassVar

import pytest

BACKENDS = "r1plus_model_repo.backends"
BEGIN, END = 256, 257


class StandInTokenizer:
    """As strict as transformers' own: it takes the keywords that are used of it, and no others."""

    eos_token_id: int | None = END
    pad_token_id: int | None = None
    chat_template: str | None = "a template"
    opened: ClassVar[list[tuple[str, bool, bool]]] = []

    @classmethod
    def from_pretrained(
        cls, name: str, *, local_files_only: bool = False, trust_remote_code: bool = False
    ) -> "StandInTokenizer":
        cls.opened.append((name, local_files_only, trust_remote_code))
        return cls()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [BEGIN] * add_special_tokens + list(text.encode())

    def decode(
        self, token_ids: list[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        assert clean_up_tokenization_spaces is False
        assert skip_special_tokens
        return bytes(token for token in token_ids if token < BEGIN).decode(errors="replace")

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool = True, add_generation_prompt: bool = False
    ) -> str:
        assert add_generation_prompt
        assert not tokenize
        if any(turn["content"] == "forbidden" for turn in conversation):
            raise LookupError("System role not supported")
        return "".join(f"{turn['role']}: {turn['content']}\n" for turn in conversation) + "assistant:"


def stand_in_transformers(tokenizer: type[StandInTokenizer] = StandInTokenizer) -> ModuleType:
    module = ModuleType("transformers")
    module.AutoTokenizer = tokenizer  # type: ignore[attr-defined]
    return module


def fresh(monkeypatch: pytest.MonkeyPatch, name: str, modules: dict[str, ModuleType]) -> Any:
    """A module of the backends as it is where these are installed."""
    for key, module in {"transformers": stand_in_transformers(), **modules}.items():
        monkeypatch.setitem(sys.modules, key, module)
    for cached in ("hf_tokens", name):
        monkeypatch.delitem(sys.modules, f"{BACKENDS}.{cached}", raising=False)
    try:
        return importlib.import_module(f"{BACKENDS}.{name}")
    finally:
        # Whoever imports it next must not get what was imported with stand-ins.
        for cached in ("hf_tokens", name):
            sys.modules.pop(f"{BACKENDS}.{cached}", None)
