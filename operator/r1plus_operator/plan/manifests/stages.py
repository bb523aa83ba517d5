"""Every child object of a deployment as it should be, in the order in which it is written. A step of the plan."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from r1plus_contract import names
from r1plus_contract.gateway import name_pods_service
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.manifests import alerts, children, pause
from r1plus_operator.plan.manifests.drift import foreign_items_patch, is_in_sync, with_preconditions, with_spec_hash
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import NOTHING_PROMOTED, Revision
from r1plus_operator.plan.revision.storage import to_object
from r1plus_policies.rollout import Rollout

Patch = tuple[str, str, tuple[Json, ...]]
"""(kind, name, JSON patch)."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between the cluster and the manifests."""

    clear: tuple[Patch, ...]
    """Items that others put into lists of ours, out of an apply's reach; and the mark of a pause."""
    apply: tuple[tuple[Json, ...], ...]
    """In stages: all of a stage is written before the next begins."""
    delete: tuple[tuple[str, str, str], ...]
    """(kind, name, uid)."""


def build_manifests(
    inputs: PassInputs,
    revisions: Mapping[str, Revision],
    surplus: Set[str],
    rollout: Rollout,
    rollout_revision: str | None,
    accuracy_config: Json | None,
    suite_items: int | None,
) -> tuple[list[Json], list[Json], list[Json]]:
    """Return the objects in stages: policies before pods, what a pod mounts before the pod, the switch after the pods.

    `surplus`: names of revisions that are not kept; `rollout_revision`: the one that is brought up or kept;
    `suite_items`: how many items the suite in force has.
    """
    owner = children.ChildOwner(inputs.observed.cr)
    history = [revision for revision in revisions.values() if revision.name not in surplus]
    first = [
        children.build_network_policy(owner, _allowed_callers(inputs), inputs.config, inputs.gateway),
        children.build_service_account(owner),
        *(to_object(r, owner.build_metadata(r.name, {names.LABEL_REVISION: r.name})) for r in history),
        *(children.build_revision_config(owner, revisions[name]) for name in rollout.replicas),
    ]
    if accuracy_config:
        first.append(accuracy_config)
    pods = [
        children.build_deployment(owner, inputs.spec, revisions[name], count)
        for name, count in rollout.replicas.items()
    ]
    has_service = bool(rollout.current or rollout_revision)
    return first, pods, _build_last(inputs, owner, rollout, suite_items, has_service=has_service)


def find_changes(
    inputs: PassInputs,
    stages: tuple[list[Json], ...],
    revisions: Mapping[str, Revision],
    surplus: Set[str],
    rollout: Rollout,
) -> Changes:
    """Return what to write so that the cluster has these objects; while paused, only what a pause lets be written."""
    live, is_paused = inputs.observed.children, inputs.spec.rollout.paused
    if is_paused:
        stages = tuple([obj for obj in stage if pause.is_written(obj, live.get(_key(obj)))] for stage in stages)
    apply = tuple(changes for stage in stages if (changes := _find_drift(stage, live)))
    foreign_items = tuple(patch for stage in apply for obj in stage if (patch := _patch_foreign_items(obj, live)))
    return Changes(
        clear=pause.build_mark_patches(live, paused=is_paused) + foreign_items,
        apply=apply,
        delete=()
        if is_paused
        else (*_list_deletable(live, revisions, surplus, rollout), *_find_idle_pods_service(inputs, stages)),
    )


def _build_last(
    inputs: PassInputs, owner: children.ChildOwner, rollout: Rollout, suite_items: int | None, *, has_service: bool
) -> list[Json]:
    # Only what was promoted: a pod that is Ready by a token that it should not have gets no traffic by it.
    # A name of which nothing is left stays selected until a promotion: else an older one would count again.
    revision = rollout.current or inputs.gone or NOTHING_PROMOTED
    last, kinds = [children.build_disruption_budget(owner, revision)], inputs.observed.kinds
    if has_service:
        last.append(children.build_service(owner, revision))
        if inputs.gateway is not None and owner.name not in inputs.gateway.unreachable:
            last.append(children.build_pods_service(owner, revision))
    if "PodMonitor" in kinds:
        last.append(alerts.build_pod_monitor(owner, inputs.config))
    if "PrometheusRule" in kinds and rollout.current:
        last.append(alerts.build_prometheus_rule(owner, inputs.spec, rollout.current, inputs.config, suite_items))
    return last


def _allowed_callers(inputs: PassInputs) -> set[str]:
    """Return the other namespaces that are let in: those that the deployment names and the platform team allows."""
    tenant = inputs.observed.tenant
    return set(inputs.spec.access.namespaces) & tenant.callers if tenant else set()


def _find_drift(stage: list[Json], live: Mapping[tuple[str, str], Json]) -> tuple[Json, ...]:
    """Return the objects of a stage that are missing or read otherwise, with the preconditions of their write."""
    pairs = ((obj, live.get(_key(obj))) for obj in map(with_spec_hash, stage))
    return tuple(with_preconditions(obj, live_obj) for obj, live_obj in pairs if not is_in_sync(obj, live_obj))


def _patch_foreign_items(obj: Json, live: Mapping[tuple[str, str], Json]) -> Patch | None:
    patch = foreign_items_patch(obj, live.get(_key(obj)))
    return (*_key(obj), tuple(patch)) if patch else None


def _list_deletable(
    live: Mapping[tuple[str, str], Json], revisions: Mapping[str, Revision], surplus: Set[str], rollout: Rollout
) -> tuple[tuple[str, str, str], ...]:
    """Return (kind, name, uid) of the objects of revisions that do not run, and of revisions that are not kept."""
    idle = []
    for (kind, name), obj in live.items():
        is_of_pods = kind == "Deployment" or (kind == "ConfigMap" and name in revisions)
        if (is_of_pods and name not in rollout.replicas) or (kind == "ControllerRevision" and name in surplus):
            idle.append((kind, name, obj["metadata"]["uid"]))
    return tuple(idle)


def _find_idle_pods_service(inputs: PassInputs, stages: tuple[list[Json], ...]) -> tuple[tuple[str, str, str], ...]:
    """Return (kind, name, uid) of the headless Service, if no gateway needs it any more."""
    key = "Service", name_pods_service(inputs.observed.name)
    live = inputs.observed.children.get(key)
    is_needed = any(_key(obj) == key for stage in stages for obj in stage)
    return () if live is None or is_needed else ((*key, live["metadata"]["uid"]),)


def _key(obj: Json) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]
