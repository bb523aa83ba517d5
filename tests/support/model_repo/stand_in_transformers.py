"""A stand-in for transformers, and modules of the backends as they are where such libraries are installed."""

import importlib
import re
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

BACKENDS = "r1plus_model_repo.backends"
BEGIN, END = 256, 257
TURN, TURN_END = "<|turn|>", "<|end|>"
ADDED = {258: (TURN, False), 259: (TURN_END, True), 260: ("<|pad|>", True), 261: ("  ", False)}
"""Added tokens: text, and whether special. The first is not, but the templates write it; the last is white space."""
_SPLIT = re.compile("|".join(map(re.escape, (text for text, _ in ADDED.values()))))
PLAIN_TEMPLATE = "plain"
TEMPLATES = (PLAIN_TEMPLATE, f"turns as {TURN}", f"turns as {TURN}, no system message")
"""Chat templates: a role in words; control tokens around each turn; the same, and the role `system` is refused."""


@dataclass(frozen=True)
class AddedToken:
    content: str
    special: bool


class StandInTokenizer:
    """As strict as transformers' own: it takes the keywords that are used of it, and no others."""

    eos_token_id: int | None = END
    pad_token_id: int | None = None
    chat_template: str | None = PLAIN_TEMPLATE
    opened: ClassVar[list[tuple[str, bool, bool]]] = []

    @classmethod
    def from_pretrained(
        cls, name: str, *, local_files_only: bool = False, trust_remote_code: bool = False
    ) -> "StandInTokenizer":
        cls.opened.append((name, local_files_only, trust_remote_code))
        return cls()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return {number: AddedToken(*token) for number, token in ADDED.items()}

    @property
    def backend_tokenizer(self) -> Any:
        return SimpleNamespace(to_str=lambda: "the tokenizer, serialised")

    def get_vocab(self) -> dict[str, int]:
        added = {text: number for number, (text, _) in ADDED.items()}
        return {**added, "<begin>": BEGIN, "<end>": END, **{f"byte {n}": n for n in range(BEGIN)}}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids, begin = [BEGIN] * add_special_tokens, 0
        numbers = {added: number for number, (added, _) in ADDED.items()}
        for match in _SPLIT.finditer(text):
            ids += [*text[begin : match.start()].encode(), numbers[match.group()]]
            begin = match.end()
        return [*ids, *text[begin:].encode()]

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
        if self.chat_template == PLAIN_TEMPLATE:
            return "".join(f"{turn['role']}: {turn['content']}\n" for turn in conversation) + "assistant:"
        if self.chat_template == TEMPLATES[2] and any(turn["role"] == "system" for turn in conversation):
            raise LookupError("System role not supported")
        # White space around a content is taken away, as templates in use do.
        turns = (f"{TURN}{turn['role']}\n{turn['content'].strip()}{TURN_END}\n" for turn in conversation)
        return "".join(turns) + f"{TURN}assistant\n"


def stand_in_transformers(tokenizer: type[StandInTokenizer] = StandInTokenizer) -> ModuleType:
    module = ModuleType("transformers")
    module.AutoTokenizer = tokenizer  # type: ignore[attr-defined]
    return module


def stand_in_xgrammar() -> ModuleType:
    """It reads any schema but one with a minimum of 5, and any grammar with a root."""

    class Grammar:
        @staticmethod
        def from_json_schema(schema: dict[str, Any]) -> None:
            assert isinstance(schema, dict)
            if schema.get("minimum") == 5:
                raise RuntimeError("Invalid range: minimum greater than maximum")

        @staticmethod
        def from_ebnf(grammar: str) -> None:
            if "root ::=" not in grammar:
                raise RuntimeError("The root rule is not found")

    module = ModuleType("xgrammar")
    module.Grammar = Grammar  # type: ignore[attr-defined]
    return module


def fresh(monkeypatch: pytest.MonkeyPatch, name: str, modules: dict[str, ModuleType]) -> Any:
    """A module of the backends as it is where these are installed."""
    installed = {"transformers": stand_in_transformers(), "xgrammar": stand_in_xgrammar(), **modules}
    for key, module in installed.items():
        monkeypatch.setitem(sys.modules, key, module)
    for cached in ("text.hf_tokens", name):
        monkeypatch.delitem(sys.modules, f"{BACKENDS}.{cached}", raising=False)
    try:
        return importlib.import_module(f"{BACKENDS}.{name}")
    finally:
        # Whoever imports it next must not get what was imported with stand-ins.
        for cached in ("text.hf_tokens", name):
            sys.modules.pop(f"{BACKENDS}.{cached}", None)
