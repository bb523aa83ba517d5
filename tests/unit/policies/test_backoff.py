"""Delays after failures in a row."""

from __future__ import annotations

import pytest

from r1plus_policies.backoff import double_delay


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [
        pytest.param(1, 1.0, id="the first failure waits the first delay"),
        pytest.param(2, 2.0, id="the second twice that"),
        pytest.param(5, 16.0, id="and so on"),
        pytest.param(6, 30.0, id="to the longest"),
        pytest.param(10_000, 30.0, id="where it stays, without overflow"),
    ],
)
def test_double_delay(failures: int, seconds: float) -> None:
    assert double_delay(failures, 1.0, 30.0) == seconds
