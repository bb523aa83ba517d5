"""Whether a Pass was reached where it is reported: its pod ran the gate, under files that the operator wrote.

Anyone who gets around the admission policies can replace what a pod mounts. So each pass keeps the digest of the
ConfigMap that it writes in the status, and a Pass under any other digest changes nothing. Called by the plan.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from r1plus_contract.settings import hash_config
from r1plus_contract.verdict import GateReport, MonitorReport, Verdict
from r1plus_operator.plan.manifests.drift import hash_text
from r1plus_operator.plan.observation import Json, Observation
from r1plus_operator.plan.revision.record import Revision

KEPT_CONFIGS: Final = 16
"""Digests that are remembered: a gate may be under way while the ConfigMap changes."""
STATUS_FIELD: Final = "accuracyConfigs"


def read_configs(cr: Json) -> tuple[str, ...]:
    """Return the digests of what monitors were given, the newest last."""
    return tuple((cr.get("status") or {}).get(STATUS_FIELD) or ())


def remember_config(before: tuple[str, ...], config: Json) -> tuple[str, ...]:
    """Return the digests with that of this ConfigMap as the newest."""
    digest = hash_config({name: hash_text(text) for name, text in config["data"].items()})
    return (*(known for known in before if known != digest), digest)[-KEPT_CONFIGS:]


def withhold_unproven(observed: Observation, revisions: Mapping[str, Revision], threshold: float) -> Observation:
    """Return what was observed without the gates that are not proven, and with the names of their pods."""
    configs = read_configs(observed.cr)
    reports, unproven = dict(observed.reports), set()
    for pod in observed.pods:
        report, revision = reports.get(pod.name), revisions.get(pod.revision)
        if report is None or revision is None:
            continue
        believed = _strip_unproven(report, revision, configs, threshold)
        if believed != report:
            reports[pod.name] = believed
            unproven.add(pod.name)
    return replace(observed, reports=reports, unproven=frozenset(unproven))


def _strip_unproven(
    report: MonitorReport, revision: Revision, configs: Collection[str], threshold: float
) -> MonitorReport:
    if _is_unproven(report.gate, report.ran_under, configs) and not _confirms(report, revision, threshold):
        report = replace(report, gate=None)
    if report.shadow and _is_unproven(report.shadow.gate, report.shadow.ran_under, configs):
        report = replace(report, shadow=replace(report.shadow, gate=None))
    return report


def _is_unproven(gate: GateReport | None, ran_under: str, configs: Collection[str]) -> bool:
    """A Fail lets nothing in, whoever reports it."""
    return gate is not None and gate.verdict is Verdict.PASS and ran_under not in configs


def _confirms(report: MonitorReport, revision: Revision, threshold: float) -> bool:
    """Whether an older monitor reports again what its revision has passed: with it a rollback to it goes on."""
    gate = report.gate
    return gate is not None and not revision.proves_gates and revision.good(gate.suite_hash, threshold)
