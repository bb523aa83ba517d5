"""The isolation test: what the probe tries, and what it found. Orders are arguments, findings a termination message.

The operator creates the Jobs, and `r1plus_monitoring.isolation_test` runs in them. It reads only what its Job names.
Every attempt has a control: the same attempt from a pod that is allowed, which shows that a success is noticed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class IsolationPart(StrEnum):
    """Values of LABEL_ISOLATION."""

    TENANT = "tenant"
    """What exists as long as the namespace is a tenant: default deny, callers, quota, administrators."""
    PROBE = "probe"
    """Objects of a run of the isolation test."""
    DECOY = "decoy"
    """The target of the isolation test."""
    GATEWAY = "gateway"
    """What exists as long as the tenant's gateway is enabled, and its claim, which stays."""


class IsolationProbe(StrEnum):
    """Values of LABEL_PROBE."""

    KNOCK = "knock"
    """Under a serving deployment's own network policies: tries TCP connections."""
    ASK = "ask"
    """May reach the API server, which it asks, and the decoy, whose own policies must block it."""
    CONTROL = "control"
    """In the decoy's namespace, allowed: makes the same attempts."""


CONTAINER_KNOCK: Final = "knock"
CONTAINER_ASK: Final = "ask"
CONTAINER_DECOY: Final = "decoy"
DIR_TOKEN: Final = "/var/run/secrets/r1plus.ai/walls"
"""Projected volume of a container that asks: `token` (of its own service account) and `ca.crt`."""
API_HOST: Final = "kubernetes.default.svc"
BANNER: Final = b"r1plus-decoy\n"
"""What the decoy sends to every client, so that no other listener on its address is taken for it."""


class Against(StrEnum):
    """Whom a connection would reach."""

    DECOY = "decoy"
    """Another tenant's. Its control must find it open: we run the listener."""
    PLATFORM = "platform"
    """Metadata service, node, API server, Prometheus: not every cluster has each, so a control may find none."""
    OWN = "own"
    """One that is allowed: it shows that the pod has a network, and its attempt must succeed."""


@dataclass(frozen=True, slots=True)
class ConnectionTarget:
    """One TCP address. `--doors` of `knock` is a JSON list of these (`jsonable`)."""

    name: str
    host: str
    """Name or IP; the kubelet has expanded `$(VARIABLES)`."""
    port: int
    against: Against


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to the API server. `--questions` of `ask` is a JSON list of these."""

    name: str
    method: str
    path: str
    """With its query. A request that writes has `dryRun=All`: it must change nothing even if it is allowed."""
    body: str = ""
    """JSON; empty: none."""
    content_type: str = "application/json"
    anonymous: bool = False
    """Ask without the token."""


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    SHUT = "shut"
    """No connection; the API server refused (401, 403)."""
    OPEN = "open"
    """Connected; the API server did it, or would have (any answer below 500 but 401, 403, 429)."""
    FAILED = "failed"
    """Unknown: the name did not resolve, the API server did not answer."""


@dataclass(frozen=True, slots=True)
class AttemptFinding:
    """The finding on one connection or request. Short names: a termination message has 4096 bytes."""

    n: str
    """Name of the connection or request."""
    o: AttemptOutcome
    """The final outcome: one that succeeds is tried again, since policies take a moment to apply to a new pod."""
    late: int = 0
    """Milliseconds for which it was open before it was shut; 0: never."""
    d: str = ""
    """Details, shortened: `timed out`, `HTTP 403`, `HTTP 200`."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The termination message of a container that ran `knock` or `ask`."""

    tries: tuple[AttemptFinding, ...]
