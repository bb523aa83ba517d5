"""What is expected of a bad input: refused at admission, taken and served, or without a field to be in."""

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

POLICIES = frozenset({"ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"})
"""Children of a deployment that has nothing to serve yet."""
ALL = POLICIES | {"ControllerRevision", "ConfigMap", "Deployment", "Service"}
ROLLING_OUT = ("Progressing", "True", "RollingOut")


@dataclass(frozen=True, slots=True)
class Refused:
    """By the API server, with these words. A text is sent as it is."""

    sent: Json | str
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """By the API server; the operator then says `condition`, with `says` in its message, and has made `children`."""

    sent: Json
    condition: tuple[str, str, str] = ROLLING_OUT
    says: str = ""
    children: frozenset[str] = ALL
    then: str = ""
    """What happens next: "edited", "recreated", "deleted", "collected" (`test_bad_input`)."""


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The schema has no field that could hold it, and why; `field` is where it would be, below `spec`."""

    why: str
    field: str


Case = Refused | Taken | NoRoom
