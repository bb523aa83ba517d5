"""What the errors of a stream say."""

import pytest

from r1plus_contract import inference
from support.tables import for_each


@pytest.mark.parametrize(
    ("message", "is_refusal"),
    [
        ("max_new_tokens: 0 is less than 1 (request x)", True),
        ("response_schema.properties.left.$ref: '#' is recursive (request x)", True),
        ("messages[2].role: 'bot' is not one of system, user, assistant, tool", True),
        ("top_p: 2 exceeds 1; seed: -1 is less than 0", True),
        ("the engine rejects these sampling parameters: top_k", True),
        ("the engine stopped; the server is restarting", False),
        ("QueueFull: the engine has 64 requests", False),
        ("seedling: is no input", False),
        ("unexpected inference input 'messages' for model 'r1plus'", False),
        ("", False),
    ],
)
def test_an_error_that_begins_with_an_input_is_a_refusal(message: str, is_refusal: bool) -> None:
    assert inference.is_refusal(message) is is_refusal


@for_each("message, parts", {
    "an input": ("top_p: 2 exceeds 1", ("top_p", "", "2 exceeds 1")),
    "a place in it": ("messages[2].role: 'a: b' is not", ("messages", "[2].role", "'a: b' is not")),
    "a path": ("response_schema.properties.a: no", ("response_schema", ".properties.a", "no")),
    "no input": ("stub: it broke", ("", "", "stub: it broke")),
    "no place at all": ("the engine rejects it", ("", "", "the engine rejects it")),
})  # fmt: skip
def test_a_refusal_is_taken_apart(message: str, parts: tuple[str, str, str]) -> None:
    assert inference.split_refusal(message) == parts


def test_what_a_refusal_says_of_the_context_is_read_again() -> None:
    for new_tokens in (1, 512):
        excess = inference.ContextExcess(2001, new_tokens, 1024)
        assert inference.read_context_excess(excess.explain("shorten it")) == excess
    assert inference.read_context_excess("prompt has 2001 tokens") is None
