"""What a check of a cluster says: how good it is, what was seen, what to do, and the chart's values that follow."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from r1plus_cli.preflight.cluster_view import ClusterView


class CheckLevel(StrEnum):
    """How good an outcome is. Only FAIL keeps r1plus from being installed, or tenants from being isolated."""

    OK = "OK"
    WARN = "Warn"
    FAIL = "Fail"


@dataclass(frozen=True, slots=True)
class ChartValue:
    """A value of the chart that this cluster needs."""

    path: str
    """Names of the fields with dots between them, such as monitoring.namespace."""
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """What one check says."""

    level: CheckLevel
    seen: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""
    values: tuple[ChartValue, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """A check: a pure function over what was read of the cluster."""

    name: str
    why: str
    """Why it matters."""
    judge: Callable[[ClusterView], CheckOutcome]


def ok(seen: str, *values: ChartValue) -> CheckOutcome:
    """Return the outcome of what is as it should be; values of the chart may make it so."""
    return CheckOutcome(CheckLevel.OK, seen, "", values)


def warn(seen: str, remedy: str, *values: ChartValue) -> CheckOutcome:
    """Return the outcome of what r1plus can be installed with, and what a person should know."""
    return CheckOutcome(CheckLevel.WARN, seen, remedy, values)


def fail(seen: str, remedy: str) -> CheckOutcome:
    """Return the outcome of what has to be changed first."""
    return CheckOutcome(CheckLevel.FAIL, seen, remedy)


def not_known(plural: str) -> CheckOutcome:
    """Return the outcome of a list that the user may not read."""
    return warn(f"not known: you may not list {plural}", f"run preflight as a user that may list {plural}")
