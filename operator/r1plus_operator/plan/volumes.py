"""The volumes of a namespace: which engines its revisions need on one, and what brings each there. Pure, like `plan`.

A volume belongs to no deployment alone, so its pass is the namespace's. It is needed while any revision in any history
names it. Its claim owns the outcome: `r1plus.ai/delivered` stands on it once a Job has proved every file, and then
nothing but the claim is left. A claim that was lost and made anew bears no such word, and is filled again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from r1plus_contract import names
from r1plus_contract.filling import CA_FILE, ENGINE_FOLDER, FOR_GOOD, INCOMING_FOLDER, ORDER_FILE, SIGNATURE_FILE
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_operator.plan.delivering import EngineVolume
from r1plus_operator.plan.drift import bound, in_sync, stamped
from r1plus_operator.plan.inputs import JOB_ENDED, Json, OperatorConfig
from r1plus_operator.plan.objects import namespace_peer, tcp, to_dns
from r1plus_operator.plan.pod import USER, locked, mount

RETRY_SECONDS = 300.0
"""After a Job has given up, until the next one begins."""
BACKOFF_LIMIT = 5
"""Attempts of one Job beside the first; Kubernetes waits 10 s, 20 s, 40 s … between them."""
SPARE_BYTES = 64 * 2**20
"""Of a volume, beyond the files: what a file system keeps to itself."""
COMPLETE, FAILED = "Complete", "Failed"


@dataclass(frozen=True, slots=True)
class Need:
    """A volume, and the R1PlusDeployments (name, uid) whose revisions name it."""

    volume: EngineVolume
    owners: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a namespace has of volumes."""

    namespace: str
    needs: tuple[Need, ...]
    live: Mapping[tuple[str, str], Json]
    """(kind, name) -> claim, Job, ConfigMap or NetworkPolicy of a volume."""
    going: frozenset[tuple[str, str]] = frozenset()
    """Of those names, what is being deleted: its place is taken until it is gone."""


@dataclass(frozen=True, slots=True)
class VolumesPlan:
    """What to write, stage by stage."""

    apply: tuple[tuple[Json, ...], ...] = ()
    delete: tuple[tuple[str, str, str], ...] = ()
    """(kind, name, uid)."""
    requeue_after: float | None = None

    @property
    def again(self) -> bool:
        """Whether another pass goes on from what this one writes: a Job is made for a claim that is there."""
        return bool(self.apply or self.delete)


def plan_volumes(seen: Seen, config: OperatorConfig, now: float) -> VolumesPlan:
    """Plan a pass over a namespace. A second one over what the first wrote yields nothing."""
    wanted: list[list[Json]] = []
    kept: set[tuple[str, str]] = set()
    looks: list[float] = []
    for need in seen.needs:
        stages, look = _one(need, seen, config, now)
        wanted += stages
        kept |= {(obj["kind"], obj["metadata"]["name"]) for stage in stages for obj in stage}
        looks += [look] if look is not None else []
    changed = [_changed(stage, seen) for stage in _merged(wanted)]
    return VolumesPlan(
        apply=tuple(stage for stage in changed if stage),
        delete=tuple((*key, live["metadata"]["uid"]) for key, live in seen.live.items() if key not in kept),
        requeue_after=min(looks, default=None),
    )


def _merged(stages: list[list[Json]]) -> list[list[Json]]:
    """Of all volumes, the first stages, the second ones, and so on."""
    order = ("PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "Job")
    flat = [obj for stage in stages for obj in stage]
    ranks = (order[:1], order[1:3], order[3:])
    return [[obj for obj in flat if obj["kind"] in rank] for rank in ranks]


def _one(need: Need, seen: Seen, config: OperatorConfig, now: float) -> tuple[list[list[Json]], float | None]:
    """What shall be there for one volume, and when to look again."""
    volume = need.volume
    live = seen.live.get(("PersistentVolumeClaim", volume.name))
    job = seen.live.get(("Job", volume.name))
    if ("PersistentVolumeClaim", volume.name) in seen.going:
        return [], None
    uid = live["metadata"]["uid"] if live else ""
    ended = (job or {}).get(JOB_ENDED) or {}
    ours = job is not None and _note(job, names.ANNOTATION_VOLUME_UID) == uid
    delivered = live is not None and delivered_on(live) == volume.order.digest
    delivered = delivered or (ours and ended.get("type") == COMPLETE)
    claim = claim_of(need, seen.namespace, config, live, delivered)
    if delivered or live is None:
        return [[claim]], None
    parts = [network_policy_of(need, seen.namespace, config), order_of(need, seen.namespace, config)]
    if job is not None:
        left = float(ended.get("at", now)) + RETRY_SECONDS - now
        tired = ended.get("type") == FAILED and left <= 0
        if tired or not ours:
            return [[claim], parts], None  # The Job is not among it, so it goes, and the next pass makes another.
        return [[claim], parts, [job]], left if ended.get("type") == FAILED else None
    if ("Job", volume.name) in seen.going:
        return [[claim], parts], None
    return [[claim], parts, [job_of(need, seen.namespace, config, uid)]], None


def delivered_on(claim: Json) -> str:
    """Digest of the engine that has been proved to be on a claim's volume; empty: none yet."""
    return _note(claim, names.ANNOTATION_DELIVERED)


def _note(live: Json, name: str) -> str:
    return str((live["metadata"].get("annotations") or {}).get(name, ""))


def _changed(stage: list[Json], seen: Seen) -> tuple[Json, ...]:
    """Of a stage what differs. A Job is made once: what it says cannot change, and what runs is not stopped."""
    found = []
    for desired in stage:
        key = (desired["kind"], desired["metadata"]["name"])
        live = seen.live.get(key)
        if desired["kind"] == "Job" and live is not None:
            continue
        if not in_sync(stamped(desired), live):
            found.append(bound(stamped(desired), live))
    return tuple(found)


def _metadata(need: Need, namespace: str, **annotations: str) -> Json:
    """All owners, none of them the controller: it goes when the last of them has gone."""
    owners = [
        {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": name, "uid": uid}
        for name, uid in sorted(need.owners)
    ]
    found: Json = {
        "name": need.volume.name,
        "namespace": namespace,
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_VOLUME: need.volume.name},
        "ownerReferences": owners,
    }
    return found | ({"annotations": annotations} if annotations else {})


def claim_of(need: Need, namespace: str, config: OperatorConfig, live: Json | None, delivered: bool) -> Json:
    """The PersistentVolumeClaim. What one that is there asks for stays: the API server lets nobody change it."""
    spec: Json = {
        "accessModes": [config.volumes.access_mode.value],
        "resources": {"requests": {"storage": mebibytes(need.volume.order.size + SPARE_BYTES)}},
    }
    if config.volumes.storage_class:
        spec["storageClassName"] = config.volumes.storage_class
    if live is not None:
        asked = live["spec"]
        spec = {key: asked[key] for key in ("accessModes", "resources", "storageClassName") if key in asked}
    notes = {names.ANNOTATION_DELIVERED: need.volume.order.digest} if delivered else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(need, namespace, **notes),
        "spec": spec,
    }


def network_policy_of(need: Need, namespace: str, config: OperatorConfig) -> Json:
    """The Job's walls: out to the archive's server and to DNS, in for the operator that asks how far it is.

    It dies with the Job.
    """
    archive = need.volume.order.archive
    out: list[Json] = []
    if archive is not None:
        servers = [{"ipBlock": {"cidr": cidr}} for cidr in config.volumes.cidrs]
        out = [to_dns(), {"to": servers, "ports": tcp(_port(archive.url))}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(need, namespace),
        "spec": {
            "podSelector": {"matchLabels": _pod_labels(need)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [namespace_peer(config.operator_namespace)], "ports": tcp(names.PORT_MONITOR)}],
            "egress": out,
        },
    }


def _port(url: str) -> int:
    """Of an address that the catalog's pattern has admitted."""
    _, colon, port = url.removeprefix("https://").partition("/")[0].partition(":")
    return int(port) if colon else 443


def _pod_labels(need: Need) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_NAME: "r1plus-delivery",
        names.LABEL_VOLUME: need.volume.name,
    }


def order_of(need: Need, namespace: str, config: OperatorConfig) -> Json:
    """What the Job is told."""
    keys = config.volumes.trusted_keys if config.volumes.require_signature else None
    data = {ORDER_FILE: dumps(replace(need.volume.order, keys=keys))}
    if config.volumes.ca_pem:
        data[CA_FILE] = config.volumes.ca_pem
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(need, namespace), "data": data}


def job_of(need: Need, namespace: str, config: OperatorConfig, claim_uid: str) -> Json:
    """The Job that fills the claim of that uid, under Pod Security `restricted` like what serves."""
    volume = need.volume
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_fill(config)],
        "volumes": [
            {"name": "volume", "persistentVolumeClaim": {"claimName": volume.name}},
            {"name": "order", "configMap": {"name": volume.name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
    }
    if volume.image:
        pod["initContainers"] = [_copy(volume.image)]
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    if volume.node_selector:
        pod["nodeSelector"] = volume.node_selector
    if volume.tolerations:
        pod["tolerations"] = list(volume.tolerations)
    refused = {
        "action": "FailJob",
        "onExitCodes": {"containerName": names.CONTAINER_FILL, "operator": "In", "values": [FOR_GOOD]},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(need, namespace, **{names.ANNOTATION_VOLUME_UID: claim_uid}),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "podFailurePolicy": {"rules": [refused]},
            "template": {"metadata": {"labels": _pod_labels(need)}, "spec": pod},
        },
    }


def _copy(image: str) -> Json:
    target, signature = f"{names.DIR_VOLUME}/{INCOMING_FOLDER}", f"/{SIGNATURE_FILE}"
    script = (
        f"rm -rf {target} && mkdir -p {target} && cp -R {names.DIR_ENGINE_IN_IMAGE} {target}/{ENGINE_FOLDER}"
        f" && if [ -f {signature} ]; then cp {signature} {target}/; fi"
    )
    return {
        "name": names.INIT_ENGINE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-ec", script],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("volume", names.DIR_VOLUME)],
    }


def _fill(config: OperatorConfig) -> Json:
    folders = ["--order-dir", names.DIR_ORDER, "--volume", names.DIR_VOLUME]
    return {
        "name": names.CONTAINER_FILL,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_model_repo.filling", *folders],
        "ports": [{"name": "progress", "containerPort": names.PORT_MONITOR, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("volume", names.DIR_VOLUME),
            mount("order", names.DIR_ORDER, read_only=True),
            mount("tmp", "/tmp"),
        ],
    }
