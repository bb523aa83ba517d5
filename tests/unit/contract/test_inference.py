"""What the errors of a stream say."""

import pytest

from r1plus_contract import inference


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
