"""Measuring an answer, apart from any server; and a server that is not there."""

from collections.abc import Iterator

import pytest

from r1plus_cli.deployment.stream import AskError, Question, StreamPiece, ask, measure


class Clock:
    """Advances by what the stream says that it took."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def stream(self, *timed: tuple[float, StreamPiece]) -> Iterator[StreamPiece]:
        """Yield each piece after its pause."""
        for pause, piece in timed:
            self.now += pause
            yield piece


def test_time_to_first_token_ends_with_the_first_text_and_the_rate_covers_the_whole_time() -> None:
    clock = Clock()
    pieces = clock.stream(
        (0.1, StreamPiece("", final=False)),
        (0.4, StreamPiece("Par", final=False, completion_tokens=1)),
        (0.5, StreamPiece("is", final=False, completion_tokens=2)),
        (1.0, StreamPiece("", final=True, finish_reason="stop", prompt_tokens=30, completion_tokens=10)),
    )
    heard: list[str] = []
    answer = measure(pieces, 100.0, heard.append, clock)
    assert answer.text == "Paris"
    assert heard == ["Par", "is"]
    assert answer.first_token_seconds == pytest.approx(0.5)
    assert answer.tokens_per_second == pytest.approx(5.0)
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 30, 10)
    assert answer.format_figures() == "10 tokens, 5 tokens/s, first token after 0.50 s"


def test_counts_survive_the_empty_response_that_closes_a_stream() -> None:
    clock = Clock()
    pieces = clock.stream(
        (0.1, StreamPiece("4", final=False, finish_reason="stop", prompt_tokens=9, completion_tokens=2)),
        (0.1, StreamPiece("", final=True)),
    )
    answer = measure(pieces, 100.0, None, clock)
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 9, 2)


def test_an_answer_without_text_has_a_time_to_first_token_all_the_same() -> None:
    clock = Clock()
    answer = measure(clock.stream((2.0, StreamPiece("", final=True, finish_reason="stop"))), 100.0, None, clock)
    assert answer.first_token_seconds == answer.seconds == 2.0
    assert answer.tokens_per_second == 0.0


def test_nobody_listening_is_an_error_that_names_the_address() -> None:
    with pytest.raises(AskError, match=r"127\.0\.0\.1:9"):
        ask("127.0.0.1:9", Question("Hello"), timeout_s=5.0)
