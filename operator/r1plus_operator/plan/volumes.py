"""The volumes of a namespace: which engines its revisions need on one, and what brings each there. Pure, like `plan`.

A volume belongs to no deployment alone, so its pass is the namespace's. It is needed while any revision in any history
names it. Its claim owns the outcome: `r1plus.ai/delivered` stands on it once a Job has proved every file, and then
nothing but the claim is left. A claim that was lost and made anew bears no such word, and is filled again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from r1plus_contract import names
from r1plus_contract.engine_fetch import (
    CA_FILE,
    ENGINE_FOLDER,
    FOR_GOOD,
    INCOMING_FOLDER,
    ORDER_FILE,
    PROXY_FILE,
    SIGNATURE_FILE,
)
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes
from r1plus_operator.plan.engine.delivery import Builder, EngineVolume, Route, find_route
from r1plus_operator.plan.manifests.children import namespace_peer, tcp, to_dns
from r1plus_operator.plan.manifests.drift import bound, in_sync, stamped
from r1plus_operator.plan.observation import JOB_ENDED, Json
from r1plus_operator.plan.podspec.pod import (
    HOST_MEMORY,
    HOSTNAME,
    OFFLINE,
    TMP_GPU,
    copying,
    locked,
    mount,
    restricted,
)
from r1plus_operator.plan.settings import OperatorConfig

RETRY_SECONDS = 300.0
"""After a Job has given up, until the next one begins."""
BACKOFF_LIMIT, BACKOFF_LIMIT_BUILD = 5, 2
"""Attempts of one Job beside the first; Kubernetes waits 10 s, 20 s, 40 s … between them. A build takes long."""
RETRY_FINAL_SECONDS = 3600.0
"""Likewise where the same would fail again (it helps only if the server has another file by then), and of a build."""
DEADLINE_SECONDS = 86400
"""Of a Job: even a large engine over a slow line is there by then."""
COMPLETE, FAILED = "Complete", "Failed"
PARTS = ("PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "Job")
"""Kinds of what belongs to a volume."""


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
    deleting: frozenset[tuple[str, str]] = frozenset()
    """Of those names, what is being deleted: its place is taken until it is gone."""
    assigns_users: bool = False
    """As its namespace does (`NamespaceFacts`)."""


@dataclass(frozen=True, slots=True)
class VolumesPlan:
    """What to write."""

    apply: Mapping[str, tuple[tuple[Json, ...], ...]] = field(default_factory=dict)
    """Volume -> its writes, in stages; no volume waits for another, or fails with it."""
    delete: tuple[tuple[str, str, str], ...] = ()
    """(kind, name, uid)."""
    requeue_after: float | None = None

    @property
    def again(self) -> bool:
        """Whether another pass goes on from what this one writes: a Job is made for a claim that is there."""
        return bool(self.apply or self.delete)


def plan_volumes(seen: Seen, config: OperatorConfig, now: float) -> VolumesPlan:
    """Plan a pass over a namespace. A second one over what the first wrote yields nothing."""
    config = config.for_namespace(assigns_users=seen.assigns_users)
    kept: set[tuple[str, str]] = set()
    apply, looks = {}, []
    for need in seen.needs:
        stages, look = _Volume(need, seen, config, now).stages()
        kept |= {(obj["kind"], obj["metadata"]["name"]) for stage in stages for obj in stage}
        looks += [look] if look is not None else []
        changed = [found for stage in stages if (found := _changed(stage, seen))]
        if changed:
            apply[need.volume.name] = tuple(changed)
    return VolumesPlan(
        apply=apply,
        delete=tuple((*key, live["metadata"]["uid"]) for key, live in seen.live.items() if key not in kept),
        requeue_after=min(looks, default=None),
    )


@dataclass(frozen=True, slots=True)
class _Volume:
    """One volume in one pass. What it does not name among its stages is deleted."""

    need: Need
    seen: Seen
    config: OperatorConfig
    now: float

    def stages(self) -> tuple[list[list[Json]], float | None]:
        """What shall be there, and when to look again."""
        if self._key("PersistentVolumeClaim") in self.seen.deleting:
            return [], None
        live, job = (self.seen.live.get(self._key(kind)) for kind in ("PersistentVolumeClaim", "Job"))
        if live is None:
            return [[self._claim(None, delivered=False)]], None
        order = order_of(self.need, self.seen.namespace, self.config)
        ended = (job or {}).get(JOB_ENDED) or {}
        digest = _digest(self.need, order, self.config)
        ours = job is not None and _made_for(job) == (live["metadata"]["uid"], digest)
        if delivered_on(live) == self.need.volume.order.digest or (ours and ended.get("type") == COMPLETE):
            return [[self._claim(live, delivered=True)]], None
        if _too_small(live, self.need):
            return [], None  # There is nothing on it, and another claim may ask for more.
        claim = self._claim(live, delivered=False)
        if self._nowhere():
            return [[claim]], None
        parts = [network_policy_of(self.need, self.seen.namespace, self.config), order]
        if job is None:
            free = self._key("Job") not in self.seen.deleting
            made = job_of(self.need, self.seen.namespace, self.config, live["metadata"]["uid"], digest)
            return [[claim], parts, [made] if free else []], None
        left = self._wait(ended)
        if not ours or (left is not None and left <= 0):
            return [[claim], parts], None  # Without the Job, so that it goes, and the next pass makes another.
        return [[claim], parts, [job]], left

    def _key(self, kind: str) -> tuple[str, str]:
        return kind, self.need.volume.name

    def _nowhere(self) -> bool:
        """Whether there is an archive to fetch and no network to fetch it from."""
        route = _route(self.need, self.config)
        return route is not None and not route.cidrs

    def _wait(self, ended: Json) -> float | None:
        """Seconds until a Job that gave up is followed by another; None while it has not."""
        if ended.get("type") != FAILED:
            return None
        seldom = ended.get("final") or self.need.volume.builder is not None  # A build keeps a GPU from others.
        return float(ended["at"]) + (RETRY_FINAL_SECONDS if seldom else RETRY_SECONDS) - self.now

    def _claim(self, live: Json | None, *, delivered: bool) -> Json:
        return claim_of(self.need, self.seen.namespace, self.config, live, delivered)


def _made_for(job: Json) -> tuple[str, str]:
    """The claim and the order that a Job was made for."""
    return _note(job, names.ANNOTATION_VOLUME_UID), _note(job, names.ANNOTATION_ORDER)


def _digest(need: Need, order: Json, config: OperatorConfig) -> str:
    """Of all that a Job is told: where it changes, or its namespace assigns users by now, the Job is another."""
    told = [order["data"], need.volume.image]
    if need.volume.builder:
        told.append(need.volume.builder.script)
    if not config.pod_user.security_fields:
        told.append("no user")
    return hashlib.sha256(dumps(told).encode()).hexdigest()[:16]


def _too_small(claim: Json, need: Need) -> bool:
    asked = str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", ""))
    try:
        return bytes_of(asked) < _size(need)
    except ValueError:
        return False


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


def _size(need: Need) -> int:
    """Bytes that lie on the volume at most: a checkpoint lies beside what is built of it until that is whole."""
    order = need.volume.order
    return order.size * (2 if order.build else 1)


def room_for(size: int) -> int:
    """What a volume asks for, for files of `size` bytes: ext4 and XFS keep some of it to themselves."""
    return size + size // 10 + 256 * 2**20


def claim_of(need: Need, namespace: str, config: OperatorConfig, live: Json | None, delivered: bool) -> Json:
    """The PersistentVolumeClaim. What one that is there asks for stays: the API server lets nobody change it."""
    spec: Json = {
        "accessModes": need.volume.access_mode.claim_modes,
        "resources": {"requests": {"storage": mebibytes(room_for(_size(need)))}},
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
    """The Job's walls: out to the archive's server, or to the proxy before it, and to DNS; in for the operator.

    It dies with the Job.
    """
    route = _route(need, config)
    out: list[Json] = []
    if route is not None and route.cidrs:  # An empty list of networks would be all of them.
        servers = [{"ipBlock": {"cidr": cidr}} for cidr in route.cidrs]
        out = [to_dns(config.dns), {"to": servers, "ports": tcp(route.port)}]
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


def _route(need: Need, config: OperatorConfig) -> Route | None:
    """To the volume's archive; None where its engine comes out of an image."""
    archive = need.volume.order.archive
    return find_route(archive, config.volumes) if archive else None


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
    if (route := _route(need, config)) and route.proxy:
        data[PROXY_FILE] = route.proxy
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(need, namespace), "data": data}


def job_of(need: Need, namespace: str, config: OperatorConfig, claim_uid: str, order: str) -> Json:
    """The Job that fills the claim of that uid as `order` (a digest) says, under Pod Security `restricted`."""
    volume = need.volume
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted(config.pod_user),
        "containers": [_fill(config, names.CONTAINER_FILL, "seal" if volume.builder else "")],
        "volumes": [
            {"name": "volume", "persistentVolumeClaim": {"claimName": volume.name}},
            {"name": "order", "configMap": {"name": volume.name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
    }
    before = [_copy(volume.image)] if volume.image else []
    if volume.builder:
        before += [_fill(config, names.INIT_FETCH, "fetch"), _build(volume.builder)]
        pod["volumes"].append({"name": "build-tmp", "emptyDir": {"sizeLimit": TMP_GPU}})
    if before:
        pod["initContainers"] = before
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    pod["affinity"] = _where(volume)
    if volume.node_selector:
        pod["nodeSelector"] = volume.node_selector
    if volume.tolerations:
        pod["tolerations"] = list(volume.tolerations)
    # 2 is also what a builder ends with that does not know an argument.
    ends = [names.CONTAINER_FILL, *([names.INIT_FETCH, names.INIT_BUILD] if volume.builder else [])]
    refused: list[Json] = [
        # Evictions and nodes that go are no attempts.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    refused += [
        {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": "In", "values": [FOR_GOOD]}}
        for name in ends
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(
            need, namespace, **{names.ANNOTATION_VOLUME_UID: claim_uid, names.ANNOTATION_ORDER: order}
        ),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT_BUILD if volume.builder else BACKOFF_LIMIT,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "podFailurePolicy": {"rules": refused},
            "template": {"metadata": {"labels": _pod_labels(need)}, "spec": pod},
        },
    }


def _where(volume: EngineVolume) -> Json:
    """Best where pods of the volume are already, or on a node that they fit: a volume of one node stays on it."""
    selector = {"matchLabels": {names.LABEL_VOLUME: volume.name, names.LABEL_SERVING: names.SERVING}}
    beside = {"weight": 100, "podAffinityTerm": {"labelSelector": selector, "topologyKey": HOSTNAME}}
    found: Json = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [beside]}}
    if volume.nodes:
        able = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": list(volume.nodes)}]}
        preferred = [{"weight": 100, "preference": able}]
        found["nodeAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
    return found


def _copy(image: str) -> Json:
    target, signature = f"{names.DIR_VOLUME}/{INCOMING_FOLDER}", f"/{SIGNATURE_FILE}"
    script = (
        f"rm -rf {target} && mkdir -p {target} && cp -R {names.DIR_ENGINE_IN_IMAGE} {target}/{ENGINE_FOLDER}"
        f" && if [ -f {signature} ]; then cp {signature} {target}/; fi"
    )
    return copying(image, script, mount("volume", names.DIR_VOLUME))


def _build(builder: Builder) -> Json:
    """The runtime's own builder, which knows nothing of us: it reads and writes the volume, and nothing else."""
    return {
        "name": names.INIT_BUILD,
        "image": builder.image,
        "imagePullPolicy": "IfNotPresent",
        # Not as `command`: the image's own entry point prepares CUDA first, as it does where the engine is served.
        "args": ["/bin/sh", "-ec", builder.script],
        "env": [{"name": key, "value": value} for key, value in {"HOME": "/tmp", **OFFLINE}.items()],
        "resources": {
            "requests": {"cpu": "1", "memory": mebibytes(HOST_MEMORY)},
            "limits": {"memory": mebibytes(builder.memory), builder.resource: "1"},
        },
        "securityContext": locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("volume", names.DIR_VOLUME), mount("build-tmp", "/tmp")],
    }


def _fill(config: OperatorConfig, name: str, stage: str) -> Json:
    folders = ["--order-dir", names.DIR_ORDER, "--volume", names.DIR_VOLUME, *(["--stage", stage] if stage else [])]
    return {
        "name": name,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_model_repo.engine_fetch", *folders],
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
