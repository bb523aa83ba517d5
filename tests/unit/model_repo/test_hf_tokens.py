"""Text to tokens and back, with a stand-in for transformers: its tokens are UTF-8 bytes and a few special ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from support.model_repo.stand_in_transformers import BEGIN, END, StandInTokenizer, fresh, stand_in_transformers

CONTEXT = 64


def opened(monkeypatch: pytest.MonkeyPatch, folder: Path, tokenizer: type[StandInTokenizer] = StandInTokenizer) -> Any:
    module = fresh(monkeypatch, "text.hf_tokens", {"transformers": stand_in_transformers(tokenizer)})
    return module.HfTokens(folder, CONTEXT)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    return opened(monkeypatch, tmp_path)


def decoded(ids: Sequence[int]) -> str:
    return bytes(ids).decode()


def test_nothing_is_fetched_and_no_code_of_the_checkpoint_runs(tokens: Any, tmp_path: Path) -> None:
    assert StandInTokenizer.opened[-1] == (str(tmp_path), True, False)


def test_the_chat_template_is_applied_with_the_system_message_first(tokens: Any) -> None:
    ids, limit = tokens.prepare_prompt(GenerationRequest("Hi", system="Be brief"))
    assert decoded(ids) == "system: Be brief\nuser: Hi\nassistant:"
    assert limit == CONTEXT - len(ids), "what the context leaves"


def test_a_raw_prompt_is_sent_as_it_is_with_the_special_tokens_that_no_template_wrote(tokens: Any) -> None:
    ids, limit = tokens.prepare_prompt(GenerationRequest("Hi", raw_prompt=True, max_new_tokens=5))
    assert ids == [BEGIN, *b"Hi"]
    assert limit == 5


REFUSED = {
    "too long a prompt": (GenerationRequest("x" * CONTEXT, raw_prompt=True), ["prompt has 65 tokens", "context of 64"]),
    "too long an answer": (GenerationRequest("x", raw_prompt=True, max_new_tokens=63), ["2 tokens", "63 new", "65"]),
    "what the template refuses": (GenerationRequest("forbidden"), ["text_input", "System role not supported"]),
}


@pytest.mark.parametrize(("ask", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_what_and_how_much(tokens: Any, ask: GenerationRequest, named: list[str]) -> None:
    with pytest.raises(RefusedError) as refused:
        tokens.prepare_prompt(ask)
    assert all(part in str(refused.value) for part in named), refused.value


def test_without_a_chat_template_only_raw_prompts_are_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokens = opened(monkeypatch, tmp_path, type("Plain", (StandInTokenizer,), {"chat_template": None}))
    with pytest.raises(RefusedError, match="no chat template; set raw_prompt"):
        tokens.prepare_prompt(GenerationRequest("Hi"))
    assert tokens.prepare_prompt(GenerationRequest("Hi", raw_prompt=True))[0] == [BEGIN, *b"Hi"]


def test_special_tokens_are_no_text_and_an_unfinished_character_is_marked(tokens: Any) -> None:
    assert tokens.decode([*b"Hi", END]) == "Hi"
    assert tokens.decode(list("é".encode())[:1]) == "\ufffd"
    assert tokens.decode([]) == ""


def test_who_decodes_does_not_share_a_tokenizer_with_who_encodes(tokens: Any) -> None:
    assert tokens._decoder is not tokens._tokenizer


ENDS = {
    "the tokenizer's own": (END, None, [END]),
    "one more in the checkpoint": (END, 5, [END, 5]),
    "several in the checkpoint, the own among them": (END, [7, END, 8], [END, 7, 8]),
    "only the checkpoint's": (None, [7], [7]),
}


@pytest.mark.parametrize(("own", "named", "ends"), ENDS.values(), ids=ENDS.keys())
def test_all_tokens_that_end_an_answer_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: int | None, named: Any, ends: list[int]
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named} if named else {}))
    tokens = opened(monkeypatch, tmp_path, type("Ends", (StandInTokenizer,), {"eos_token_id": own}))
    assert tokens.get_end_ids() == ends


def test_a_tokenizer_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokens = opened(monkeypatch, tmp_path, type("Endless", (StandInTokenizer,), {"eos_token_id": None}))
    with pytest.raises(ValueError, match="has no token that ends an answer"):
        tokens.get_end_ids()


@pytest.mark.parametrize("pad", [None, 0, 9])
def test_padding_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pad: int | None) -> None:
    assert opened(monkeypatch, tmp_path, type("Pads", (StandInTokenizer,), {"pad_token_id": pad})).get_pad_id() == pad
