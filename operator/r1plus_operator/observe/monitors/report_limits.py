"""Limits of the numbers in a monitor's report. Called by the monitor poller.

A compromised pod may report any number, and the status has room for real ones: it is written before anything else, so
one that is too long would hold up all that a pass does for the deployment.
"""

import dataclasses
from typing import Any, Final

from r1plus_contract.jsonable import ContractError, to_camel_case
from r1plus_contract.verdict import MonitorReport, SweepFigures

MOST_COUNT: Final = 10**9
"""Items, probes, sweeps or restarts: far more than any suite or monitor has, and ten digits."""
_UNLIMITED: Final = frozenset({"sequence", "user_requests"})
"""The former is a clock's, and of the latter a negative one counts as unknown."""


def check_report(report: MonitorReport) -> None:
    """Raise ContractError where a count is no count, or a sweep has more right answers than answers."""
    _check(report, "MonitorReport")


def _check(value: Any, path: str) -> None:
    if isinstance(value, tuple):
        for number, item in enumerate(value):
            _check(item, f"{path}[{number}]")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in _UNLIMITED:
                _check(getattr(value, field.name), f"{path}.{to_camel_case(field.name)}")
        if isinstance(value, SweepFigures) and value.correct > value.total:
            raise ContractError(f"{path}.correct: {value.correct} of {value.total} cannot be right")
    elif isinstance(value, int) and not 0 <= value <= MOST_COUNT:
        raise ContractError(f"{path}: {value} is not between 0 and {MOST_COUNT}")
