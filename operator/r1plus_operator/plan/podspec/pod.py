"""The serving pod: [engine, verify] then [triton, monitor], under Pod Security `restricted` without exception.

`engine` copies the engine out of its image (or a volume has it, then there is no such container), `verify` compares its
sha256 and assembles Triton's repository, Triton serves it read-only, the monitor probes it. Triton is Ready when the
model is ready *and* the admission token stands.
"""

import hashlib

from r1plus_contract import names
from r1plus_contract.admission import TOKEN_FILE
from r1plus_contract.engine_fetch import ENGINE_FOLDER
from r1plus_contract.inference import MODEL_NAME
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.triton_args import EXIT_TIMEOUT_SECONDS, command
from r1plus_operator.plan.settings import AccessMode, OperatorConfig, PodUser
from r1plus_policies.engine.hardware import UNKNOWN, WHOLE_GPU, Gpus
from r1plus_policies.engine.memory_fit import Fit

HOSTNAME = "kubernetes.io/hostname"
"""The label by which a node is one place."""
PLATFORM = {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
"""Labels of the nodes that our images run on."""
GPU_TOLERATION = {"key": WHOLE_GPU, "operator": "Exists"}
"""Of the taint that keeps away what asks for no GPU; the admission plugin ExtendedResourceToleration adds the same."""
PRESTOP_SECONDS = 5
"""SIGTERM resets new HTTP requests at once: first let the endpoint leave every kube-proxy."""
GRACE_SECONDS = PRESTOP_SECONDS + EXIT_TIMEOUT_SECONDS + 10
STARTUP_SECONDS, STARTUP_SECONDS_GPU = 600, 1800
"""Until the engine must be loaded: on GPUs tens of GiB, and kernels that are compiled for them."""
SHM, SHM_GPU = "256Mi", "1Gi"
"""/dev/shm: of Triton's Python backend; with several GPUs, what their processes pass each other as well."""
TMP, TMP_GPU = "256Mi", "4Gi"
"""The runtimes on GPUs compile kernels, and keep them there."""
HOST_MEMORY = 4 * 2**30
"""Of the node, for server, CUDA context and libraries of a GPU's runtime, bytes. Estimated: no GPU has been at hand."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TRTLLM_NO_USAGE_STATS": "1",
}
"""The walls let nothing out; so that nobody waits for what they hold back, either."""
MONITOR_MEMORY, MONITOR_CPU = "96Mi", "20m"
STATE, MONITOR_TMP = "64Mi", "16Mi"
LOGS, LOGS_LIMIT = 256 * 2**20, 2**30
"""Of the node's disk, for what the node keeps of the containers' logs, bytes: requested, and at most."""
POD_OVERHEAD = bytes_of(SHM) + bytes_of(MONITOR_MEMORY)
"""What a pod asks of its node beside what the engine needs, bytes."""


def pod_template(
    cr: Json,
    revision: str,
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    fit: Fit,
    identity: str,
    config: OperatorConfig,
    volume: str = "",
    gpus: Gpus | None = None,
    *,
    counts_storage: bool = False,
) -> Json:
    """The pod template of one revision of the R1PlusDeployment `cr`; deterministic.

    `volume` names the claim that holds the engine; empty: the engine's image does. `gpus` are those that batch and
    context were fitted to: its pods run on no others. `counts_storage`: its nodes count their ephemeral storage.
    """
    meta = cr["metadata"]
    namespace, owner = meta["namespace"], meta["name"]
    pod: Json = {
        "serviceAccountName": owner,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": restricted(config.pod_user),
        "initContainers": [*([] if volume else [_engine(engine)]), _verify(config, volume)],
        "containers": [
            _triton(engine, fit, identity, config, volume, gpus),
            _monitor(namespace, owner, revision, identity, config),
        ],
        "volumes": _volumes(owner, revision, engine, volume),
    }
    labels = pod_labels(owner, revision, engine.name)
    if volume:
        labels[names.LABEL_VOLUME] = volume
        if config.volumes.access_mode is AccessMode.ONE_NODE:
            pod["affinity"] = {"podAffinity": _together(volume)}
    if counts_storage:
        triton, disk = pod["containers"][0]["resources"], storage_bytes(engine, on_volume=bool(volume))
        triton["requests"]["ephemeral-storage"] = mebibytes(disk)
        triton["limits"]["ephemeral-storage"] = mebibytes(disk - LOGS + LOGS_LIMIT)
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    pod |= placement(spec, gpus)
    notes = {names.ANNOTATION_OWNER_UID: meta["uid"]}
    return {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}


def placement(spec: R1PlusDeploymentSpec, gpus: Gpus | None) -> Json:
    """Of a pod's spec, which nodes it may be on: those of the spec, and of them those that have the GPU."""
    product = gpus.selector if gpus and gpus.product != UNKNOWN else {}
    found: Json = {"nodeSelector": {**spec.placement.node_selector, **PLATFORM, **product}}
    tolerated = tolerations(spec, on_gpu=gpus is not None)
    return found | ({"tolerations": tolerated} if tolerated else {})


def tolerations(spec: R1PlusDeploymentSpec, *, on_gpu: bool) -> list[Json]:
    """Return what the pods tolerate: what the spec lists, and of GPU nodes that they are for GPUs."""
    listed = [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in spec.placement.tolerations]
    return [*listed, *([GPU_TOLERATION] if on_gpu else [])]


def _together(volume: str) -> Json:
    """On one node with all that mounts the volume, a candidate beside what serves included: no other node can."""
    selector = {"matchLabels": {names.LABEL_VOLUME: volume, names.LABEL_SERVING: names.SERVING}}
    term = {"labelSelector": selector, "topologyKey": HOSTNAME}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def pod_labels(owner: str, revision: str, engine: str) -> dict[str, str]:
    """Walls select the deployment, the Service the revision and `serving`."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_NAME: "r1plus-serving",
        names.LABEL_DEPLOYMENT: owner,
        names.LABEL_REVISION: revision,
        names.LABEL_SERVING: "true",
        names.LABEL_ENGINE: engine,
    }


_RUN: Json = dict.fromkeys(("name", "command", "args", "env", "envFrom", "volumeMounts"))
"""Of a container, what decides beside its image which code runs with which data; the API server defaults none of it."""
_DEFAULTED = frozenset({"defaultMode", "sizeLimit"})
_USER = frozenset(PodUser(0, 0, 0).named)


def fingerprint(pod_spec: Json) -> str:
    """What a pod runs but its images, in 16 hex digits: the same for a revision's template and for pods made from it.

    A pod that merely bears a revision's labels has another one, and nobody believes what its monitor says. Ephemeral
    containers do not count: `kubectl debug` is no reason to stop believing a pod.
    """
    containers = [
        [{key: container.get(key) for key in _RUN} for container in pod_spec.get(kind) or ()]
        for kind in ("initContainers", "containers")
    ]
    volumes = [
        {key: _without_defaults(source) for key, source in volume.items()} for volume in pod_spec.get("volumes") or ()
    ]
    covered = [containers, volumes, bool(pod_spec.get("hostNetwork"))]
    return hashlib.sha256(dumps(covered).encode()).hexdigest()[:16]


def container_images(pod_spec: Json) -> tuple[str, ...]:
    """Return the images of a pod's containers, in the order of the containers that `fingerprint` covers."""
    return tuple(
        str(container.get("image", ""))
        for kind in ("initContainers", "containers")
        for container in pod_spec.get(kind) or ()
    )


def is_same_image(asked: str, run: str) -> bool:
    """Return whether an admission webhook may have made the one reference of the other.

    Webhooks lead to a mirror, and write the digest that a tag has. A digest says what is run, wherever it comes from:
    one that was asked for must be there. Where only a tag was asked for, the repository's name must stay, and so must
    the tag, unless a digest takes its place: what a tag means is the registry's word in any case.
    """
    if asked == run:
        return True
    (name, tag, digest), (run_name, run_tag, run_digest) = _parts(asked), _parts(run)
    if digest:
        return digest == run_digest
    is_pinned = bool(run_digest) and not run_tag
    return name == run_name and (is_pinned or (tag or "latest") == (run_tag or "latest"))


def _parts(image: str) -> tuple[str, str, str]:
    """The last component of an image's repository, its tag and its digest; what is absent is empty."""
    repository, _, digest = image.partition("@")
    name, _, tag = repository.rpartition("/")[2].partition(":")
    return name, tag, digest


def _without_defaults(source: object) -> object:
    return {k: v for k, v in source.items() if k not in _DEFAULTED} if isinstance(source, dict) else source


def restricted(user: PodUser) -> Json:
    """A pod's security context under Pod Security `restricted`; whoever it is may write to its volumes."""
    return {"runAsNonRoot": True, **user.named, "seccompProfile": {"type": "RuntimeDefault"}}


def names_user(pod_spec: Json) -> bool:
    """Return whether a pod that the operator makes says as whom it runs: a namespace that assigns users refuses it."""
    return not _USER.isdisjoint(pod_spec.get("securityContext") or {})


def locked() -> Json:
    """A container's security context under Pod Security `restricted`."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def mount(name: str, path: str, *, read_only: bool = False) -> Json:
    """A volume of the pod, in one of its containers."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _engine(engine: Engine) -> Json:
    source, target = names.DIR_ENGINE_IN_IMAGE, names.DIR_ENGINE
    # Emptied first: a copy that was killed half-way must not leave files of another engine behind.
    script = f"rm -rf {target} && mkdir -p {target} && cp -R {source}/. {target}/"
    return copying(engine.spec.files.source, script, mount("delivery", names.DIR_DELIVERY))


def copying(image: str, script: str, target: Json) -> Json:
    """The init container that copies out of an engine's image, which has a shell and nothing of ours."""
    return {
        "name": names.INIT_ENGINE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-ec", script],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [target],
    }


def _delivered(volume: str, *, read_only: bool) -> list[Json]:
    """`delivery`, and in it the volume's engine where there is one: read-only for everybody."""
    held = {**mount("volume", names.DIR_ENGINE, read_only=True), "subPath": ENGINE_FOLDER}
    return [mount("delivery", names.DIR_DELIVERY, read_only=read_only), *([held] if volume else [])]


def _verify(config: OperatorConfig, volume: str) -> Json:
    folders = ["--revision-dir", names.DIR_REVISION, "--delivery-dir", names.DIR_DELIVERY]
    return {
        "name": names.INIT_VERIFY,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_model_repo.delivery", *folders],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *_delivered(volume, read_only=False),
            mount("revision", names.DIR_REVISION, read_only=True),
        ],
    }


def gpu_resource(gpus: Gpus | None) -> str:
    """Which resource a container asks for to have them; None: no cluster is at hand."""
    return gpus.resource if gpus else WHOLE_GPU


def _resources(engine: Engine, fit: Fit) -> tuple[Json, Json]:
    """Requests and limits of memory. On CPU they are the fit; on GPUs the fit is of their own memory.

    There the weights pass through the node's memory on their way, as pages of files that the kernel may take back.
    """
    if engine.spec.requirements.gpu is None:
        memory = mebibytes(fit.total_bytes + bytes_of(SHM))
        return {"memory": memory}, {"memory": memory}
    least = HOST_MEMORY + bytes_of(SHM_GPU)
    return {"memory": mebibytes(least)}, {"memory": mebibytes(least + fit.weights_bytes)}


def _triton(engine: Engine, fit: Fit, identity: str, config: OperatorConfig, volume: str, gpus: Gpus | None) -> Json:
    requirements = engine.spec.requirements
    requests, limits = _resources(engine, fit)
    if requirements.gpu is not None:
        limits[gpu_resource(gpus)] = str(requirements.gpu.count)
    env = {names.ENV_IDENTITY: identity, "HOME": "/tmp"} | (OFFLINE if requirements.gpu else {})
    return {
        "name": names.CONTAINER_TRITON,
        "image": config.image_for(engine.spec.backend.value),
        "imagePullPolicy": "IfNotPresent",
        **command(through_entry_point=requirements.gpu is not None),
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "ports": [
            {"name": "http", "containerPort": names.PORT_HTTP, "protocol": "TCP"},
            {"name": "grpc", "containerPort": names.PORT_GRPC, "protocol": "TCP"},
            {"name": "triton-metrics", "containerPort": names.PORT_TRITON_METRICS, "protocol": "TCP"},
        ],
        "resources": {
            "requests": {"cpu": requirements.cpu_request, **requests},
            "limits": {"cpu": requirements.cpu, **limits},
        },
        "securityContext": locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": (STARTUP_SECONDS_GPU if requirements.gpu else STARTUP_SECONDS) // 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "readinessProbe": {
            "exec": {"command": ["/bin/bash", "-c", readiness_script()]},
            "periodSeconds": 3,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", str(PRESTOP_SECONDS)]}}},
        "volumeMounts": [
            *_delivered(volume, read_only=True),
            mount("admission", names.DIR_ADMISSION, read_only=True),
            mount("shm", "/dev/shm"),
            mount("tmp", "/tmp"),
        ],
    }


def readiness_script() -> str:
    """Token for this identity, and the model itself ready: strict server readiness flaps during loads.

    Bash alone, since NVIDIA's image carries no code of ours.
    """
    token = f"{names.DIR_ADMISSION}/{TOKEN_FILE}"
    path = f"/v2/models/{MODEL_NAME}/ready"
    return (
        f'head -n 1 {token} 2>/dev/null | grep -qx "${names.ENV_IDENTITY}"'
        ' || { echo "no admission token for this identity: the gate has not passed"; exit 1; };'
        f" exec 3<>/dev/tcp/127.0.0.1/{names.PORT_HTTP} || exit 1;"
        f" printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3;"
        " IFS=' ' read -r _ status _ <&3;"
        ' [ "$status" = 200 ] || { echo "the model is not ready: HTTP $status"; exit 1; }'
    )


def _monitor(namespace: str, owner: str, revision: str, identity: str, config: OperatorConfig) -> Json:
    env = {
        names.ENV_IDENTITY: identity,
        names.ENV_NAMESPACE: namespace,
        names.ENV_DEPLOYMENT: owner,
        names.ENV_REVISION: revision,
    }
    pod_name = {"name": names.ENV_POD, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
    return {
        "name": names.CONTAINER_MONITOR,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_monitoring"],
        "env": [*({"name": key, "value": value} for key, value in env.items()), pod_name],
        "ports": [{"name": "monitor", "containerPort": names.PORT_MONITOR, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": MONITOR_CPU, "memory": MONITOR_MEMORY}, "limits": {"memory": "256Mi"}},
        "securityContext": locked(),
        # No probes: a pod is Ready only when every container is, and the monitor's trouble must not stop traffic.
        "volumeMounts": [
            mount("admission", names.DIR_ADMISSION),
            mount("state", names.DIR_STATE),
            mount("revision", names.DIR_REVISION, read_only=True),
            mount("accuracy", names.DIR_ACCURACY, read_only=True),
            mount("monitor-tmp", "/tmp"),
        ],
    }


def storage_bytes(engine: Engine, *, on_volume: bool) -> int:
    """Return what a pod requests of its node's disk: its volumes, but for those in memory, and its logs. Bytes."""
    tmp = TMP_GPU if engine.spec.requirements.gpu is not None else TMP
    return _delivery_bytes(engine, on_volume=on_volume) + sum(map(bytes_of, (STATE, MONITOR_TMP, tmp))) + LOGS


def _delivery_bytes(engine: Engine, *, on_volume: bool) -> int:
    return 2 * (0 if on_volume else bytes_of(engine.spec.requirements.weights_memory)) + 64 * 2**20


def _volumes(owner: str, revision: str, engine: Engine, volume: str) -> list[Json]:
    on_gpu = engine.spec.requirements.gpu is not None
    held = [{"name": "volume", "persistentVolumeClaim": {"claimName": volume, "readOnly": True}}] if volume else []
    return [
        {"name": "delivery", "emptyDir": {"sizeLimit": mebibytes(_delivery_bytes(engine, on_volume=bool(volume)))}},
        {"name": "admission", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "state", "emptyDir": {"sizeLimit": STATE}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHM_GPU if on_gpu else SHM}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_GPU if on_gpu else TMP}},
        {"name": "monitor-tmp", "emptyDir": {"sizeLimit": MONITOR_TMP}},
        {"name": "revision", "configMap": {"name": revision}},
        {"name": "accuracy", "configMap": {"name": accuracy_name(owner)}},
        *held,
    ]


def accuracy_name(owner: str) -> str:
    """The ConfigMap that tells a deployment's monitors what to hold it to."""
    return f"{owner}-accuracy"
