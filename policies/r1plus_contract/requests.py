"""User requests to the operator about a running deployment: annotations of the R1PlusDeployment, next to its spec.

The command line writes them, the operator reads them. One annotation per verb has who and why. The requests of one
object are numbered from 1 without a gap, so their order does not depend on clocks; each is answered once. Where
admission policies are on, the API server checks author, number and object of a request (docs/admission.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.names import GROUP

MOST_WHY: Final = 500
MOST_BY: Final = 120
"""Most characters of a reason and of a name; longer ones are cut."""
MOST_AT: Final = 40
MOST_ORDER: Final = 10**15 - 1
"""Also the limit of the policy `requests`."""
ANNOTATION_COUNT: Final = f"{GROUP}/requests"
"""Key of the annotation with the number of the newest request."""


class Verb(StrEnum):
    """What a request can ask for."""

    ROLLBACK = "rollback"
    """Roll back to the last good revision, after the same control pass as after an accuracy drop."""
    PIN = "pin"
    UNPIN = "unpin"
    """Traffic may move again, also to a revision that was rolled back from."""
    PAUSE = "pause"
    """The operator changes nothing but isolation, so that people can work on the deployment by hand."""
    RESUME = "resume"
    """The operator restores everything, and rolls out the spec."""
    ACK = "ack"
    """The alarm is acknowledged: monitors gate again and restart on a Pass; what was given up may be tried again."""
    REFRESH = "refresh"
    """Move the serving revision to the current images of the operator, by a candidate that is gated."""

    @property
    def annotation(self) -> str:
        """Its key; a value is a `Request` as JSON."""
        return f"{GROUP}/requested-{self.value}"


_ANNOTATIONS: Final = {verb: verb.annotation for verb in Verb}


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    by: str
    why: str
    at: str
    """RFC 3339 with microseconds, by the clock of the client."""
    revision: str = ""
    """Its revision: a rollback or a refresh concerns the revision that served at that moment, not a later one."""
    order: int = 0
    """Its number among the requests of its object; 0 where it was written before requests had one."""
    uid: str = ""
    """Of the object: a request copied to another object is void there. Empty like `order`."""

    @property
    def summary(self) -> str:
        """Author and reason, for messages."""
        return f"{self.by}: {self.why}"

    @property
    def token(self) -> str:
        """Distinguishes one request from the next."""
        return f"{self.at}#{self.order}" if self.order else self.at

    @property
    def rank(self) -> tuple[int, str]:
        """Greater for a later request; without numbers the clocks decide."""
        return self.order, self.at


def format_command(verb: Verb, name: str = "NAME -n NAMESPACE") -> str:
    """Return the command of a verb, for messages; it needs a reason."""
    return f'`r1plus {verb} {name} --reason "..."`'


def read_requests(metadata: Mapping[str, Any]) -> dict[Verb, Request]:
    """Read the requests of the object that has this metadata.

    Anyone with a right to the object may have written anything. So unreadable requests and those of another object are
    ignored, and texts are cut.
    """
    annotations = metadata.get("annotations") or {}
    requests = {}
    for verb, annotation in _ANNOTATIONS.items():
        if annotation not in annotations:
            continue
        try:
            request = loads(Request, annotations[annotation], tolerant=True)
        except ContractError:
            continue
        if not 0 <= request.order <= MOST_ORDER or request.uid != (metadata.get("uid", "") if request.order else ""):
            continue
        by, why, at = request.by[:MOST_BY], request.why[:MOST_WHY], request.at[:MOST_AT]
        requests[verb] = replace(request, by=by, why=why, at=at, revision=request.revision[:63])
    return requests


def next_order(metadata: Mapping[str, Any], status_order: int) -> int:
    """Return the number of the next request; `status_order` is the newest in the status of the object."""
    count = (metadata.get("annotations") or {}).get(ANNOTATION_COUNT, "")
    annotated_order = int(count) if count.isascii() and count.isdigit() else 0
    return max(annotated_order, status_order) + 1


def build_annotations(verb: Verb, request: Request) -> dict[str, str]:
    """Return the annotations to write."""
    return {verb.annotation: dumps(request), ANNOTATION_COUNT: str(request.order)}
