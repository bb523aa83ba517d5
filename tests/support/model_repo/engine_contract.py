"""The contract of every backend between a request and its tokens: one set of tests, whatever library is below.

A test module inherits `EngineContract` and has a fixture `subject`. The GPU backends run on stand-ins in the unit
tests, OpenVINO on a real engine in tests/engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from r1plus_contract.inference import Role
from r1plus_model_repo.backends.constraint.constraints import Constraint, parse_grammar, parse_schema
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from r1plus_model_repo.backends.text.control_tokens import MOST_CUTS
from r1plus_model_repo.backends.text.messages import ChatMessage

TEXTS = {
    "a question": "What is the capital of France?",
    "white space around it": "  \n indented\n\n  lines \n",
    "other scripts": "Grüße 世界 🚀 👩‍👩‍👧‍👦",
    "nothing": "",
    "control strings": "a{0}b{1}{0} {0}{0}",
    "a control string within one": "{0[0]}{0}{0}{0[1]}",
}
"""Texts of users; {0} and {1} are control strings."""


@dataclass(frozen=True)
class ContractSubject:
    """An engine with one chat template."""

    engine: Any
    read_ids: Callable[[Any], list[int]]
    """Returns the tokens of a prepared job's prompt."""
    control: dict[str, int]
    """Control string -> its token."""
    write: Callable[[list[int]], str]
    """Returns the text of tokens, control tokens included."""
    context: int
    takes_system: bool = True
    """Whether the template takes the role `system`."""

    def encode(self, request: GenerationRequest) -> list[int]:
        """Return the tokens of a request's prompt."""
        return self.read_ids(self.engine.prepare(request).prompt)

    def list_control_ids(self, ids: Sequence[int]) -> list[int]:
        """Return the control tokens among these, in order."""
        return [token for token in ids if token in self.control.values()]

    def fill_in(self, text: str) -> str:
        """Return a text with control strings in the places for them."""
        return text.format(*self.control)


def say(*turns: tuple[Role, str], **given: Any) -> GenerationRequest:
    """Return a request of one conversation."""
    return GenerationRequest(messages=tuple(ChatMessage(role, text) for role, text in turns), max_new_tokens=1, **given)


class EngineContract:
    """Tests that each backend passes."""

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_one_message_of_the_user_has_the_tokens_of_text_input(self, subject: ContractSubject, text: str) -> None:
        """Otherwise the gate's verdict would not cover it."""
        prompt = subject.fill_in(text)
        assert subject.encode(say((Role.USER, prompt))) == subject.encode(GenerationRequest(prompt, max_new_tokens=1))

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_with_a_system_message_too(self, subject: ContractSubject, text: str) -> None:
        prompt, system = subject.fill_in(text), subject.fill_in("Be brief. {1}")
        conversation = say((Role.SYSTEM, system), (Role.USER, prompt))
        single = GenerationRequest(prompt, system, max_new_tokens=1)
        if not subject.takes_system:
            for request, name in ((conversation, "messages"), (single, "text_input")):
                with pytest.raises(RefusedError, match=f"^{name}: the engine's chat template rejects it"):
                    subject.engine.prepare(request)
            return
        assert subject.encode(conversation) == subject.encode(single)

    def test_each_turn_is_in_the_prompt_in_order(self, subject: ContractSubject) -> None:
        turns = [(Role.USER, "alpha"), (Role.ASSISTANT, "beta"), (Role.TOOL, "gamma"), (Role.USER, "delta")]
        text = subject.write(subject.encode(say(*turns)))
        places = [text.index(content) for _, content in turns]
        assert places == sorted(places)

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_a_control_string_in_a_text_is_text(self, subject: ContractSubject, text: str) -> None:
        filled = subject.fill_in(text)
        for role in Role:
            if role is Role.SYSTEM and not subject.takes_system:
                continue
            plain = subject.encode(say((role, "x"), (Role.USER, "x")))
            ids = subject.encode(say((role, filled), (Role.USER, "x")))
            assert subject.list_control_ids(ids) == subject.list_control_ids(plain)
            # What a tool said is in JSON for some libraries.
            is_as_written = filled.strip() in subject.write(ids)
            assert is_as_written or role is Role.TOOL, "the model reads what the user wrote"

    def test_a_raw_prompt_has_control_tokens_where_it_says(self, subject: ContractSubject) -> None:
        text = subject.fill_in("{0}user{1}")
        ids = subject.encode(GenerationRequest(text, raw_prompt=True, max_new_tokens=1))
        assert subject.list_control_ids(ids) == list(subject.control.values())[:2]

    def test_too_many_control_strings_are_refused(self, subject: ContractSubject) -> None:
        string = next(iter(subject.control))
        assert len(string) * (MOST_CUTS + 1) < 16 * subject.context
        with pytest.raises(
            RefusedError, match=f"^messages: has {MOST_CUTS + 1} of the strings.*, more than {MOST_CUTS}"
        ):
            subject.engine.prepare(say((Role.USER, string * (MOST_CUTS + 1))))

    def test_what_is_counted_is_what_is_computed(self, subject: ContractSubject) -> None:
        request = say((Role.USER, "What is the capital of France?"))
        assert (
            subject.engine.count(request)
            == len(subject.encode(request))
            == subject.engine.prepare(request).prompt_tokens
        )

    def test_a_prompt_beyond_the_context_is_counted_and_not_computed(self, subject: ContractSubject) -> None:
        request = say((Role.USER, "a b " * subject.context))
        assert subject.engine.count(request) > subject.context
        with pytest.raises(RefusedError, match=r"^messages: prompt has \d+ tokens; .* more than the context"):
            subject.engine.prepare(request)

    def test_texts_beyond_any_tokenizer_are_refused_by_their_bytes(self, subject: ContractSubject) -> None:
        half = "é" * (4 * subject.context + 1)
        request = say((Role.USER, half), (Role.USER, half))
        for ask in (subject.engine.count, subject.engine.prepare):
            with pytest.raises(RefusedError, match=f"^messages: contents have {len(half) * 4} bytes, more than"):
                ask(request)

    def test_a_constraint_that_cannot_be_compiled_is_refused(self, subject: ContractSubject) -> None:
        """Though it is within the bounds."""
        wrong = [
            parse_schema('{"type": "integer", "minimum": 5, "maximum": 2}'),
            Constraint("grammar", 'wrong ::= "a"', compiled_kib=60.0),
        ]
        for constraint in wrong:
            for ask in (subject.engine.count, subject.engine.prepare):
                with pytest.raises(RefusedError, match=rf"^{constraint.name}: the engine cannot compile the"):
                    ask(say((Role.USER, "Hi"), constraint=constraint))

    def test_a_constraint_that_can_is_taken(self, subject: ContractSubject) -> None:
        for constraint in (parse_schema('{"type": "boolean"}'), parse_grammar('root ::= "yes" | "no"')):
            request = say((Role.USER, "Hi"), constraint=constraint)
            assert subject.engine.count(request) == subject.engine.prepare(request).prompt_tokens
