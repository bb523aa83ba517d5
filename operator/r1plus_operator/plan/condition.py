"""What a derivation finds for one condition."""

from dataclasses import dataclass

from r1plus_operator.api.conditions import Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition's content."""

    status: str
    reason: Reason
    message: str
