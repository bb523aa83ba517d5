"""Plan the engine volumes of a namespace, and the Jobs that fetch engines onto them. Pure, like `plan`.

Deployments share volumes, so there is one pass per namespace. A volume is needed while a revision in any history names
it. The claim's annotation `r1plus.ai/delivered` stores the result once a Job has verified every file; then only the
claim stays. A claim that was lost and created again has no such annotation, so the engine is fetched again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import (
    CA_FILE,
    ENGINE_FOLDER,
    EXIT_PERMANENT,
    INCOMING_FOLDER,
    ORDER_FILE,
    PROXY_FILE,
    SIGNATURE_FILE,
)
from r1plus_contract.jsonable import dumps, to_jsonable
from r1plus_contract.monitor.settings import ITEMS_FILE, SUITE_FILE
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes
from r1plus_model_repo.config_pbtxt import count_threads
from r1plus_operator.plan.engine.delivery import Builder, EngineVolume, Route, Trainer, find_route
from r1plus_operator.plan.manifests.children import build_dns_rule, build_namespace_peer, build_tcp_ports
from r1plus_operator.plan.manifests.drift import is_in_sync, with_preconditions, with_spec_hash
from r1plus_operator.plan.observation import JOB_ENDED, Json
from r1plus_operator.plan.podspec.pod import (
    HOST_MEMORY,
    HOSTNAME,
    OFFLINE,
    TMP_GPU,
    build_container_security_context,
    build_copy_container,
    build_mount,
    build_pod_security_context,
)
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.train_jobs import (
    TRAIN_JOB,
    build_account,
    build_peer_rules,
    build_train_job,
    build_worker_pod,
)

RETRY_SECONDS = 300.0
"""Wait after a Job has given up, until the next one starts."""
BACKOFF_LIMIT, BACKOFF_LIMIT_BUILD = 5, 2
"""Retries of one Job; Kubernetes waits 10 s, 20 s, 40 s … between them. A build takes long, so it has fewer."""
RETRY_FINAL_SECONDS = 3600.0
"""The same after a failure that a retry cannot fix (unless the server's file changes), and after a failed build."""
DEADLINE_SECONDS = 86400
"""Deadline of a Job: long enough for a large engine over a slow line."""
DEADLINE_SECONDS_TRAINING = 30 * 86400
"""The same of a Job that trains. Another one goes on from the checkpoint."""
GRACE_SECONDS_TRAINING = 120
"""Grace period of a pod that trains: it ends its step, and writes a checkpoint."""
COMPLETE, FAILED = "Complete", "Failed"
_FETCH, _SEAL = "fetch", "seal"
"""Stages of `engine_fetch` before and after a build."""
VOLUME_KINDS = ("PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "ServiceAccount", "Job", TRAIN_JOB)
"""Kinds of objects that belong to a volume."""


@dataclass(frozen=True, slots=True)
class VolumeNeed:
    """A needed volume, and the R1PlusDeployments (name, uid) whose revisions name it."""

    volume: EngineVolume
    owners: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class VolumesObservation:
    """The volumes that a namespace needs, and the objects that exist for them."""

    namespace: str
    needs: tuple[VolumeNeed, ...]
    live: Mapping[tuple[str, str], Json]
    """(kind, name) -> claim, Job, ConfigMap or NetworkPolicy of a volume."""
    deleting: frozenset[tuple[str, str]] = frozenset()
    """(kind, name) of objects that are being deleted. A new object of that name has to wait."""
    assigns_users: bool = False
    """Whether the namespace assigns users (`NamespaceFacts`)."""
    run_as_user: int | None = None
    """User of the tenant's pods; None: the same as everywhere."""
    mounted: frozenset[str] = frozenset()
    """Names of the claims that Deployments mount: these stay, whatever the revisions say."""
    has_train_jobs: bool = False
    """Whether the cluster has TrainJobs, and the operator the right to write them."""


@dataclass(frozen=True, slots=True)
class VolumesPlan:
    """What to write."""

    apply: Mapping[str, tuple[tuple[Json, ...], ...]] = field(default_factory=dict)
    """Volume -> its writes, in stages. Volumes do not wait for each other or fail together."""
    delete: tuple[tuple[str, str, str], ...] = ()
    """(kind, name, uid)."""
    requeue_after: float | None = None

    @property
    def has_changes(self) -> bool:
        """Whether this pass writes something that another pass has to continue from."""
        return bool(self.apply or self.delete)


def plan_volumes(observation: VolumesObservation, config: OperatorConfig, now: float) -> VolumesPlan:
    """Plan a pass over a namespace. A second one over what the first wrote yields nothing."""
    config = config.for_namespace(assigns_users=observation.assigns_users, run_as_user=observation.run_as_user)
    kept_keys: set[tuple[str, str]] = set()
    writes, waits = {}, []
    needed = {need.volume.name for need in observation.needs}
    for need in observation.needs:
        stages, wait = _VolumePass(need, observation, config, now).plan_stages()
        kept_keys |= {(obj["kind"], obj["metadata"]["name"]) for stage in stages for obj in stage}
        waits += [wait] if wait is not None else []
        changed_stages = [changed_stage for stage in stages if (changed_stage := _select_changed(stage, observation))]
        if changed_stages:
            writes[need.volume.name] = tuple(changed_stages)
    # A claim that waits for its pods to go is lost to the next one that mounts it.
    kept_keys |= {("PersistentVolumeClaim", name) for name in observation.mounted - needed}
    return VolumesPlan(
        apply=writes,
        delete=tuple((*key, live["metadata"]["uid"]) for key, live in observation.live.items() if key not in kept_keys),
        requeue_after=min(waits, default=None),
    )


@dataclass(frozen=True, slots=True)
class _VolumePass:
    """One volume in one pass. Objects that are in none of its stages are deleted."""

    need: VolumeNeed
    observation: VolumesObservation
    config: OperatorConfig
    now: float

    def plan_stages(self) -> tuple[list[list[Json]], float | None]:
        """Return the desired objects in stages, and the seconds until the next pass; None: no pass is needed."""
        if self._get_key("PersistentVolumeClaim") in self.observation.deleting:
            return [], None
        live, job = (self.observation.live.get(self._get_key(kind)) for kind in ("PersistentVolumeClaim", "Job"))
        if live is None:
            return [[self._build_claim(None, delivered=False)]], None
        order = build_order(self.need, self.observation.namespace, self.config)
        end_state = (job or {}).get(JOB_ENDED) or {}
        digest = _hash_job(self.need, order, self.config)
        target = live["metadata"]["uid"], digest
        is_current = job is not None and _read_job_target(job) == target
        if read_delivered_digest(live) == self.need.volume.order.digest or (
            is_current and end_state.get("type") == COMPLETE
        ):
            return [[self._build_claim(live, delivered=True)]], None
        if _is_too_small(live, self.need):
            return [], None  # It is empty, and a new claim can request more.
        claim = self._build_claim(live, delivered=False)
        if self._has_no_route() or self._has_no_trainer():
            return [[claim]], None
        inputs = [build_network_policy(self.need, self.observation.namespace, self.config), order]
        if self.need.volume.training_nodes is None:
            stages, wait = self._plan_job(job, target)
            return [[claim], inputs, *stages], wait
        inputs.append(build_account(_build_metadata(self.need, self.observation.namespace)))
        train_job = self.observation.live.get(self._get_key(TRAIN_JOB))
        is_trained = is_current or _has_trained(train_job, target)
        fetch_target = live["metadata"]["uid"], _hash_job(self.need, order, self.config, fetches_only=True)
        if is_trained:
            stages, wait = self._plan_job(job, target)
        else:
            stages, wait = self._plan_training(job, fetch_target, train_job, target)
        return [[claim], inputs, *([[train_job]] if is_trained and train_job else []), *stages], wait

    def _plan_job(
        self, job: Json | None, target: tuple[str, str], *, fetches_only: bool = False
    ) -> tuple[list[list[Json]], float | None]:
        """Return the stage with the Job of this target, and the seconds until it is replaced."""
        if job is None:
            new_job = build_job(self.need, self.observation.namespace, self.config, *target, fetches_only=fetches_only)
            return [[new_job] if self._is_free("Job") else []], None
        wait = self._compute_retry_wait(job.get(JOB_ENDED) or {})
        if _read_job_target(job) != target or (wait is not None and wait <= 0):
            return [], None  # Without the Job, so that it is deleted, and the next pass creates another.
        return [[job]], wait

    def _plan_training(
        self, job: Json | None, fetch_target: tuple[str, str], train_job: Json | None, target: tuple[str, str]
    ) -> tuple[list[list[Json]], float | None]:
        """Return the stages of a training on several machines: a Job fetches, then the TrainJob trains.

        After it the Job that there is without a TrainJob makes the engine: it finds the student trained.
        """
        stages, wait = self._plan_job(job, fetch_target, fetches_only=True)
        is_fetched = stages == [[job]] and (job.get(JOB_ENDED) or {}).get("type") == COMPLETE if job else False
        if not is_fetched or not self.observation.has_train_jobs:
            return stages, wait
        if train_job is None:
            new = build_training(self.need, self.observation.namespace, self.config, *target)
            return [*stages, [new] if self._is_free(TRAIN_JOB) else []], None
        wait = self._compute_retry_wait(train_job.get(JOB_ENDED) or {})
        if _read_job_target(train_job) != target or (wait is not None and wait <= 0):
            return stages, None
        return [*stages, [train_job]], wait

    def _is_free(self, kind: str) -> bool:
        return self._get_key(kind) not in self.observation.deleting

    def _get_key(self, kind: str) -> tuple[str, str]:
        return kind, self.need.volume.name

    def _has_no_route(self) -> bool:
        """Whether there is an archive to fetch, but no network to fetch it from."""
        route = _find_route(self.need, self.config)
        return route is not None and not route.cidrs

    def _has_no_trainer(self) -> bool:
        """Whether there is a student to train, but no image that trains."""
        return self.need.volume.trainer is not None and not self.config.trainer_image

    def _compute_retry_wait(self, end_state: Json) -> float | None:
        """Return the seconds until a failed Job is replaced; None: it has not failed."""
        if end_state.get("type") != FAILED:
            return None
        is_retried_seldom = end_state.get("final") or self.need.volume.is_built  # It occupies a GPU, or memory.
        return float(end_state["at"]) + (RETRY_FINAL_SECONDS if is_retried_seldom else RETRY_SECONDS) - self.now

    def _build_claim(self, live: Json | None, *, delivered: bool) -> Json:
        return build_claim(self.need, self.observation.namespace, self.config, live, delivered)


def _read_job_target(job: Json) -> tuple[str, str]:
    """Return the claim's uid and the hash that a Job was created for."""
    return _read_annotation(job, names.ANNOTATION_VOLUME_UID), _read_annotation(job, names.ANNOTATION_ORDER)


def _has_trained(train_job: Json | None, target: tuple[str, str]) -> bool:
    """Return whether the TrainJob of this target has trained the student."""
    if train_job is None or _read_job_target(train_job) != target:
        return False
    return (train_job.get(JOB_ENDED) or {}).get("type") == COMPLETE


def _hash_job(need: VolumeNeed, order: Json, config: OperatorConfig, *, fetches_only: bool = False) -> str:
    """Return the hash of a Job's inputs, including whether it sets a user. If it changes, the Job is replaced."""
    inputs = [order["data"], need.volume.image]
    if need.volume.builder:
        inputs.append(need.volume.builder.script)
    if fetches_only:
        inputs.append(_FETCH)
    elif need.volume.trainer:
        inputs += [_list_training_inputs(need.volume.trainer), config.trainer_image]
    if not config.pod_user.security_fields:
        inputs.append("no user")
    return hashlib.sha256(dumps(inputs).encode()).hexdigest()[:16]


def _list_training_inputs(trainer: Trainer) -> Json:
    """Return what of a training is hashed. One machine is left out: the hash of Jobs from before there were more."""
    inputs: Json = to_jsonable(trainer)
    if trainer.nodes is None:
        del inputs["nodes"]
    return inputs


def _is_too_small(claim: Json, need: VolumeNeed) -> bool:
    requested_storage = str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", ""))
    try:
        return bytes_of(requested_storage) < _compute_size(need)
    except ValueError:
        return False


def read_delivered_digest(claim: Json) -> str:
    """Return the digest of the verified engine on a claim's volume; empty: none yet."""
    return _read_annotation(claim, names.ANNOTATION_DELIVERED)


def _read_annotation(live: Json, name: str) -> str:
    return str((live["metadata"].get("annotations") or {}).get(name, ""))


def _select_changed(stage: list[Json], observation: VolumesObservation) -> tuple[Json, ...]:
    """Return the objects of a stage that differ. A Job is created once, because its spec is immutable."""
    writes = []
    for desired in stage:
        key = (desired["kind"], desired["metadata"]["name"])
        live = observation.live.get(key)
        if desired["kind"] in ("Job", TRAIN_JOB) and live is not None:
            continue
        if not is_in_sync(with_spec_hash(desired), live):
            writes.append(with_preconditions(with_spec_hash(desired), live))
    return tuple(writes)


def _build_metadata(need: VolumeNeed, namespace: str, **annotations: str) -> Json:
    """Return metadata with all owners, none of them the controller: the last one's deletion deletes the object."""
    owners = [
        {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": name, "uid": uid}
        for name, uid in sorted(need.owners)
    ]
    metadata: Json = {
        "name": need.volume.name,
        "namespace": namespace,
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_VOLUME: need.volume.name},
        "ownerReferences": owners,
    }
    return metadata | ({"annotations": annotations} if annotations else {})


def _compute_size(need: VolumeNeed) -> int:
    """Return the most bytes on the volume at once. A checkpoint stays until the engine is built from it."""
    order = need.volume.order
    if order.build is None:
        return order.size
    return order.size + (order.build.storage if order.build.distill else order.size)


def compute_request(size: int) -> int:
    """Return the storage request for files of `size` bytes. ext4 and XFS reserve a part of it."""
    return size + size // 10 + 256 * 2**20


def build_claim(need: VolumeNeed, namespace: str, config: OperatorConfig, live: Json | None, delivered: bool) -> Json:
    """Return the PersistentVolumeClaim. An existing one keeps its spec, because it is immutable."""
    spec: Json = {
        "accessModes": need.volume.access_mode.claim_modes,
        "resources": {"requests": {"storage": mebibytes(compute_request(_compute_size(need)))}},
    }
    if config.volumes.storage_class:
        spec["storageClassName"] = config.volumes.storage_class
    if live is not None:
        live_spec = live["spec"]
        spec = {key: live_spec[key] for key in ("accessModes", "resources", "storageClassName") if key in live_spec}
    annotations = {names.ANNOTATION_DELIVERED: need.volume.order.digest} if delivered else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _build_metadata(need, namespace, **annotations),
        "spec": spec,
    }


def build_network_policy(need: VolumeNeed, namespace: str, config: OperatorConfig) -> Json:
    """Return the Job's NetworkPolicy: out to the archive's server or the proxy, and to DNS; in from the operator.

    Pods that train together reach each other. It is deleted with the Job.
    """
    route = _find_route(need, config)
    egress: list[Json] = []
    if route is not None and route.cidrs:  # An empty list would allow all networks.
        peers = [{"ipBlock": {"cidr": cidr}} for cidr in route.cidrs]
        egress = [build_dns_rule(config.dns), {"to": peers, "ports": build_tcp_ports(route.port)}]
    ingress = [
        {"from": [build_namespace_peer(config.operator_namespace)], "ports": build_tcp_ports(names.PORT_MONITOR)}
    ]
    if need.volume.training_nodes:
        peer_ingress, peer_egress = build_peer_rules(_build_pod_labels(need), build_dns_rule(config.dns))
        ingress.append(peer_ingress)
        egress += [rule for rule in peer_egress if rule not in egress]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _build_metadata(need, namespace),
        "spec": {
            "podSelector": {"matchLabels": _build_pod_labels(need)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _find_route(need: VolumeNeed, config: OperatorConfig) -> Route | None:
    """Return the route to the volume's archive; None: the engine comes from an image."""
    archive = need.volume.order.archive
    return find_route(archive, config.volumes) if archive else None


def _build_pod_labels(need: VolumeNeed) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_NAME: "r1plus-delivery",
        names.LABEL_VOLUME: need.volume.name,
    }


def build_order(need: VolumeNeed, namespace: str, config: OperatorConfig) -> Json:
    """Return the ConfigMap with the Job's order."""
    keys = config.volumes.trusted_keys if config.volumes.require_signature else None
    data = {ORDER_FILE: dumps(replace(need.volume.order, keys=keys))}
    if config.volumes.ca_pem:
        data[CA_FILE] = config.volumes.ca_pem
    if (route := _find_route(need, config)) and route.proxy:
        data[PROXY_FILE] = route.proxy
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _build_metadata(need, namespace), "data": data}


def build_job(
    need: VolumeNeed,
    namespace: str,
    config: OperatorConfig,
    claim_uid: str,
    order: str,
    *,
    fetches_only: bool = False,
) -> Json:
    """Return the Job that fetches the engine onto the claim of that uid. `order` is the hash of its inputs.

    With `fetches_only` it leaves the verified files there, for what builds the engine of them.
    """
    volume = need.volume
    is_built = volume.is_built and not fetches_only
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _build_metadata(
            need, namespace, **{names.ANNOTATION_VOLUME_UID: claim_uid, names.ANNOTATION_ORDER: order}
        ),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT_BUILD if volume.builder else BACKOFF_LIMIT,
            "activeDeadlineSeconds": DEADLINE_SECONDS_TRAINING if volume.trainer else DEADLINE_SECONDS,
            "podFailurePolicy": {"rules": _build_failure_rules(is_built=is_built)},
            "template": {
                "metadata": {"labels": _build_pod_labels(need)},
                "spec": _build_job_pod(volume, config, is_built=is_built, fetches_only=fetches_only),
            },
        },
    }


def _build_job_pod(volume: EngineVolume, config: OperatorConfig, *, is_built: bool, fetches_only: bool) -> Json:
    last_stage = _FETCH if fetches_only else _SEAL if is_built else ""
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": build_pod_security_context(config.pod_user),
        "containers": [_build_fetch_container(config, names.CONTAINER_FILL, last_stage)],
        "volumes": [
            {"name": "volume", "persistentVolumeClaim": {"claimName": volume.name}},
            {"name": "order", "configMap": {"name": volume.name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
    }
    init_containers = [_build_copy_container(volume.image)] if volume.image else []
    if is_built:
        init_containers.append(_build_fetch_container(config, names.INIT_FETCH, _FETCH))
        pod["volumes"].append({"name": "build-tmp", "emptyDir": {"sizeLimit": TMP_GPU}})
    if volume.builder and is_built:
        init_containers.append(_build_builder_container(volume.builder))
    if volume.trainer and is_built:
        init_containers.append(_build_trainer_container(volume.trainer, config.trainer_image))
        pod["volumes"].append(_build_suite_volume(volume.trainer.suite))
        pod["terminationGracePeriodSeconds"] = GRACE_SECONDS_TRAINING
    if init_containers:
        pod["initContainers"] = init_containers
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    pod["affinity"] = _build_affinity(volume)
    if volume.node_selector:
        pod["nodeSelector"] = volume.node_selector
    if volume.tolerations:
        pod["tolerations"] = list(volume.tolerations)
    return pod


def _build_failure_rules(*, is_built: bool) -> list[Json]:
    """Return what ends the Job at once, and what does not count as a failure."""
    # A builder with an unknown argument also exits with 2.
    final_containers = [names.CONTAINER_FILL, *([names.INIT_FETCH, names.INIT_BUILD] if is_built else [])]
    return [
        # Evictions and deleted nodes.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        *(
            {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": "In", "values": [EXIT_PERMANENT]}}
            for name in final_containers
        ),
    ]


def build_training(need: VolumeNeed, namespace: str, config: OperatorConfig, claim_uid: str, order: str) -> Json:
    """Return the TrainJob that trains the engine on several machines, after a Job has fetched its files."""
    volume = need.volume
    assert volume.trainer is not None and volume.trainer.nodes is not None
    volumes = [
        {"name": "volume", "persistentVolumeClaim": {"claimName": volume.name}},
        {"name": "order", "configMap": {"name": volume.name}},
        {"name": "build-tmp", "emptyDir": {"sizeLimit": TMP_GPU}},
        _build_suite_volume(volume.trainer.suite),
    ]
    placement: Json = {"nodeSelector": volume.node_selector} if volume.node_selector else {}
    placement |= {"tolerations": list(volume.tolerations)} if volume.tolerations else {}
    container = _build_trainer_container(volume.trainer, config.trainer_image)
    annotations = {names.ANNOTATION_VOLUME_UID: claim_uid, names.ANNOTATION_ORDER: order}
    return build_train_job(
        volume,
        volume.trainer.nodes,
        _build_metadata(need, namespace, **annotations),
        build_worker_pod(config, container, volumes, placement),
        _build_pod_labels(need),
        DEADLINE_SECONDS_TRAINING,
    )


def _build_affinity(volume: EngineVolume) -> Json:
    """Return the affinity: preferably next to pods of the volume, or on a node with room for them.

    A ReadWriteOnce volume stays on the node of its Job.
    """
    selector = {"matchLabels": {names.LABEL_VOLUME: volume.name, names.LABEL_SERVING: names.SERVING}}
    preferred_term = {"weight": 100, "podAffinityTerm": {"labelSelector": selector, "topologyKey": HOSTNAME}}
    affinity: Json = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred_term]}}
    if volume.nodes:
        node_term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": list(volume.nodes)}]}
        preferred_nodes = [{"weight": 100, "preference": node_term}]
        affinity["nodeAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": preferred_nodes}
    return affinity


def _build_copy_container(image: str) -> Json:
    target, signature = f"{names.DIR_VOLUME}/{INCOMING_FOLDER}", f"/{SIGNATURE_FILE}"
    script = (
        f"rm -rf {target} && mkdir -p {target} && cp -R {names.DIR_ENGINE_IN_IMAGE} {target}/{ENGINE_FOLDER}"
        f" && if [ -f {signature} ]; then cp {signature} {target}/; fi"
    )
    return build_copy_container(image, script, build_mount("volume", names.DIR_VOLUME))


def _build_builder_container(builder: Builder) -> Json:
    """Return the container of the runtime's own builder, which only reads and writes the volume."""
    return {
        "name": names.INIT_BUILD,
        "image": builder.image,
        "imagePullPolicy": "IfNotPresent",
        # Not as `command`, because the image's own entry point prepares CUDA first.
        "args": ["/bin/sh", "-ec", builder.script],
        "env": [{"name": key, "value": value} for key, value in {"HOME": "/tmp", **OFFLINE}.items()],
        "resources": {
            "requests": {"cpu": "1", "memory": mebibytes(HOST_MEMORY)},
            "limits": {"memory": mebibytes(builder.memory), builder.resource: "1"},
        },
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [build_mount("volume", names.DIR_VOLUME), build_mount("build-tmp", "/tmp")],
    }


def _build_trainer_container(trainer: Trainer, image: str) -> Json:
    """Return the container that trains a student. It has no network but DNS and the archive's, as the others."""
    folders = ["--order-dir", names.DIR_ORDER, "--volume", names.DIR_VOLUME, "--suite", names.DIR_TRAINING_SUITE]
    threads = {"OMP_NUM_THREADS": str(count_threads(trainer.cpu)), "HOME": "/tmp", "TMPDIR": "/tmp"}
    return {
        "name": names.INIT_BUILD,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_training.distill_job", *folders],
        "env": [{"name": key, "value": value} for key, value in {**threads, **OFFLINE}.items()],
        "ports": [{"name": "progress", "containerPort": names.PORT_MONITOR, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": "100m", "memory": mebibytes(trainer.memory)},
            "limits": {"cpu": trainer.cpu, "memory": mebibytes(trainer.memory)},
        },
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            build_mount("volume", names.DIR_VOLUME),
            build_mount("order", names.DIR_ORDER, read_only=True),
            build_mount("suite", names.DIR_TRAINING_SUITE, read_only=True),
            build_mount("build-tmp", "/tmp"),
        ],
    }


def _build_suite_volume(suite: str) -> Json:
    """Return the volume with a golden suite of the namespace. The trainer's image has the shipped ones."""
    items = [{"key": name, "path": name} for name in (SUITE_FILE, ITEMS_FILE)]
    return {"name": "suite", "configMap": {"name": suite, "optional": True, "items": items}}


def _build_fetch_container(config: OperatorConfig, name: str, stage: str) -> Json:
    folders = ["--order-dir", names.DIR_ORDER, "--volume", names.DIR_VOLUME, *(["--stage", stage] if stage else [])]
    return {
        "name": name,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_model_repo.engine_fetch", *folders],
        "ports": [{"name": "progress", "containerPort": names.PORT_MONITOR, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            build_mount("volume", names.DIR_VOLUME),
            build_mount("order", names.DIR_ORDER, read_only=True),
            build_mount("tmp", "/tmp"),
        ],
    }
