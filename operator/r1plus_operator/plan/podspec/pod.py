"""The serving pod: [engine, verify] then [triton, monitor], under Pod Security `restricted` without exception.

`engine` copies the engine out of its image; if a volume has the engine, this container is absent. `verify` checks its
sha256 and assembles Triton's repository. Triton serves it read-only, the monitor probes it. Triton is Ready when the
model is ready *and* the admission token exists.
"""

import hashlib
from collections.abc import Mapping

from r1plus_contract import metrics, names
from r1plus_contract.engine.engine_fetch import ENGINE_FOLDER
from r1plus_contract.engine.heartbeat import DIGITS, ENV_HEARTBEAT, HEARTBEAT, UPTIME, describe_lateness
from r1plus_contract.inference import MODEL_NAME
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.admission import TOKEN_FILE
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes
from r1plus_model_repo.catalog.types import Backend, Engine
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.triton_args import EXIT_TIMEOUT_SECONDS, build_command
from r1plus_operator.plan.settings import AccessMode, OperatorConfig, PodUser
from r1plus_policies.engine.hardware import UNKNOWN, WHOLE_GPU, Gpus
from r1plus_policies.engine.memory_fit import Fit
from r1plus_policies.rollout import Strategy

HOSTNAME = "kubernetes.io/hostname"
"""Label with a node's name."""
PLATFORM = {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
"""Labels of the nodes that our images run on."""
CPU_FEATURES = "feature.node.kubernetes.io"
"""Prefix of the labels of node-feature-discovery."""
HAS_AVX2, IS_EXAMINED = f"{CPU_FEATURES}/cpu-cpuid.AVX2", f"{CPU_FEATURES}/cpu-model.vendor_id"
"""Labels of a node with AVX2, and of every node that node-feature-discovery has examined. vLLM for CPU has code for
AVX-512 and for AVX2, and chooses when it starts (vllm/platforms/cpu.py, 0.32)."""
GPU_TOLERATION = {"key": WHOLE_GPU, "operator": "Exists"}
"""Toleration of the taint of GPU nodes; the admission plugin ExtendedResourceToleration adds the same."""
PRESTOP_SECONDS = 5
"""Time for the endpoint to leave every kube-proxy, because Triton resets new HTTP requests after SIGTERM."""
GRACE_SECONDS = PRESTOP_SECONDS + EXIT_TIMEOUT_SECONDS + 10
"""Grace period of a pod that does not wait for its requests; with `rollout.drain` it is so much longer."""
HUNG_LOOKS = 3
"""How often in a row Triton may leave a request for its metrics unanswered for 10 s before a deleted pod ends."""
STARTUP_SECONDS, STARTUP_SECONDS_LARGE = 600, 1800
"""Time to load the engine: with OpenVINO, and with the others, whose engines have tens of GiB and compile kernels."""
SHM, SHM_GPU = "256Mi", "1Gi"
"""Size of /dev/shm, for Triton's Python backend and for communication between the processes of several GPUs."""
TMP, TMP_GPU = "256Mi", "4Gi"
"""Size of /tmp. GPU runtimes store compiled kernels there."""
HOST_MEMORY = 4 * 2**30
"""Node memory for server, CUDA context and libraries of a GPU runtime, bytes. Estimated, not measured."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TRTLLM_NO_USAGE_STATS": "1",
}
"""Network policies block downloads and telemetry, so turn them off instead of waiting for timeouts."""
MONITOR_MEMORY, MONITOR_CPU = "96Mi", "20m"
STATE, MONITOR_TMP = "64Mi", "16Mi"
LOGS, LOGS_LIMIT = 256 * 2**20, 2**30
"""Disk for the containers' logs on the node, bytes: request and limit."""
POD_OVERHEAD = bytes_of(SHM) + bytes_of(MONITOR_MEMORY)
"""Memory that a pod needs in addition to the engine, bytes."""


def build_pod_template(
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
    """Return the pod template of a revision of the R1PlusDeployment `cr`. It is deterministic.

    `volume` names the claim with the engine; empty: the engine's image has it. `gpus` are those that batch and context
    were fitted to: pods run on no others. `counts_storage`: the nodes report their ephemeral storage.
    """
    meta = cr["metadata"]
    namespace, owner = meta["namespace"], meta["name"]
    pod: Json = {
        "serviceAccountName": owner,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS + compute_drain_seconds(spec),
        "securityContext": build_pod_security_context(config.pod_user),
        "initContainers": [
            *([] if volume else [_build_engine_container(engine)]),
            _build_verify_container(config, volume),
        ],
        "containers": [
            _build_triton_container(engine, fit, identity, config, volume, gpus, compute_drain_seconds(spec)),
            _build_monitor_container(namespace, owner, revision, identity, config),
        ],
        "volumes": _build_volumes(owner, revision, engine, volume),
    }
    labels = build_pod_labels(owner, revision, engine.name)
    if volume:
        labels[names.LABEL_VOLUME] = volume
        if config.volumes.access_mode is AccessMode.ONE_NODE:
            pod["affinity"] = {"podAffinity": _build_affinity(volume)}
    if counts_storage:
        triton, disk = pod["containers"][0]["resources"], compute_storage_bytes(engine, on_volume=bool(volume))
        triton["requests"]["ephemeral-storage"] = mebibytes(disk)
        triton["limits"]["ephemeral-storage"] = mebibytes(disk - LOGS + LOGS_LIMIT)
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    pod |= build_placement(spec, gpus)
    if engine.spec.is_vllm_on_cpu:
        pod["affinity"] = {**pod.get("affinity", {}), "nodeAffinity": _build_node_affinity()}
    notes = {names.ANNOTATION_OWNER_UID: meta["uid"]}
    return {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}


def build_placement(spec: R1PlusDeploymentSpec, gpus: Gpus | None) -> Json:
    """Return the part of a pod's spec that selects nodes: those of the spec that have the GPU."""
    product = gpus.selector if gpus and gpus.product != UNKNOWN else {}
    placement: Json = {"nodeSelector": {**spec.placement.node_selector, **PLATFORM, **product}}
    tolerations = build_tolerations(spec, on_gpu=gpus is not None)
    return placement | ({"tolerations": tolerations} if tolerations else {})


def build_tolerations(spec: R1PlusDeploymentSpec, *, on_gpu: bool) -> list[Json]:
    """Return the tolerations of the pods: those of the spec, and on GPUs the one for GPU nodes."""
    tolerations = [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in spec.placement.tolerations]
    return [*tolerations, *([GPU_TOLERATION] if on_gpu else [])]


def _build_affinity(volume: str) -> Json:
    """Return the affinity that puts all pods with the volume on one node, because it can be mounted on one only."""
    selector = {"matchLabels": {names.LABEL_VOLUME: volume, names.LABEL_SERVING: names.SERVING}}
    term = {"labelSelector": selector, "topologyKey": HOSTNAME}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def _build_node_affinity() -> Json:
    """Return the affinity that keeps vLLM away from nodes that are known to lack AVX2; see `lacks_instructions`."""
    alternatives = {"key": HAS_AVX2, "operator": "Exists"}, {"key": IS_EXAMINED, "operator": "DoesNotExist"}
    terms = [{"matchExpressions": [expression]} for expression in alternatives]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def lacks_instructions(labels: Mapping[str, str]) -> bool:
    """Whether a node is known to lack AVX2. Nothing is known of one that was not examined."""
    return IS_EXAMINED in labels and HAS_AVX2 not in labels


def build_pod_labels(owner: str, revision: str, engine: str) -> dict[str, str]:
    """Return the pod labels. Network policies select the deployment, the Service the revision and `serving`."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_NAME: "r1plus-serving",
        names.LABEL_DEPLOYMENT: owner,
        names.LABEL_REVISION: revision,
        names.LABEL_SERVING: "true",
        names.LABEL_ENGINE: engine,
    }


_RUN: Json = dict.fromkeys(("name", "command", "args", "env", "envFrom", "volumeMounts"))
"""Fields of a container that, besides its image, decide which code runs with which data. None has a default."""
_DEFAULTED = frozenset({"defaultMode", "sizeLimit"})
_USER = frozenset(PodUser(0, 0, 0).security_fields)


def hash_pod_spec(pod_spec: Json) -> str:
    """Return a hash of what a pod runs, without its images, in 16 hex digits. A template and its pods have the same.

    A foreign pod with a revision's labels has another hash, so its monitor's reports are ignored. Ephemeral containers
    do not count: `kubectl debug` does not make a pod foreign.
    """
    containers = [
        [{key: container.get(key) for key in _RUN} for container in pod_spec.get(kind) or ()]
        for kind in ("initContainers", "containers")
    ]
    volumes = [
        {key: _drop_defaults(source) for key, source in volume.items()} for volume in pod_spec.get("volumes") or ()
    ]
    contents = [containers, volumes, bool(pod_spec.get("hostNetwork"))]
    return hashlib.sha256(dumps(contents).encode()).hexdigest()[:16]


def list_images(pod_spec: Json) -> tuple[str, ...]:
    """Return the images of a pod's containers, init containers first."""
    return tuple(
        str(container.get("image", ""))
        for kind in ("initContainers", "containers")
        for container in pod_spec.get(kind) or ()
    )


def is_same_image(requested: str, actual: str) -> bool:
    """Whether the actual image reference is the requested one, perhaps rewritten by an admission webhook.

    Webhooks insert a mirror, and replace a tag by its digest. A digest identifies the image in any registry, so a
    requested digest must be there. For a requested tag, the repository's name must be the same, and the tag as well,
    unless a digest replaces it.
    """
    if requested == actual:
        return True
    (name, tag, digest), (actual_name, actual_tag, actual_digest) = (
        _split_reference(requested),
        _split_reference(actual),
    )
    if digest:
        return digest == actual_digest
    is_pinned = bool(actual_digest) and not actual_tag
    return name == actual_name and (is_pinned or (tag or "latest") == (actual_tag or "latest"))


def _split_reference(image: str) -> tuple[str, str, str]:
    """Return the last component of an image's repository, its tag and its digest; empty: absent."""
    repository, _, digest = image.partition("@")
    name, _, tag = repository.rpartition("/")[2].partition(":")
    return name, tag, digest


def _drop_defaults(source: object) -> object:
    return {k: v for k, v in source.items() if k not in _DEFAULTED} if isinstance(source, dict) else source


def build_pod_security_context(user: PodUser) -> Json:
    """Return a pod's security context under Pod Security `restricted`."""
    return {"runAsNonRoot": True, **user.security_fields, "seccompProfile": {"type": "RuntimeDefault"}}


def has_user(pod_spec: Json) -> bool:
    """Whether a pod spec sets a user. A namespace that assigns users refuses such pods."""
    return not _USER.isdisjoint(pod_spec.get("securityContext") or {})


def build_container_security_context() -> Json:
    """Return a container's security context under Pod Security `restricted`."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def build_mount(name: str, path: str, *, read_only: bool = False) -> Json:
    """Return the mount of a pod's volume in a container."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _build_engine_container(engine: Engine) -> Json:
    source, target = names.DIR_ENGINE_IN_IMAGE, names.DIR_ENGINE
    # Empty the target first: an interrupted copy may have left files of another engine.
    script = f"rm -rf {target} && mkdir -p {target} && cp -R {source}/. {target}/"
    return build_copy_container(engine.spec.files.source, script, build_mount("delivery", names.DIR_DELIVERY))


def build_copy_container(image: str, script: str, target: Json) -> Json:
    """Return the init container that copies from an engine's image, which has a shell and no code of ours."""
    return {
        "name": names.INIT_ENGINE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-ec", script],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [target],
    }


def _build_delivery_mounts(volume: str, *, read_only: bool) -> list[Json]:
    """Return the mounts of `delivery`, and in it of the volume's engine, if a volume delivers it, read-only."""
    engine_mount = {**build_mount("volume", names.DIR_ENGINE, read_only=True), "subPath": ENGINE_FOLDER}
    return [build_mount("delivery", names.DIR_DELIVERY, read_only=read_only), *([engine_mount] if volume else [])]


def _build_verify_container(config: OperatorConfig, volume: str) -> Json:
    folders = ["--revision-dir", names.DIR_REVISION, "--delivery-dir", names.DIR_DELIVERY]
    return {
        "name": names.INIT_VERIFY,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_model_repo.delivery", *folders],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *_build_delivery_mounts(volume, read_only=False),
            build_mount("revision", names.DIR_REVISION, read_only=True),
        ],
    }


def select_gpu_resource(gpus: Gpus | None) -> str:
    """Return the resource name for requesting GPUs; `gpus=None`: no cluster is at hand."""
    return gpus.resource if gpus else WHOLE_GPU


def _compute_memory(engine: Engine, fit: Fit) -> tuple[Json, Json]:
    """Return requests and limits of the node's memory. On CPU they are the fit; on GPUs the fit is GPU memory.

    A checkpoint passes through the node's memory as file pages, which the kernel may reclaim. vLLM on CPU counts them
    as used: without room for them in the limit it would refuse its KV cache (CPUWorker.determine_available_memory).
    """
    if engine.spec.requirements.gpu is None:
        least, pages = fit.total_bytes + bytes_of(SHM), fit.weights_bytes if engine.spec.is_vllm_on_cpu else 0
    else:
        least, pages = HOST_MEMORY + bytes_of(SHM_GPU), fit.weights_bytes
    return {"memory": mebibytes(least)}, {"memory": mebibytes(least + pages)}


def _build_triton_container(
    engine: Engine,
    fit: Fit,
    identity: str,
    config: OperatorConfig,
    volume: str,
    gpus: Gpus | None,
    drain_seconds: int,
) -> Json:
    requirements = engine.spec.requirements
    requests, limits = _compute_memory(engine, fit)
    if requirements.gpu is not None:
        limits[select_gpu_resource(gpus)] = str(requirements.gpu.count)
    # /tmp outlives a container's restart; our images start no code from there, and NVIDIA's do not say so.
    home = {"HOME": "/tmp", "PYTHONNOUSERSITE": "1"}
    is_openvino = engine.spec.backend is Backend.OPENVINO
    env = {names.ENV_IDENTITY: identity, ENV_HEARTBEAT: HEARTBEAT} | home | ({} if is_openvino else OFFLINE)
    return {
        "name": names.CONTAINER_TRITON,
        "image": config.select_image(engine.spec.runtime),
        "imagePullPolicy": "IfNotPresent",
        **build_command(through_entry_point=requirements.gpu is not None),
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
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_build_triton_probes(STARTUP_SECONDS if is_openvino else STARTUP_SECONDS_LARGE),
        "lifecycle": {"preStop": {"exec": {"command": build_prestop_command(drain_seconds)}}},
        "volumeMounts": [
            *_build_delivery_mounts(volume, read_only=True),
            build_mount("admission", names.DIR_ADMISSION, read_only=True),
            build_mount("shm", "/dev/shm"),
            build_mount("tmp", "/tmp"),
        ],
    }


def _build_triton_probes(startup_seconds: int) -> Json:
    return {
        "startupProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": startup_seconds // 2,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
        },
        # An engine that is late for 120 s hangs; it has left traffic after 10 s of them.
        "livenessProbe": {
            "exec": {"command": ["/bin/bash", "-c", build_liveness_script()]},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
            # A server that has failed runs no requests worth the wait of the preStop hook.
            "terminationGracePeriodSeconds": GRACE_SECONDS,
        },
        "readinessProbe": {
            "exec": {"command": ["/bin/bash", "-c", build_readiness_script()]},
            "periodSeconds": 3,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
        },
    }


def compute_drain_seconds(spec: R1PlusDeploymentSpec) -> int:
    """Return how long a deleted pod waits for its requests, seconds. In place its successor waits for the room."""
    return 0 if spec.rollout.strategy is Strategy.IN_PLACE else int(spec.rollout.drain_seconds)


_SIGTERM_BIT = "4000"
"""Of the mask of signals that a process catches, hexadecimal."""


def build_prestop_command(drain_seconds: int) -> list[str]:
    """Return the command that runs before SIGTERM: it lets endpoints leave, then waits while the engine runs requests.

    The monitor has ended by then, so its probes are no such requests. A server that hangs is not waited for. While the
    entry point of NVIDIA's image runs, the container's first process has no handler of SIGTERM, and the kernel would
    keep it from it: then it waits. That image has no code of ours: bash only.
    """
    if not drain_seconds:
        return ["/bin/sleep", str(PRESTOP_SECONDS)]
    gauges = f"{metrics.ENGINE_RUNNING_REQUESTS}*|{metrics.ENGINE_WAITING_REQUESTS}*"
    script = (
        "ends() { while read -r key value; do [ $key != SigCgt: ] || break; done </proc/1/status;"
        f" ((16#${{value:-{_SIGTERM_BIT}}} & 0x{_SIGTERM_BIT})); }};"
        f" sleep {PRESTOP_SECONDS}; end=$((SECONDS + {drain_seconds})); hung=0;"
        " while [ $SECONDS -lt $end ]; do"
        f" exec 3<>/dev/tcp/127.0.0.1/{names.PORT_TRITON_METRICS} || {{ ! ends || exit 0; sleep 1; continue; }};"
        " printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; busy=0; late=0;"
        " while read -r -t 10 name value rest <&3 || { [ $? -le 128 ] || late=1; false; }; do"
        f' case "$name" in {gauges}) [ "${{value%%.*}}" = 0 ] || busy=1;; esac; done;'
        f" hung=$((late ? hung + 1 : 0)); [ $hung -lt {HUNG_LOOKS} ] || exit 0;"
        " [ $busy$late != 00 ] || exit 0; exec 3>&-; sleep 1; done"
    )
    return ["/bin/bash", "-c", script]


def build_readiness_script() -> str:
    """Return the bash script that tests the admission token, the engine's heartbeat and the model's own readiness.

    The server's strict readiness is not stable during loads. NVIDIA's image has no code of ours, so it uses bash only.
    """
    token = f"{names.DIR_ADMISSION}/{TOKEN_FILE}"
    path = f"/v2/models/{MODEL_NAME}/ready"
    return (
        f'head -n 1 {token} 2>/dev/null | grep -qx "${names.ENV_IDENTITY}"'
        ' || { echo "no admission token for this identity: the gate has not passed"; exit 1; }; '
        + _build_server_check(path, "the model is not ready")
    )


def build_liveness_script() -> str:
    """Return the bash script that tests the server and the engine's heartbeat.

    The server answers that it is live, and the model ready, also while the engine's process hangs.
    """
    return _build_server_check("/v2/health/live", "the server is not live")


def _build_server_check(path: str, problem: str) -> str:
    """Return a bash script that fails where the engine's heartbeat is late, or Triton does not answer with 200.

    An image of an older version writes no heartbeat. It is read as `r1plus_contract.engine.heartbeat` does.
    """
    return (
        f"if {{ read -r due <{HEARTBEAT}; }} 2>/dev/null && [[ $due =~ ^[0-9]{{{DIGITS}}}$ ]]; then"
        f" read -r up _ <{UPTIME}; late=$((${{up%%.*}} - 10#$due)); [ $late -le 0 ] ||"
        f' {{ echo "{describe_lateness("$late")}"; exit 1; }}; fi;'
        f" exec 3<>/dev/tcp/127.0.0.1/{names.PORT_HTTP} || exit 1;"
        f" printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3;"
        " IFS=' ' read -r _ status _ <&3;"
        f' [ "$status" = 200 ] || {{ echo "{problem}: HTTP $status"; exit 1; }}'
    )


def _build_monitor_container(namespace: str, owner: str, revision: str, identity: str, config: OperatorConfig) -> Json:
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
        "securityContext": build_container_security_context(),
        # No other probe: a pod is Ready only if all its containers are, and a failing monitor must not stop traffic.
        # This one passes once the supervisor, which never ends by itself, holds the port.
        "startupProbe": {
            "exec": {"command": ["python3", "-m", "r1plus_monitoring.process.listening"]},
            "periodSeconds": 2,
            "timeoutSeconds": 10,
            "failureThreshold": STARTUP_SECONDS // 2,
        },
        "volumeMounts": [
            build_mount("admission", names.DIR_ADMISSION),
            build_mount("state", names.DIR_STATE),
            build_mount("revision", names.DIR_REVISION, read_only=True),
            build_mount("accuracy", names.DIR_ACCURACY, read_only=True),
            build_mount("monitor-tmp", "/tmp"),
        ],
    }


def compute_storage_bytes(engine: Engine, *, on_volume: bool) -> int:
    """Return the disk space that a pod requests, bytes: its volumes, except those in memory, and its logs."""
    tmp = TMP_GPU if engine.spec.requirements.gpu is not None else TMP
    return _compute_delivery_bytes(engine, on_volume=on_volume) + sum(map(bytes_of, (STATE, MONITOR_TMP, tmp))) + LOGS


def _compute_delivery_bytes(engine: Engine, *, on_volume: bool) -> int:
    return 2 * (0 if on_volume else bytes_of(engine.spec.requirements.weights_memory)) + 64 * 2**20


def _build_volumes(owner: str, revision: str, engine: Engine, volume: str) -> list[Json]:
    on_gpu = engine.spec.requirements.gpu is not None
    engine_volume = (
        [{"name": "volume", "persistentVolumeClaim": {"claimName": volume, "readOnly": True}}] if volume else []
    )
    return [
        {
            "name": "delivery",
            "emptyDir": {"sizeLimit": mebibytes(_compute_delivery_bytes(engine, on_volume=bool(volume)))},
        },
        {"name": "admission", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "state", "emptyDir": {"sizeLimit": STATE}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHM_GPU if on_gpu else SHM}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_GPU if on_gpu else TMP}},
        {"name": "monitor-tmp", "emptyDir": {"sizeLimit": MONITOR_TMP}},
        {"name": "revision", "configMap": {"name": revision}},
        {"name": "accuracy", "configMap": {"name": name_accuracy_config(owner)}},
        *engine_volume,
    ]


def name_accuracy_config(owner: str) -> str:
    """Return the name of the ConfigMap of a deployment's monitors."""
    return f"{owner}-accuracy"
