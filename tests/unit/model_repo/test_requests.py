"""What clients may ask. (The same refusals are asked of the real server in tests/engine.)"""

import pytest

from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, limit_new_tokens, parse_request

CONTEXT = 100


def test_a_prompt_alone_is_greedy() -> None:
    assert parse_request({"text_input": b"hi"}, CONTEXT) == GenerationRequest("hi")


def test_everything_given_is_read() -> None:
    given = {
        "text_input": "grüß dich".encode(),
        "system": b"be brief",
        "raw_prompt": True,
        "max_new_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.25,
        "repetition_penalty": 1.5,
        "seed": 2**64 - 1,
        "stop": b'["\\n", "x"]',
    }
    assert parse_request(given, CONTEXT) == GenerationRequest(
        "grüß dich", "be brief", True, 7, 0.5, 0.25, 1.5, 2**64 - 1, ("\n", "x")
    )


WRONG = {
    "no prompt": ({}, "text_input: missing"),
    "no tokens": ({"max_new_tokens": 0}, "max_new_tokens: 0 is less than 1"),
    "a cold temperature": ({"temperature": -1.0}, "temperature: -1 must be at least 0"),
    "a hot temperature": ({"temperature": 101.0}, "temperature: 101 exceeds 100"),
    "an endless temperature": ({"temperature": float("inf")}, "temperature: inf is not a finite number"),
    "no probability": ({"top_p": 0.0}, "top_p: 0 must be greater than 0"),
    "too much probability": ({"top_p": 1.5}, "top_p: 1.5 exceeds 1"),
    "no penalty": ({"repetition_penalty": 0.0}, "repetition_penalty: 0 must be greater than 0"),
    "bytes that are no text": ({"system": b"ab\xff"}, "system: not UTF-8: byte 2 is 0xff"),
    "stop that is no list": ({"stop": b'"x"'}, "stop: '\"x\"' is not a JSON array of non-empty strings"),
    "stop with a number": ({"stop": b"[1]"}, "stop: '[1]' is not a JSON array"),
    "a stop string too long": ({"stop": b'["%s"]' % (b"x" * 257)}, "stop: a string of 257 characters exceeds 256"),
    "a prompt beyond any tokenizer": (
        {"text_input": b"x" * 1598, "system": b"abc"},
        "text_input: prompt and system message have 1601 bytes, more than 1600, which is 16 for each of the 100 tokens",
    ),
    "a stop list without end": ({"stop": b"[" * 70_000}, "stop: 70000 bytes exceed 65536"),
    "too many stop strings": ({"stop": b'["a"%s]' % (b',"a"' * 16)}, "stop: 17 strings exceed 16"),
}


@pytest.mark.parametrize("given, message", WRONG.values(), ids=WRONG.keys())
def test_a_refusal_names_input_value_and_limit(given: dict[str, object], message: str) -> None:
    base = {} if message.startswith("text_input") else {"text_input": b"hi"}
    with pytest.raises(RefusedError) as refusal:
        parse_request({**base, **given}, CONTEXT)
    assert message in str(refusal.value)


def test_a_prompt_of_as_many_bytes_as_may_be_is_taken() -> None:
    assert parse_request({"text_input": b"x" * 1597, "system": b"abc"}, CONTEXT) == GenerationRequest("x" * 1597, "abc")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RefusedError) as refusal:
        parse_request({"top_p": 2.0, "max_new_tokens": -1, "stop": b"no"}, CONTEXT)
    assert all(name in str(refusal.value) for name in ("text_input", "top_p", "max_new_tokens", "stop"))


ROOM = {
    "asked for and fitting": (100, 100, 8192, 100),
    "open: the default": (None, 100, 8192, 512),
    "open, with little room: what is left": (None, 8000, 8192, 192),
    "open, one token left": (None, 8191, 8192, 1),
    "exactly to the end": (512, 7680, 8192, 512),
}


@pytest.mark.parametrize("asked, prompt, context, expected", ROOM.values(), ids=ROOM.keys())
def test_room_for_the_answer(asked: int | None, prompt: int, context: int, expected: int) -> None:
    assert limit_new_tokens(GenerationRequest("", max_new_tokens=asked), prompt, context) == expected


TOO_LONG = {
    "prompt and answer": (
        512,
        9123,
        "prompt has 9123 tokens; with 512 new tokens that is 9635, more than the context of 8192",
    ),
    "the answer alone": (
        8192,
        1,
        "prompt has 1 tokens; with 8192 new tokens that is 8193, more than the context of 8192",
    ),
    "one too many": (513, 7680, "that is 8193"),
    "no room at all": (None, 8192, "with 1 new token that is 8193"),
    "an empty prompt": (1, 0, "text_input: is empty"),
}


@pytest.mark.parametrize("asked, prompt, message", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_too_long_is_refused_with_both_lengths(asked: int | None, prompt: int, message: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        limit_new_tokens(GenerationRequest("", max_new_tokens=asked), prompt, 8192)
    assert message in str(refusal.value)
