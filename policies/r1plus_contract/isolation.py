"""What the prober of walls tries, and what it found: orders as arguments, findings as a container's last words.

The operator makes the Jobs, `r1plus_monitoring.isolation_test` runs in them, and reads nothing else: it has no file
and no token but what its Job names. Every try has a control: the same try from a pod that is allowed to, which shows
that the prober would have seen an open door.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Walls(StrEnum):
    """Values of LABEL_WALLS."""

    TENANT = "tenant"
    """What stands for as long as the namespace is a tenant: default deny, who may call, quota, who administers."""
    PROBE = "probe"
    """What a run of the prober is made of."""
    DECOY = "decoy"
    """What the prober attacks."""


class Probe(StrEnum):
    """Values of LABEL_PROBE."""

    KNOCK = "knock"
    """Under a serving deployment's own walls: tries the doors of the network."""
    ASK = "ask"
    """Its walls let it out to the API server, which it asks, and to the decoy, which alone must keep it out."""
    CONTROL = "control"
    """In the decoy's namespace, allowed: makes the same tries."""


CONTAINER_KNOCK: Final = "knock"
CONTAINER_ASK: Final = "ask"
CONTAINER_DECOY: Final = "decoy"
DIR_TOKEN: Final = "/var/run/secrets/r1plus.ai/walls"
"""Projected volume of a container that asks: `token` (of its own service account) and `ca.crt`."""
API_HOST: Final = "kubernetes.default.svc"
BANNER: Final = b"r1plus-decoy\n"
"""What the decoy says to whoever connects: on that address nothing else would count as an open door of the decoy's."""


class Against(StrEnum):
    """Whose door it is."""

    DECOY = "decoy"
    """Another tenant's. Its control must be seen: we put the listener there."""
    PLATFORM = "platform"
    """Metadata service, node, API server, Prometheus: not every cluster has each, so a control may see nothing."""
    OWN = "own"
    """One that is open by right: it shows that the pod has a network at all, and its try must succeed."""


@dataclass(frozen=True, slots=True)
class Door:
    """One TCP address. `--doors` of `knock` is a JSON list of these (`jsonable`)."""

    name: str
    host: str
    """Name or IP; `$(VARIABLES)` have been put in by the kubelet."""
    port: int
    against: Against


@dataclass(frozen=True, slots=True)
class Question:
    """One request to the API server. `--questions` of `ask` is a JSON list of these."""

    name: str
    method: str
    path: str
    """With its query. Whatever writes bears `dryRun=All`: a try that is let through must change nothing."""
    body: str = ""
    """JSON; empty: none."""
    content_type: str = "application/json"
    anonymous: bool = False
    """Ask without the token."""


class Outcome(StrEnum):
    """How a try ended."""

    SHUT = "shut"
    """No connection; the API server refused (401, 403)."""
    OPEN = "open"
    """Connected; the API server did it, or found it permissible (any answer below 500 but 401, 403, 429)."""
    FAILED = "failed"
    """Neither can be said: the name did not resolve, the API server did not answer."""


@dataclass(frozen=True, slots=True)
class Try:
    """One door or question, tried. Short names: a container's last words are 4096 bytes."""

    n: str
    """Name of the door or question."""
    o: Outcome
    """As it ended: a new pod's walls take a moment to stand, so a door that was open is tried again for a while."""
    late: int = 0
    """Milliseconds for which it was open before it was shut; 0: it never was."""
    d: str = ""
    """What was said, shortened: `timed out`, `HTTP 403`, `HTTP 200`."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The last words of a container that knocked or asked."""

    tries: tuple[Try, ...]
