"""What clients may ask. (The same refusals are asked of the real server in tests/engine.)"""

import json
from typing import Any

import pytest

from r1plus_contract.inference import Role
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError, limit_new_tokens, parse_request
from r1plus_model_repo.backends.text.messages import ChatMessage

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


def test_messages_take_the_place_of_a_prompt() -> None:
    given = (
        b'[{"role": "system", "content": "be brief"}, {"content": "gr\xc3\xbc\xc3\x9f \\ud83d\\ude80", "role": "user"}]'
    )
    request = parse_request({"messages": given, "count_only": True}, CONTEXT)
    messages = (ChatMessage(Role.SYSTEM, "be brief"), ChatMessage(Role.USER, "grüß 🚀"))
    assert request == GenerationRequest(messages=messages, count_only=True)


ONE = {"role": "user", "content": "hi"}
WRONG_MESSAGES: dict[str, tuple[Any, str]] = {
    "an unknown role": ([ONE, {"role": "bot", "content": "hi"}], "messages[1].role: 'bot' is not one of system, user,"),
    "a role that is no text": (
        [{"role": 3, "content": "hi"}],
        "messages[0].role: is a number; send one of system, user",
    ),
    "no role": ([{"content": "hi"}], "messages[0].role: missing"),
    "no content": ([{"role": "user"}], "messages[0].content: missing"),
    "content of parts": ([{"role": "user", "content": [{}]}], "messages[0].content: is an array; send text"),
    "content of nothing": ([{"role": "user", "content": None}], "messages[0].content: is null; send text"),
    "half a character": (
        [{"role": "user", "content": "a\ud800"}],
        "messages[0].content: has half a character (a lone surr",
    ),
    "a field more": ([{**ONE, "name": "x"}], "messages[0].name: unknown field; a message has role and content"),
    "a text": (["hi"], "messages[0]: is a string; send an object with role and content"),
    "no list": (ONE, "messages: is an object; send an array of objects with role and content"),
    "none": ([], "messages: is empty; send at least one message"),
    "more than the context has tokens": (
        [ONE] * 101,
        "messages: 101 messages exceed 100, the tokens of the context of 100;",
    ),
    "too long a content": (
        [{"role": "user", "content": "x" * 1601}],
        "messages: contents have 1601 bytes, more than 1600",
    ),
    "too long together": (
        [{"role": "user", "content": "é" * 401}] * 2,
        "messages: contents have 1604 bytes, more than 16",
    ),
    "many wrong": ([{"role": "bot", "content": "hi"}] * 9, "messages: 4 more problems like these"),
}


@pytest.mark.parametrize("messages, message", WRONG_MESSAGES.values(), ids=WRONG_MESSAGES.keys())
def test_a_refusal_of_messages_names_the_place(messages: Any, message: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        parse_request({"messages": json.dumps(messages).encode()}, CONTEXT)
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 1000


WRONG_JSON = {
    "no JSON": (b"{", "messages: is not JSON: Expecting property name"),
    "a key twice": (b'[{"role": "user", "role": "user", "content": "x"}]', "messages: has the key 'role' twice"),
    "not a number": (b"[NaN]", "messages: has NaN, which is no JSON number"),
    "nesting without end": (b"[" * 100_000, "messages: is nested too deeply"),
    "bytes without end": (b" " * 700_000, "messages: 700000 bytes exceed 649600"),
    "no UTF-8": (b"\xff", "messages: not UTF-8: byte 0 is 0xff"),
}


@pytest.mark.parametrize("text, message", WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_messages_that_are_no_json_are_refused(text: bytes, message: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        parse_request({"messages": text}, CONTEXT)
    assert str(refusal.value).startswith(message)


def test_more_than_ten_thousand_messages_are_refused_whatever_the_context() -> None:
    with pytest.raises(RefusedError, match=r"^messages: 10001 messages exceed 10000; leave out the oldest"):
        parse_request({"messages": json.dumps([ONE] * 10_001).encode()}, 100_000)


@pytest.mark.parametrize("name", ["text_input", "system", "raw_prompt"])
def test_messages_exclude(name: str) -> None:
    value = False if name == "raw_prompt" else b""
    with pytest.raises(RefusedError, match=f"^messages: excludes {name}; send one of them"):
        parse_request({"messages": json.dumps([ONE]).encode(), name: value}, CONTEXT)


WRONG = {
    "no prompt": ({}, "text_input: missing; send it, or messages"),
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
    "a stop list nested deep": ({"stop": b"[" * 60_000}, "stop: '[[["),
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
