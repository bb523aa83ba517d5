"""What the cache stores of a pod: the facts that a pass needs."""

from dataclasses import dataclass

from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_contract.timestamps import parse_timestamp
from r1plus_operator.observe.projections import find_controller, read_probed_namespace
from r1plus_operator.plan.observation import ContainerFacts, Json, PodFacts
from r1plus_operator.plan.podspec.pod import hash_pod_spec, list_images

MOST_UID = 64
"""Characters of a uid: one that is longer is none."""


@dataclass(frozen=True, slots=True)
class ServingPod:
    """A serving pod and what it belongs to."""

    namespace: str
    name: str
    uid: str
    deployment: str
    """Empty: it fills a volume, or is an isolation test's."""
    facts: PodFacts
    volume: str = ""
    probed_namespace: str = ""
    """The namespace whose isolation it tests; empty: it tests none."""
    job: str = ""
    """uid of its controller, if that is a Job."""
    job_name: str = ""
    is_gateway: bool = False
    """Whether it is of the tenant's gateway."""


def project_pod(obj: Json) -> ServingPod | None:
    """Return a pod's facts; None if it has our managed-by label alone, which anyone may set."""
    meta, status = obj["metadata"], obj.get("status") or {}
    labels = meta.get("labels") or {}
    if not labels.keys() & {names.LABEL_DEPLOYMENT, names.LABEL_VOLUME, names.LABEL_PROBE, LABEL_GATEWAY}:
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    schedule_condition = conditions.get("PodScheduled") or {}
    unschedulable = schedule_condition.get("message", "") if schedule_condition.get("reason") == "Unschedulable" else ""
    ready_condition = conditions.get("Ready") or {}
    is_ready = ready_condition.get("status") == "True"
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    facts = PodFacts(
        name=meta["name"],
        revision=labels.get(names.LABEL_REVISION, ""),
        ip=status.get("podIP", ""),
        ready=is_ready,
        terminating=bool(meta.get("deletionTimestamp")),
        unschedulable=unschedulable,
        containers=tuple(_read_container(item) for item in statuses),
        replica_set=find_controller(meta, "ReplicaSet").get("name", ""),
        owner_uid=(meta.get("annotations") or {}).get(names.ANNOTATION_OWNER_UID, "")[:MOST_UID],
        fingerprint=hash_pod_spec(obj.get("spec") or {}),
        images=list_images(obj.get("spec") or {}),
        uid=meta["uid"],
        node=(obj.get("spec") or {}).get("nodeName", ""),
        quarantine=_read_quarantine(meta),
        failure_reason=_read_failure(status),
        unschedulable_since=parse_timestamp(schedule_condition.get("lastTransitionTime") or "")
        if unschedulable
        else None,
        grace_ends_at=parse_timestamp(meta.get("deletionTimestamp", "")),
        volumes_pending_since=_read_volumes_wait(conditions),
        ready_since=parse_timestamp(ready_condition.get("lastTransitionTime") or "") if is_ready else None,
    )
    is_probe = names.LABEL_PROBE in labels
    return ServingPod(
        meta["namespace"],
        meta["name"],
        meta["uid"],
        # An isolation test's pod has a deployment's label, for its network policies, and is none of its pods.
        "" if is_probe else labels.get(names.LABEL_DEPLOYMENT, ""),
        facts,
        labels.get(names.LABEL_VOLUME, ""),
        read_probed_namespace(meta) if is_probe else "",
        find_controller(meta, "Job").get("uid", ""),
        find_controller(meta, "Job").get("name", ""),
        LABEL_GATEWAY in labels,
    )


def _read_volumes_wait(conditions: dict[str, Json]) -> float | None:
    """Return since when a scheduled pod waits for its node to mount its volumes and to create its network."""
    if (conditions.get("PodReadyToStartContainers") or {}).get("status") != "False":
        return None
    schedule_condition = conditions.get("PodScheduled") or {}
    is_scheduled = schedule_condition.get("status") == "True"
    return parse_timestamp(schedule_condition.get("lastTransitionTime") or "") if is_scheduled else None


def _read_failure(status: Json) -> str:
    """Return why the kubelet failed a pod as a whole: no device was left for it, or it was evicted."""
    if status.get("phase") != "Failed" or not status.get("reason"):
        return ""
    return f"{status['reason']}: {status.get('message', '')}"


def _read_quarantine(meta: Json) -> str | None:
    """Return a quarantined pod's annotation; empty if that is gone, None if the pod is in no quarantine."""
    if (meta.get("labels") or {}).get(names.LABEL_SERVING) != names.QUARANTINED:
        return None
    return str((meta.get("annotations") or {}).get(names.ANNOTATION_QUARANTINE, ""))


def _read_container(item: Json) -> ContainerFacts:
    state = item.get("state") or {}
    waiting_state = state.get("waiting") or {}
    last_end = (item.get("lastState") or {}).get("terminated") or {}
    terminated_state = state.get("terminated") or last_end
    return ContainerFacts(
        name=item["name"],
        ready=bool(item.get("ready")),
        waiting_reason=waiting_state.get("reason", ""),
        terminated_reason=terminated_state.get("reason", ""),
        message=terminated_state.get("message") or waiting_state.get("message") or "",
        exit_code=terminated_state.get("exitCode"),
        runs_again=bool(state.get("running") and last_end),
        # A node reports a digest of its own for an image that was loaded and not pulled.
        image_digest=item.get("imageID", "").partition("@")[2],
    )
