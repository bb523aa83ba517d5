"""The report of a monitor that no longer answers. Called by the monitor poller.

Its last report stays evidence: an accuracy drop that it counted is not forgiven, a gate that it decided is decided. But
its verdict is NoData.
"""

from dataclasses import replace
from typing import Final

from r1plus_contract.names import CONTAINER_MONITOR
from r1plus_contract.remedies import Remedy, word
from r1plus_contract.verdict import MonitorReport, Phase, Verdict
from r1plus_operator.plan.observation import PodFacts

MONITOR_SILENT: Final = "MonitorSilent"
SILENT_SECONDS: Final = 120.0
"""A prober that hangs is killed after 30 s and restarted: well within it."""


def should_answer(pod: PodFacts) -> bool:
    """Whether the pod's monitor runs: before that, nothing can answer."""
    return any(c.name == CONTAINER_MONITOR and c.ready for c in pod.containers)


def is_stopped(pod: PodFacts) -> bool:
    """Whether the node reports that the pod's monitor does not run: what answers in its place is not believed."""
    return any(c.name == CONTAINER_MONITOR and not c.ready for c in pod.containers)


def build_silent_report(report: MonitorReport | None, pod: PodFacts, namespace: str) -> MonitorReport:
    """Return the report of a pod whose monitor has not answered for SILENT_SECONDS. `report`: its last one, if any.

    One that was blocked already keeps its reason: it blocks more than silence does.
    """
    if report is not None and report.phase is Phase.BLOCKED:
        return report
    log = word(Remedy.READ_LOG_OF_POD, namespace=namespace, pod=pod.name, container=CONTAINER_MONITOR)
    message = (
        f"the monitor of pod {pod.name} has not answered the operator for {SILENT_SECONDS:.0f} s, so nothing is"
        f" known of its accuracy; see {log}"
    )
    last = report or MonitorReport(pod.revision, "", Phase.BLOCKED, Verdict.NO_DATA, "", "")
    return replace(
        last, phase=Phase.BLOCKED, verdict=Verdict.NO_DATA, reason=MONITOR_SILENT, message=message, progress=None
    )
