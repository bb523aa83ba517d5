"""What a panel would show: its queries put to a Prometheus, as Grafana puts them."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 30.0


class AskingError(Exception):
    """Prometheus gave no answer, or refused the query in its own words."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What Grafana puts for its variables."""

    namespace: str
    deployment: str
    model: str = ".*"
    key: str = ".*"
    rate_interval: str = "2m"
    """At least four scrapes."""
    span: str = "1h"

    def fill(self, expr: str) -> str:
        """`expr` with all of its variables replaced; ValueError names one that is not known."""
        values = {
            "$namespace": self.namespace,
            "$deployment": self.deployment,
            "$model": self.model,
            "$key": self.key,
            "$__rate_interval": self.rate_interval,
            "$__range": self.span,
        }
        for name, value in values.items():
            expr = expr.replace(name, value)
        if "$" in expr:
            raise ValueError(f"A variable that is not known: {expr}")
        return expr


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, how finely; seconds since the epoch."""

    start: float
    end: float
    step: float


@dataclass(frozen=True, slots=True)
class Line:
    """One series: labels, times in seconds since the epoch, values without NaN."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]


def ask(url: str, expr: str, window: Window) -> list[Line]:
    """Every series that has a number at some time in `window`. AskingError where there is no answer."""
    asked = {"query": expr, "start": window.start, "end": window.end, "step": window.step}
    data = _get(f"{url.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(asked)}")
    lines = [_line(one) for one in data["result"]]
    return [line for line in lines if line.values]


def rules(url: str) -> list[dict[str, Any]]:
    """Every alerting rule that Prometheus has loaded."""
    groups = _get(f"{url.rstrip('/')}/api/v1/rules?type=alert")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _line(raw: dict[str, Any]) -> Line:
    numbers = [(float(at), float(value)) for at, value in raw["values"]]
    numbers = [(at, value) for at, value in numbers if not math.isnan(value)]
    return Line(raw["metric"], tuple(at for at, _ in numbers), tuple(value for _, value in numbers))


def _get(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            data: dict[str, Any] = json.loads(answer.read())["data"]
            return data
    except urllib.error.HTTPError as error:
        raise AskingError(f"{url}: {error.code} {error.read().decode(errors='replace')[:500]}") from error
    except (OSError, ValueError, KeyError) as error:
        raise AskingError(f"{url}: {error}") from error
