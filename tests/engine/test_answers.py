"""What a client gets from the served engine: pieces, reasons, counts, whole characters, refusals."""

import pytest

from engine.asking import Client

pytestmark = pytest.mark.triton


def test_an_answer_streams_in_pieces_and_ends_with_reason_and_counts(ask: Client) -> None:
    answer = ask("What is the capital of France?", max_new_tokens=24)
    assert len(answer.pieces) > 2
    assert "Paris" in answer.text
    assert answer.reason == "stop"
    assert answer.prompt_tokens > 10
    assert 2 < answer.tokens <= 24
