"""What the proxy sees of the operator: its requests and its watch events, each with a name that does not depend on time.

A point of the trace is (phase of the scenario, what, nth): concurrency reorders a trace, but not these names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = dict[str, Any]
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Fault(StrEnum):
    """What can happen to one request, or to one watch event."""

    DROP_BEFORE = "dropped before it was done"
    LOSE_REPLY = "done, reply lost"
    OVERTAKEN = "dropped, and done after all when others have overtaken it"
    KILL = "done, operator killed"
    CONFLICT = "409"
    ERROR = "500"
    SHED = "429 with Retry-After"
    DELAY = "10 s delay"
    FORBID = "403"
    EXPIRE = "401"
    GONE = "410"
    HOLD = "held back"
    SWALLOW = "swallowed until overwritten"
    LATE = "delayed"
    TWICE = "duplicated"


OF_WRITES = (
    Fault.DROP_BEFORE,
    Fault.LOSE_REPLY,
    Fault.OVERTAKEN,
    Fault.CONFLICT,
    Fault.ERROR,
    Fault.SHED,
    Fault.DELAY,
    Fault.KILL,
)
OF_EVENTS = (Fault.SWALLOW, Fault.LATE, Fault.TWICE)
LASTS: Mapping[Fault, float] = {
    Fault.DELAY: 10.0, Fault.SHED: 2.0, Fault.OVERTAKEN: 10.0, Fault.SWALLOW: 8.0, Fault.LATE: 4.0
}  # fmt: skip
"""Seconds until the world is whole again, where that is not at once. A swallowed event that no newer one of its object
follows is shown after so long, and a write that no newer one of its object overtakes is done; a request that is shed is
asked to come again after so long."""
SOON_SECONDS = 0.5
"""By then a write that got no answer has been sent again, once."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the operator. `name` is empty for a whole collection."""

    verb: str
    plural: str
    namespace: str
    name: str
    subresource: str = ""
    body: Json | None = None
    token: str = ""
    selector: str = ""
    agent: str = ""
    """Which process it is."""

    @property
    def is_write(self) -> bool:
        """Whether it changes something that belongs to the operator's work; its Lease does not."""
        return self.verb not in ("get", "list", "watch") and self.plural != "leases"

    @property
    def target(self) -> tuple[str, ...]:
        """What is written."""
        return self.namespace, self.plural, self.name, self.subresource

    @property
    def makes(self) -> bool:
        """Whether it may make an object: it names none that was seen."""
        return self.verb == "apply" and "uid" not in (self.body or {}).get("metadata", {})

    @property
    def what(self) -> str:
        """Name of the write: verb, kind, object."""
        return f"{self.verb} {self.plural}{'/' if self.subresource else ''}{self.subresource} {self._object}"

    @property
    def _object(self) -> str:
        # An Event's name is a digest that differs from run to run; its reason says the same.
        return str((self.body or {}).get("reason", "")) if self.plural == "events" else self.name


def parse(
    method: str, path: str, query: Mapping[str, str], body: Json | None, token: str, agent: str = ""
) -> Call | None:
    """The call behind an HTTP request; None for what is no request about objects (discovery, health)."""
    parts = path.strip("/").split("/")
    rest = parts[3:] if parts[0] == "apis" else parts[2:]
    if not rest or len(parts) < 3:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    selector = query.get("labelSelector", "")
    return Call(_verb(method, query, name), plural, namespace, name, subresource, body, token, selector, agent)


def _verb(method: str, query: Mapping[str, str], name: str) -> str:
    if method == "GET":
        return "watch" if query.get("watch") == "true" else "get" if name else "list"
    return "apply" if method == "PATCH" and "fieldManager" in query else _VERBS[method]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    type: str
    plural: str
    namespace: str
    name: str

    @property
    def what(self) -> str:
        """Name of the event: type, kind, object."""
        return f"{self.type} {self.plural} {self.name}"


@dataclass(frozen=True, slots=True)
class Point:
    """One place of the trace, and what is done there."""

    phase: str
    what: str
    nth: int
    fault: Fault

    def __str__(self) -> str:
        return f"{self.phase}: {self.what} #{self.nth}: {self.fault}"
