"""The TrainJob of an engine that is trained on several machines, for Kubeflow's trainer. Pure; called by `volumes`.

The runtime is the platform team's, and decides what is not stated here. The trainer's controller makes a JobSet of the
TrainJob, JobSet's makes a Job with a pod per machine, and a Service by which the pods find the first one.
"""

from r1plus_contract import names
from r1plus_operator.plan.engine.delivery import EngineVolume, TrainingNodes
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import build_pod_security_context
from r1plus_operator.plan.settings import OperatorConfig

TRAIN_JOB = names.KIND_TRAIN_JOB
PATCH_MANAGER = f"{names.GROUP}/operator"
"""Who has written the patches of a TrainJob, as the trainer wants it: DOMAIN/NAME."""
_PATCHED = ("volumeMounts", "securityContext")
"""Fields of a container that a TrainJob may set by a patch of its runtime; `trainer` has the others."""


def format_workers_job(name: str) -> str:
    """Return the name of the Job with the pods of a TrainJob: of the first of the replicated job's one replica."""
    return f"{name}-{names.CONTAINER_WORKER}-0"


def build_train_job(
    volume: EngineVolume, nodes: TrainingNodes, metadata: Json, pod: Json, labels: dict[str, str], deadline: int
) -> Json:
    """Return the TrainJob whose pods are like `pod`, of which the one container trains."""
    (container,) = pod["containers"]
    spec: Json = {
        "serviceAccountName": volume.name,
        "securityContext": pod["securityContext"],
        "volumes": pod["volumes"],
        "containers": [{"name": container["name"]} | {key: container[key] for key in _PATCHED}],
    }
    spec |= {key: pod[key] for key in ("imagePullSecrets", "nodeSelector", "tolerations") if key in pod}
    template = {"metadata": {"labels": labels}, "spec": spec}
    patch = {"name": names.CONTAINER_WORKER, "template": {"spec": {"template": template}}}
    return {
        "apiVersion": f"{names.GROUP_TRAINER}/v1alpha1",
        "kind": TRAIN_JOB,
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"apiGroup": names.GROUP_TRAINER, "kind": nodes.runtime_kind, "name": nodes.runtime_name},
            "trainer": {
                "image": container["image"],
                "command": container["command"],
                "env": container["env"],
                "numNodes": nodes.count,
                "resourcesPerNode": container["resources"],
            },
            "runtimePatches": [
                {
                    "manager": PATCH_MANAGER,
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}},
                }
            ],
            "activeDeadlineSeconds": deadline,
        },
    }


def build_account(metadata: Json) -> Json:
    """Return the ServiceAccount of a TrainJob's pods, which has no token: a TrainJob cannot say so of its pods."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }


def build_peer_rules(labels: dict[str, str], dns_rule: Json) -> tuple[Json, list[Json]]:
    """Return the rule by which workers admit each other, and those by which they reach each other. Ports are random."""
    peers = [{"podSelector": {"matchLabels": labels}}]
    return {"from": peers}, [{"to": peers}, dns_rule]


def build_worker_pod(config: OperatorConfig, container: Json, volumes: list[Json], placement: Json) -> Json:
    """Return the pod of a worker, as far as a TrainJob can state it."""
    pod: Json = {
        "securityContext": build_pod_security_context(config.pod_user),
        "containers": [{**container, "name": names.CONTAINER_WORKER, "command": [*container["command"], "--worker"]}],
        "volumes": volumes,
    }
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    return pod | placement
