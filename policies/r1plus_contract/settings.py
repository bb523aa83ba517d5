"""What the operator tells a deployment's monitors: the ConfigMap mounted at DIR_ACCURACY.

It changes while pods live, and it is all that a pod needs: a restarted pod asks nobody.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import Gate, GateReport

SETTINGS_FILE: Final = "settings.json"
SUITE_FILE: Final = "suite.json"
ITEMS_FILE: Final = "items.jsonl"
REFERENCE_FILE: Final = "reference.jsonl"
"""Optional: recorded answers of the reference engine, which the monitor's scorer must score as they were scored."""
FORMER_SUITE_FILE: Final = "former-suite.json"
FORMER_ITEMS_FILE: Final = "former-items.jsonl"
FORMER_REFERENCE_FILE: Final = "former-reference.jsonl"
"""Of the suite that still counts while another one is asked beside it; see `Former`."""
SUITE_FILES: Final = (SUITE_FILE, ITEMS_FILE, REFERENCE_FILE)
FORMER_SUITE_FILES: Final = (FORMER_SUITE_FILE, FORMER_ITEMS_FILE, FORMER_REFERENCE_FILE)
"""Of each suite: header, items and, where it has them, recorded answers."""
VERDICTS_FILE: Final = "verdicts.json"


TAKES_ORDERS: Final = 1
"""Monitors that speak so much understand a `ControlOrder`."""
TAKES_SHADOWS: Final = 2
"""These understand `Former` as well."""
PROVES_GATES: Final = 3
"""These also say under which files they have run a gate (`MonitorReport.ran_under`)."""
SPEAKS: Final = PROVES_GATES
"""What monitors of this version understand. Written on every revision that is rendered, since a pod keeps its monitor
for ever and one that passes an order over would be waited for in vain."""


def hash_config(files: Mapping[str, str]) -> str:
    """Return the sha256 of all that is mounted at DIR_ACCURACY. `files`: name -> sha256 of its bytes."""
    return hashlib.sha256(dumps(dict(files)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ControlOrder:
    """One revision is to be swept anew, as if it had never been gated: an old Pass says nothing of today's node, or was
    overruled by a fall."""

    identity: str
    """Of the revision; monitors of every other one pass over the order."""
    token: str
    """The report that answers bears it as `control`, so that no clock has to tell an old report from a new one."""


@dataclass(frozen=True, slots=True)
class Former:
    """These revisions go on being judged by this suite, and their pods in traffic are asked the one that
    `MonitorSettings` names beside it: it counts once a whole gate on it has been decided. Every other revision, a
    candidate above all, is judged by that one alone."""

    suite: str
    suite_hash: str
    identities: tuple[str, ...]
    reference_hash: str = ""


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """`settings.json`."""

    suite: str
    suite_hash: str
    """The hash the operator resolved; the monitor recomputes it from `items.jsonl` and refuses another."""
    threshold: float
    gate: Gate
    probes_per_minute: int
    false_alarm_days: int = 30
    """On average at least so many days pass between two false accuracy alarms of the whole deployment."""
    most_pods: int = 8
    """Pods that the deployment may have at most: the budget is shared among so many."""
    steadiness: float = 0.98
    """How often an item that passed the gate must pass again, at least, in [0.5, 1): below, something has changed. Not
    how many items may be lost: that is the threshold's business."""
    acknowledged: str = ""
    """A token. Another one than before: the gate's sweeps are run anew, and a Pass ends the alarm that stands."""
    reference_hash: str = ""
    """sha256 of `reference.jsonl`; empty where the suite has none, or for a monitor of an older operator."""
    control: ControlOrder | None = None
    """Before traffic goes back to a revision: it is gated at the full batch, as under `Enforce`, whatever `gate` is."""
    service: str = ""
    """Host and port by which users reach the deployment: asked through now and then. Empty: not at all."""
    restored: str = ""
    """Identity of what passed and serves where there is room for one. A pod of it that answers unlike its revision is
    let in even so: nothing else could serve. It is gated beside its traffic, and what that finds is told."""
    former: Former | None = None
    """The suite that still counts for some revisions. None: `suite` counts for all."""


@dataclass(frozen=True, slots=True)
class KnownVerdicts:
    """`verdicts.json`: the gate's reports of a deployment's revisions: nobody is gated twice for one thing."""

    reports: tuple[GateReport, ...] = ()

    def find(self, identity: str, suite_hash: str, scorer_version: str) -> GateReport | None:
        """The report for exactly this identity, suite and scorer."""
        for report in self.reports:
            if (report.identity, report.suite_hash, report.scorer_version) == (identity, suite_hash, scorer_version):
                return report
        return None
