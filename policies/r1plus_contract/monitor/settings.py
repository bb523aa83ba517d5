"""The settings of a deployment's monitors: the ConfigMap mounted at DIR_ACCURACY.

It changes while pods run, and it is all that a pod needs, also after a restart.
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
"""Optional: recorded answers of the reference engine, which the monitor's scorer must score the same."""
FORMER_SUITE_FILE: Final = "former-suite.json"
FORMER_ITEMS_FILE: Final = "former-items.jsonl"
FORMER_REFERENCE_FILE: Final = "former-reference.jsonl"
"""Of the suite that still counts while a new one is in its shadow gate; see `Former`."""
SUITE_FILES: Final = (SUITE_FILE, ITEMS_FILE, REFERENCE_FILE)
FORMER_SUITE_FILES: Final = (FORMER_SUITE_FILE, FORMER_ITEMS_FILE, FORMER_REFERENCE_FILE)
"""Of each suite: header, items and, where it has them, recorded answers."""
VERDICTS_FILE: Final = "verdicts.json"


SUPPORTS_CONTROL: Final = 1
"""Protocol version from which monitors understand a `ControlOrder`."""
SUPPORTS_SHADOW: Final = 2
"""From which they understand `Former` as well."""
SUPPORTS_GATE_PROOF: Final = 3
"""From which they also report under which files they ran a gate (`MonitorReport.ran_under`)."""
MONITOR_PROTOCOL: Final = SUPPORTS_GATE_PROOF
"""Protocol version of this version's monitors, written on every rendered revision. A pod keeps its monitor for ever,
and
the operator would wait in vain for one that ignores an order."""


def hash_config(files: Mapping[str, str]) -> str:
    """Return the sha256 of all that is mounted at DIR_ACCURACY. `files`: name -> sha256 of its bytes."""
    return hashlib.sha256(dumps(dict(files)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ControlOrder:
    """One revision is to be swept again, as if it had never been gated. An old Pass does not cover today's node, or
    an
        accuracy drop has overruled it."""

    identity: str
    """Of the revision; monitors of all others ignore the order."""
    token: str
    """The report in answer has it as `control`, so that old and new reports differ without a clock."""


@dataclass(frozen=True, slots=True)
class Former:
    """Revisions that are still judged by this former suite. Their pods in traffic are also asked the suite of
    `MonitorSettings`: it counts once a whole gate on it is decided. All other revisions, candidates above all, are
    judged
        by the new one alone."""

    suite: str
    suite_hash: str
    identities: tuple[str, ...]
    reference_hash: str = ""


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """`settings.json`."""

    suite: str
    suite_hash: str
    """The hash the operator resolved; the monitor recomputes it from `items.jsonl` and rejects another."""
    threshold: float
    gate: Gate
    probes_per_minute: int
    false_alarm_days: int = 30
    """At least so many days on average between two false accuracy alarms of the whole deployment."""
    most_pods: int = 8
    """Most pods of the deployment: they share the budget."""
    steadiness: float = 0.98
    """How often an item that passed the gate must pass again, at least, in [0.5, 1): below, something has changed. It
    does
        not limit lost items: the threshold does."""
    acknowledged: str = ""
    """A token. When it changes, the gate's sweeps are run again, and a Pass ends the alarm."""
    reference_hash: str = ""
    """sha256 of `reference.jsonl`; empty where the suite has none, or for a monitor of an older operator."""
    control: ControlOrder | None = None
    """Before traffic goes back to a revision: it is gated at the full batch, as under `Enforce`, whatever `gate` is."""
    service: str = ""
    """Host and port by which users reach the deployment, for probes through the Service. Empty: none."""
    restored: str = ""
    """Identity of a passed revision that serves where there is room for one. A pod of it that answers differently is
    admitted
        even so: nothing else could serve. Its gate runs during traffic, and the result is reported."""
    former: Former | None = None
    """The suite that still counts for some revisions. None: `suite` counts for all."""


@dataclass(frozen=True, slots=True)
class KnownVerdicts:
    """`verdicts.json`: the gate's reports of a deployment's revisions, so that no pod repeats a gate."""

    reports: tuple[GateReport, ...] = ()

    def find(self, identity: str, suite_hash: str, scorer_version: str) -> GateReport | None:
        """Find the report for exactly this identity, suite and scorer."""
        for report in self.reports:
            if (report.identity, report.suite_hash, report.scorer_version) == (identity, suite_hash, scorer_version):
                return report
        return None
