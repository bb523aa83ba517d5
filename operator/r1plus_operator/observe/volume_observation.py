"""What the caches show of a namespace's volumes. Called by the observer."""

from collections.abc import Mapping

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import FillProgress
from r1plus_operator.observe.caches import Caches, format_volumes_index
from r1plus_operator.observe.projections import find_controller
from r1plus_operator.plan.engine.delivery import EngineVolume, is_finished, with_current_source
from r1plus_operator.plan.observation import JOB_ENDED, Json, VolumeFacts
from r1plus_operator.plan.revision.storage import read_volume
from r1plus_operator.plan.tenancy.train_jobs import TRAIN_JOB
from r1plus_operator.plan.tenancy.volumes import (
    FAILED,
    VOLUME_KINDS,
    VolumeNeed,
    VolumesObservation,
    read_delivered_digest,
)


def observe_volumes(caches: Caches, namespace: str) -> VolumesObservation:
    """Return what a namespace needs and has of volumes.

    The needs come from the revisions alone: after a start all revisions are known before any CR is, and a volume that
    no revision seems to need is deleted. One that a Deployment mounts is not: its revision may have lost its mark.
    """
    engines = {entry.name: entry.value.engine for entry in caches.engines.store.items()}
    volumes: dict[str, EngineVolume] = {}
    owners: dict[str, set[tuple[str, str]]] = {}
    for child in sorted(caches.children["ControllerRevision"].store.items(), key=lambda child: child.name):
        if child.namespace != namespace or not child.volume or child.is_deleting:
            continue
        live = child.live
        if volume := read_volume(live):
            volumes[volume.name] = with_current_source(volume, engines.get(volume.order.engine))
            # An orphaned revision needs its volume as well, and has no owner.
            owner_keys = {(find_controller(live["metadata"])["name"], child.owner)} if child.owner else set()
            owners[volume.name] = owners.get(volume.name, set()) | owner_keys
    parts = {
        (kind, child.name): child
        for kind in VOLUME_KINDS
        if kind in caches.children
        for child in caches.children[kind].store.by_index(format_volumes_index(namespace))
    }
    facts, tenant = caches.find_namespace(namespace), caches.tenants.store.get(namespace, names.TENANT)
    return VolumesObservation(
        namespace=namespace,
        needs=tuple(VolumeNeed(volumes[name], tuple(sorted(owners[name]))) for name in sorted(volumes)),
        live={key: child.live for key, child in parts.items() if not child.is_deleting},
        deleting=frozenset(key for key, child in parts.items() if child.is_deleting),
        assigns_users=facts is not None and facts.assigns_users,
        run_as_user=tenant.value["spec"].get("runAsUser") if tenant else None,
        mounted=_list_mounted_claims(caches, namespace),
        has_train_jobs=TRAIN_JOB in caches.children and caches.children[TRAIN_JOB].is_available,
    )


def _list_mounted_claims(caches: Caches, namespace: str) -> frozenset[str]:
    """Return the names of the claims that the operator's Deployments of a namespace mount."""
    deployments = (child for child in caches.children["Deployment"].store.items() if child.namespace == namespace)
    templates = (
        child.live["spec"]["template"]["spec"]
        for child in deployments
        if not child.is_deleting and b'"claimName"' in child.text  # Few have one: the others are not parsed.
    )
    return frozenset(
        volume["persistentVolumeClaim"]["claimName"]
        for template in templates
        for volume in template.get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    )


def observe_volume_facts(
    caches: Caches, namespace: str, progress: Mapping[str, FillProgress]
) -> dict[str, VolumeFacts]:
    """Return the state of the namespace's volumes, by name. `progress`: pod's uid -> how far its Job has come."""
    claims = caches.children["PersistentVolumeClaim"].store.by_index(format_volumes_index(namespace))
    if not claims:
        return {}
    pods = sorted(caches.pods.store.by_index(format_volumes_index(namespace)), key=lambda pod: pod.name)
    ends = {kind: _read_ends(caches, kind, namespace) for kind in ("Job", TRAIN_JOB)}
    facts = {}
    for claim in claims:
        if claim.is_deleting:
            continue  # No new pod can mount it.
        volume_pods = [pod for pod in pods if pod.volume == claim.name]
        facts[claim.name] = VolumeFacts(
            delivered_digest=read_delivered_digest(claim.live),
            has_failed=any(ends[kind].get(claim.name, {}).get("type") == FAILED for kind in ends),
            has_train_job=claim.name in ends[TRAIN_JOB],
            train_job_message=str(ends[TRAIN_JOB].get(claim.name, {}).get("message", "")),
            pods=tuple(pod.facts for pod in volume_pods),
            progress=next(
                (progress[p.uid] for p in volume_pods if p.uid in progress and not is_finished(p.facts)), None
            ),
        )
    return facts


def _read_ends(caches: Caches, kind: str, namespace: str) -> dict[str, Json]:
    """Return how the Jobs or TrainJobs of a namespace's volumes have ended, by name; empty for one that runs."""
    if kind not in caches.children:
        return {}
    children = caches.children[kind].store.by_index(format_volumes_index(namespace))
    return {child.name: child.live.get(JOB_ENDED) or {} for child in children}
