"""What the operator counts of its own passes."""

import pytest
from prometheus_client import generate_latest

from r1plus_contract import metrics
from r1plus_operator.metrics.instruments import OperatorMetrics

NOW = 1_800_000_000.0


def value(instruments: OperatorMetrics, series: str) -> float:
    lines = generate_latest(instruments.registry).decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{series} ")).rsplit(" ", 1)[1])


@pytest.mark.parametrize("result", ["ok", "error"])
async def test_a_pass_is_counted_and_dated_if_it_goes_well(result: str) -> None:
    elapsed = iter((10.0, 10.25))
    instruments = OperatorMetrics(lambda: next(elapsed), lambda: NOW)
    counted, dated = f'{metrics.RECONCILE_TOTAL}{{result="{result}"}}', metrics.LAST_PASS_TIMESTAMP_SECONDS
    assert (value(instruments, counted), value(instruments, dated)) == (0, 0)

    async def handle(_key: str) -> None:
        if result == "error":
            raise ValueError("no")

    try:
        await instruments.time_pass(handle)("key")
    except ValueError:
        assert result == "error"
    assert value(instruments, counted) == 1
    assert value(instruments, f"{metrics.RECONCILE_DURATION_SECONDS}_sum") == 0.25
    assert value(instruments, dated) == (NOW if result == "ok" else 0)
