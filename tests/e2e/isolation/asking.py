"""What a request of the isolation matrix is made of: who asks, what must not go through, and who gets the same through.

Writes are dry runs: one that was let through would change nothing, and admission judges it all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from e2e.isolation.people import MERGE, Answer, Ask, Person
from e2e.isolation.stage import Side, World
from e2e.kube import Json
from r1plus_contract.names import (
    API_VERSION,
)

DRY = "dryRun=All"
WATCH = "watch=true&timeoutSeconds=1"
STRICT = f"{DRY}&fieldValidation=Strict"
ATTACHED = "command=true&container=triton&stdout=true"
ATTACHED_TO_GATEWAY = "command=true&container=gateway&stdout=true"
MONITORING_GROUP = "monitoring.coreos.com"
Asks = Callable[[World], Ask]


def alice(world: World) -> Person:
    """A's administrator."""
    return world.a.admin


def bob(world: World) -> Person:
    """B's."""
    return world.b.admin


def platform(world: World) -> Person:
    """The cluster's."""
    return world.platform


def let_in(answer: Answer) -> bool:
    """Whatever came of it then."""
    return not answer.refused


def _done(answer: Answer) -> bool:
    return answer.done


@dataclass(frozen=True, slots=True)
class Case:
    """One request that must not go through, and the control beside it."""

    vector: int
    what: str
    attack: Asks
    control: Asks
    by: Callable[[World], Person]
    seen: Callable[[Answer], bool] = _done
    statuses: tuple[int, ...] = (403,)
    words: str = ""
    """In the refusal."""


def core(namespace: str, rest: str) -> str:
    """A path of the core's API."""
    return f"/api/v1/namespaces/{namespace}/{rest}"


def of(group: str, namespace: str, rest: str, version: str = "v1") -> str:
    """Of another's."""
    return f"/apis/{group}/{version}/namespaces/{namespace}/{rest}"


def ours(namespace: str, rest: str) -> str:
    """Of ours."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{rest}"


def get(path: str) -> Ask:
    """Read."""
    return Ask("GET", path)


def merge(path: str, body: Json) -> Ask:
    """Change, as a dry run."""
    return Ask("PATCH", f"{path}?{DRY}", body, MERGE)


def post(path: str, body: Json, query: str = DRY) -> Ask:
    """Make, likewise."""
    return Ask("POST", f"{path}?{query}", body)


def same(vector: int, what: str, make: Callable[[World, str], Ask], words: str = "") -> Case:
    """The same request to B: by A's administrator and by B's own."""
    return Case(vector, what, lambda w: make(w, w.b.namespace), lambda w: make(w, w.b.namespace), bob, words=words)


def anybodys(
    vector: int,
    what: str,
    make: Asks,
    by: Callable[[World], Person] = platform,
    *,
    seen: Callable[[Answer], bool] = _done,
) -> Case:
    """The same request by A's administrator and by somebody who may."""
    return Case(vector, what, make, make, by, seen)


def into_pod(w: World, namespace: str, rest: str) -> str:
    """A path of B's serving pod."""
    return core(namespace, f"pods/{w.b.pod['metadata']['name']}/{rest}")


def into_gateway(side: Side, rest: str) -> str:
    """A path of a side's gateway's pod; `rest` begins with what follows its name."""
    return core(side.namespace, f"pods/{side.gateway_pod['metadata']['name']}{rest}")
