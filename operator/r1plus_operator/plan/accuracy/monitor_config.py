"""What a deployment's monitors read: the suites, the settings and the verdicts that stand. Called by the plan."""

from collections.abc import Mapping, Set

from r1plus_contract.monitor.settings import ControlOrder
from r1plus_operator.plan.accuracy.gate_results import select_known_verdicts
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection, hash_of
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.manifests import children
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.requests import read_ack_token
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_policies.rollout import Rollout, Strategy


def build_accuracy_config(
    inputs: PassInputs,
    suites: SuiteSelection,
    revisions: Mapping[str, Revision],
    surplus: Set[str],
    rollout: Rollout,
    rollback: RollbackRecord | None,
    control: ControlOrder | None,
) -> Json:
    """Return the accuracy ConfigMap.

    `control`: the gate by which alone a revision comes back; monitors are not sent there once it is promoted.
    """
    rollback_target = revisions.get(rollback.to) if rollback else None
    under_former = [r for r in (find_current_revision(revisions.values()), rollback_target) if r]
    former = suites.former_for(*(r.identity_digest for r in under_former))
    history = [revision for revision in revisions.values() if revision.name not in surplus]
    return children.build_accuracy_config(
        children.ChildOwner(inputs.observed.cr),
        inputs.spec,
        suites.spec_suite,
        select_known_verdicts(history, rollout.replicas, suites.hashes),
        ack_token=read_ack_token(inputs.observed.cr),
        control=None if rollout.promote else control,
        readmitted_identity=_find_restored_identity(inputs, suites, revisions.get(rollout.current or "")),
        former=(former, suites.effective_suite) if former else None,
    )


def _find_restored_identity(inputs: PassInputs, suites: SuiteSelection, current: Revision | None) -> str:
    """Return the identity of what passed and serves where nothing else can: its pods are let in again."""
    spec = inputs.spec
    is_alone = spec.rollout.strategy is Strategy.IN_PLACE and inputs.config.readmits_in_place
    if current is None or not is_alone:
        return ""
    is_good = current.has_passed(hash_of(suites.effective_suite), spec.accuracy.threshold)
    return current.identity_digest if is_good else ""
