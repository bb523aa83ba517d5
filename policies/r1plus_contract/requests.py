"""What a person asks of the operator about a running deployment, beside its spec: annotations of the R1PlusDeployment.

The command line writes them, the operator reads them. One annotation per verb, each says who and why. Requests of one
object are numbered from 1 without a gap, so that no clock decides which came last; each is answered once. Where
admission policies are on, the API server holds a request to its author, its number and its object (docs/admission.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.names import GROUP

MOST_WHY: Final = 500
MOST_BY: Final = 120
"""Characters that are kept of a reason and of a name."""
MOST_AT: Final = 40
MOST_ORDER: Final = 10**15 - 1
"""Also what the policy `requests` takes."""
ANNOTATION_COUNT: Final = f"{GROUP}/requests"
"""Key of the annotation that holds the number of the newest request."""


class Verb(StrEnum):
    """What is asked for."""

    ROLLBACK = "rollback"
    """Go back to the last good revision, after the same control as after a fall."""
    PIN = "pin"
    UNPIN = "unpin"
    """Traffic may move again; a revision that was rolled back from may come back."""
    PAUSE = "pause"
    """Nothing but the walls is moved or put right, so that people can work on the deployment by hand."""
    RESUME = "resume"
    """The operator puts everything right again, and rolls out what the spec asks for."""
    ACK = "ack"
    """Somebody has looked: monitors gate anew and start afresh on a Pass, what was given up may be tried again."""
    REFRESH = "refresh"
    """Bring what serves to the images that the operator has now, by a candidate that is gated like any other."""

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
    """RFC 3339 with microseconds, by the clock of whoever asks."""
    revision: str = ""
    """Which revision it is about: a rollback or a refresh is asked of what served at that moment, not of what came
    later."""
    order: int = 0
    """Its number among the requests of its object; 0 where it was written before requests had one."""
    uid: str = ""
    """Of the object: what was copied to another object asks nothing of that one. Empty like `order`."""

    @property
    def told(self) -> str:
        """For messages."""
        return f"{self.by}: {self.why}"

    @property
    def token(self) -> str:
        """Tells one request from the next."""
        return f"{self.at}#{self.order}" if self.order else self.at

    @property
    def rank(self) -> tuple[int, str]:
        """Greater for what was asked for later; without numbers the clocks decide."""
        return self.order, self.at


def format_command(verb: Verb, name: str = "NAME -n NAMESPACE") -> str:
    """Return the command that asks for it, for messages; it needs a reason."""
    return f'`r1plus {verb} {name} --reason "..."`'


def requests_in(metadata: Mapping[str, Any]) -> dict[Verb, Request]:
    """Read the requests of the object that has this metadata.

    Anybody with a right to the object may have written anything: what cannot be read or is about another object is
    passed over, and texts are clipped.
    """
    annotations = metadata.get("annotations") or {}
    found = {}
    for verb in Verb:
        if verb.annotation not in annotations:
            continue
        try:
            asked = loads(Request, annotations[verb.annotation], tolerant=True)
        except ContractError:
            continue
        if not 0 <= asked.order <= MOST_ORDER or asked.uid != (metadata.get("uid", "") if asked.order else ""):
            continue
        by, why, at = asked.by[:MOST_BY], asked.why[:MOST_WHY], asked.at[:MOST_AT]
        found[verb] = replace(asked, by=by, why=why, at=at, revision=asked.revision[:63])
    return found


def next_order(metadata: Mapping[str, Any], told: int) -> int:
    """Return the number of the next request; `told` is the newest that the object's status tells of."""
    count = (metadata.get("annotations") or {}).get(ANNOTATION_COUNT, "")
    counted = int(count) if count.isascii() and count.isdigit() else 0
    return max(counted, told) + 1


def written(verb: Verb, request: Request) -> dict[str, str]:
    """The annotations to write."""
    return {verb.annotation: dumps(request), ANNOTATION_COUNT: str(request.order)}
