"""Whether a Pass is proven: the reporting pod ran the gate, under files that the operator wrote. A step of the plan.

Proven is also what the operator has recorded itself on a revision of the same identity.

Anyone who gets around the admission policies can replace what a pod mounts. So each pass keeps the digest of the
ConfigMap that it writes in the status, and a Pass under any other digest changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from r1plus_contract.monitor.settings import hash_config
from r1plus_contract.verdict import GateReport, MonitorReport, Verdict
from r1plus_operator.plan.accuracy.identity_verdicts import find_recording_revision
from r1plus_operator.plan.manifests.drift import hash_text
from r1plus_operator.plan.observation import Json, Observation
from r1plus_operator.plan.revision.record import Revision

KEPT_CONFIGS: Final = 16
"""Digests that are remembered: a gate may be under way while the ConfigMap changes."""
STATUS_FIELD: Final = "accuracyConfigs"


def read_configs(cr: Json) -> tuple[str, ...]:
    """Return the digests of the accuracy ConfigMaps that the operator wrote, the newest last."""
    return tuple((cr.get("status") or {}).get(STATUS_FIELD) or ())


def append_config(before: tuple[str, ...], config: Json) -> tuple[str, ...]:
    """Return the digests with the one of this ConfigMap as the newest; at most KEPT_CONFIGS."""
    digest = hash_config({name: hash_text(text) for name, text in config["data"].items()})
    return (*(other for other in before if other != digest), digest)[-KEPT_CONFIGS:]


def withhold_unproven(observed: Observation, revisions: Mapping[str, Revision], threshold: float) -> Observation:
    """Return what was observed without the gates that are not proven, and with the names of their pods."""
    configs = read_configs(observed.cr)
    reports, unproven = dict(observed.reports), set()
    for pod in observed.pods:
        report, revision = reports.get(pod.name), revisions.get(pod.revision)
        if report is None or revision is None:
            continue
        rest = _strip_unproven(report, revision, tuple(revisions.values()), configs, threshold)
        if rest != report:
            reports[pod.name] = rest
            unproven.add(pod.name)
    return replace(observed, reports=reports, unproven=frozenset(unproven))


def _strip_unproven(
    report: MonitorReport,
    revision: Revision,
    revisions: Collection[Revision],
    configs: Collection[str],
    threshold: float,
) -> MonitorReport:
    def is_unproven(gate: GateReport | None, ran_under: str) -> bool:
        return _is_unproven(gate, ran_under, configs) and not find_recording_revision(gate, revision, revisions)

    if is_unproven(report.gate, report.ran_under) and not _confirms(report, revision, threshold):
        report = replace(report, gate=None)
    if report.shadow and is_unproven(report.shadow.gate, report.shadow.ran_under):
        report = replace(report, shadow=replace(report.shadow, gate=None))
    return report


def _is_unproven(gate: GateReport | None, ran_under: str, configs: Collection[str]) -> bool:
    """Whether a gate is a Pass that nothing proves. A Fail needs no proof: it lets nothing in."""
    return gate is not None and gate.verdict is Verdict.PASS and ran_under not in configs


def _confirms(report: MonitorReport, revision: Revision, threshold: float) -> bool:
    """Whether an older monitor reports again what its revision has passed: with it a rollback to it goes on."""
    gate = report.gate
    return gate is not None and not revision.can_prove_gates and revision.has_passed(gate.suite_hash, threshold)
