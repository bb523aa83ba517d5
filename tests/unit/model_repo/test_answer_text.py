"""Tokens to text: whole characters, and nothing of a stop string. A token here is a byte or several."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_model_repo.backends.text.answer_text import AnswerText


def ignoring(ids: Sequence[int]) -> str:
    """A detokenizer that leaves unfinished characters out, as OpenVINO's does."""
    return bytes(ids).decode("utf-8", errors="ignore")


def replacing(ids: Sequence[int]) -> str:
    """One that shows them as U+FFFD."""
    return bytes(ids).decode("utf-8", errors="replace")


DECODERS = pytest.mark.parametrize("decode", [ignoring, replacing], ids=lambda f: f.__name__)


def pieces(
    text: str | bytes, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...], size: int = 1
) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    answer = AnswerText(decode, stop)
    out = [answer.push(list(data[i : i + size])) for i in range(0, len(data), size)]
    return [*out, answer.finish()]


STOPS = {
    "no stop string": ("hello", (), "hello"),
    "in the middle": ("hello world", ("wor",), "hello "),
    "at the very start": ("hello", ("he",), ""),
    "at the very end": ("hello", ("lo",), "hel"),
    "the first that appears wins": ("one two three", ("three", "two"), "one "),
    "one that begins twice before it comes": ("aaab", ("aab",), "a"),
    "one that begins and never comes": ("a line\nof text", ("\nEND",), "a line\nof text"),
    "one that begins at the end and is cut": ("text\nEN", ("\nEND",), "text\nEN"),
    "one inside another: the first to be complete": ("abcd", ("bcd", "c"), "ab"),
    "of several bytes": ("grüße 世界!", ("世界",), "grüße "),
}


@DECODERS
@pytest.mark.parametrize("size", [1, 2, 3, 7], ids="tokens of {} bytes".format)
@pytest.mark.parametrize("text, stop, expected", STOPS.values(), ids=STOPS.keys())
def test_the_answer_ends_before_the_stop_string(
    text: str, stop: tuple[str, ...], expected: str, size: int, decode: Callable[[Sequence[int]], str]
) -> None:
    joined = "".join(pieces(text, decode, stop, size))
    assert joined == expected


def test_what_cannot_become_a_stop_string_is_not_held_back() -> None:
    assert pieces("abXcdXY!", ignoring, ("XYZ",))[:-1] == ["a", "b", "", "Xc", "d", "", "", "XY!"]


@DECODERS
def test_a_character_of_four_bytes_comes_at_its_last(decode: Callable[[Sequence[int]], str]) -> None:
    assert pieces("a🙂b", decode, ()) == ["a", "", "", "", "🙂", "b", ""]


@DECODERS
def test_a_character_that_never_becomes_whole_is_left_out(decode: Callable[[Sequence[int]], str]) -> None:
    assert "".join(pieces("ab🙂".encode()[:-1], decode, ())) == "ab"


def test_a_piece_is_decoded_with_no_more_than_the_token_before_it() -> None:
    sizes: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        sizes.append(len(ids))
        return ignoring(ids)

    answer = AnswerText(decode)
    answer.push(list(b"four"))
    sizes.clear()
    assert answer.push(list(b"more")) == "more"
    assert sorted(sizes) == [1, 1, 5]


@pytest.mark.unit_slow
@DECODERS
@given(text=st.text(max_size=40).filter(lambda t: "\ufffd" not in t), size=st.integers(1, 6))
def test_pieces_join_to_the_text_and_each_is_whole(
    text: str, size: int, decode: Callable[[Sequence[int]], str]
) -> None:
    assert "".join(pieces(text, decode, (), size)) == text


@given(text=st.text("abc", max_size=30), stop=st.text("abc", min_size=1, max_size=4), size=st.integers(1, 4))
def test_any_stop_string_ends_any_text_at_its_first_place(text: str, stop: str, size: int) -> None:
    assert "".join(pieces(text, ignoring, (stop,), size)) == text.split(stop)[0]
