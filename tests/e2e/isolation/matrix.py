"""The isolation matrix: the 37 vectors by number, which of them are tried here, and what came of it.

A vector is *held* if every try of it was refused and every try had its control: the same act by somebody who may, an open
door seen by the same tool, or the same act within one's own tenant. Without a control a refusal proves nothing: the tool
may be broken. So a test says first who it is, then what the control saw, and only then what was refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

NAMES: Mapping[int, str] = {
    1: "get, list, watch Secrets",
    2: "exec, attach, port-forward, proxy, ephemeral container",
    3: "a reference of a CR into another tenant",
    4: "a list by labels across namespaces",
    5: "relabel a namespace",
    6: "/status, /finalize, /scale",
    7: "bind, escalate, impersonate",
    8: "mount another tenant's volume",
    9: "hostPath, hostNetwork, privileged",
    10: "owner references and finalizers on another tenant's objects",
    11: "exhaust what others need",
    12: "starve the operator's queue",
    13: "connect to another tenant's Triton",
    14: "connect to PostgreSQL as another tenant",
    15: "metadata service, kubelet, node",
    16: "spoof the gateway's tenant header",
    17: "SQL as another tenant",
    18: "SET ROLE, GUC",
    19: "leftovers in a pooled session",
    20: "existence by foreign keys and unique constraints",
    21: "views, functions, COPY, TRUNCATE",
    22: "catalog, statistics, EXPLAIN",
    23: "shadow a name by search_path",
    24: "vector search across tenants",
    25: "guess a conversation's id",
    26: "read another tenant's evaluation set",
    27: "load a model",
    28: "register another tenant's shared memory",
    29: "logging and trace files",
    30: "prefix cache's timing",
    31: "response cache",
    32: "labels of metrics, PromQL injection",
    33: "rules and scrapes of one's own, honor_labels",
    34: "logs, Events, texts of errors",
    35: "a backup restored into another tenant",
    36: "make a deleted tenant's name again",
    37: "decrypt with a shredded key",
}


@dataclass(slots=True)
class Tally:
    """What became of one vector."""

    tried: int = 0
    controlled: int = 0
    failed: int = 0

    @property
    def held(self) -> bool:
        """Tried, and never got through."""
        return self.tried > 0 and self.failed == 0

    @property
    def seen(self) -> bool:
        """Every try had a control."""
        return self.tried > 0 and self.controlled == self.tried


@dataclass(slots=True)
class Matrix:
    """All vectors of one run."""

    tallies: dict[int, Tally] = field(default_factory=lambda: {n: Tally() for n in NAMES})

    @property
    def complete(self) -> bool:
        """Whether every vector is held beside its control."""
        return all(tally.held and tally.seen for tally in self.tallies.values())

    def line(self) -> str:
        """One JSON line."""
        found = {
            "vectors": len(NAMES),
            "held": sum(tally.held for tally in self.tallies.values()),
            "controls_seen": sum(tally.seen for tally in self.tallies.values()),
        }
        open_ = [n for n, tally in self.tallies.items() if not (tally.held and tally.seen)]
        return json.dumps(found | ({"open": open_} if open_ else {}), ensure_ascii=False)


class Trial:
    """One test's say about one vector. The order is held to: who, then the control, then the attack."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._who = self._open = self._shut = False
        tally.tried += 1
        tally.failed += 1  # Until it is seen to end well.

    def by(self, expected: str, said: str) -> None:
        """Who tries, by the API server's own word."""
        assert said == expected, f"this would be an attack by {said}, not by {expected}, and prove nothing"
        self._who = True

    def open(self, what: str, seen: object, said: object = "") -> None:
        """The control: it got through."""
        assert self._who, f"{what}: say first who tries"
        assert seen, f"the control saw nothing, so that a refusal proves nothing: {what}: {said}"
        self._open = True

    def shut(self, what: str, held: object, said: object = "") -> None:
        """The attack: it did not."""
        assert self._open, f"{what}: say first what the control saw"
        assert held, f"LET THROUGH: {what}: {said}"
        self._shut = True

    def end(self, *, passed: bool) -> None:
        """The test is over."""
        self._tally.controlled += self._open
        self._tally.failed -= passed and self._open and self._shut
