"""The monitor's limits, as long as a slow machine needs where an answer is required."""

import aiohttp
import pytest


def wait_long_for_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the monitor wait for Triton's metrics for longer than a probe may."""
    monkeypatch.setattr("r1plus_monitoring.probe.client._METRICS_TIMEOUT", aiohttp.ClientTimeout(total=60))
