"""What a person asks of the operator about a running deployment, beside its spec: annotations of the R1PlusDeployment.

The command line writes them, the operator reads them. One annotation per verb, each says who and why: what is asked for
last stands, and an answer is due once, to that very moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.names import GROUP

MOST_WHY: Final = 500
MOST_BY: Final = 120
"""Characters that are kept of a reason and of a name."""
MOST_AT: Final = 40


class Verb(StrEnum):
    """What is asked for."""

    ROLLBACK = "rollback"
    """Go back to the last good revision, after the same control as after a fall."""
    PIN = "pin"
    UNPIN = "unpin"
    """Traffic may move again; a revision that was rolled back from may come back."""
    ACK = "ack"
    """Somebody has looked: monitors gate anew and start afresh on a Pass, what was given up may be tried again."""

    @property
    def annotation(self) -> str:
        """Its key; a value is a `Request` as JSON."""
        return f"{GROUP}/requested-{self.value}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    by: str
    why: str
    at: str
    """RFC 3339 with microseconds: tells one request from the next."""
    revision: str = ""
    """Which revision it is about: a rollback is asked from what served at that moment, not from what came later."""

    @property
    def told(self) -> str:
        """For messages."""
        return f"{self.by}: {self.why}"


def requests_in(annotations: Mapping[str, str]) -> dict[Verb, Request]:
    """All that are readable, their texts clipped; anybody with a right to the object may have written anything."""
    found = {}
    for verb in Verb:
        if verb.annotation not in annotations:
            continue
        try:
            asked = loads(Request, annotations[verb.annotation], tolerant=True)
        except ContractError:
            continue
        found[verb] = Request(asked.by[:MOST_BY], asked.why[:MOST_WHY], asked.at[:MOST_AT], asked.revision[:63])
    return found


def written(verb: Verb, request: Request) -> dict[str, str]:
    """The annotation to write."""
    return {verb.annotation: dumps(request)}
