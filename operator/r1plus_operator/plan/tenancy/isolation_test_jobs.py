"""What a run of the prober of walls is made of: its three Jobs, and what they stand on. Pure builders."""

from dataclasses import replace

from r1plus_contract import names
from r1plus_contract.isolation import CONTAINER_ASK, CONTAINER_KNOCK, DIR_TOKEN, IsolationPart, IsolationProbe
from r1plus_contract.jsonable import dumps
from r1plus_operator.plan.manifests.children import namespace_peer, tcp, to_dns
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import locked, mount, restricted
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.isolation_test_run import (
    ASK,
    CONTROL,
    DEADLINE_SECONDS,
    NODE_VARIABLE,
    PORT_LET_IN,
    SERVING_PORTS,
    Run,
    doors,
    places,
    questions,
)
from r1plus_operator.plan.tenancy.network_policies import metadata, policy

DECOY_PODS: Json = {"matchLabels": {names.LABEL_DEPLOYMENT: names.DECOY}}
WHO_ASKS: Json = {"matchLabels": {names.LABEL_PROBE: IsolationProbe.ASK.value}}


def account(namespace: str) -> Json:
    """Whom the prober asks as: it may do nothing, and only its own Job has its token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(namespace, names.PROBER, IsolationPart.PROBE),
        "automountServiceAccountToken": False,
    }


def way_to_ask(namespace: str, config: OperatorConfig) -> Json:
    """The walls of the pod that asks: out to DNS, to the API server and to the decoy, and nothing in."""
    where = [{"ipBlock": {"cidr": cidr}} for cidr in config.isolation.api_cidrs]
    decoy = {**namespace_peer(config.isolation.decoy_namespace), "podSelector": DECOY_PODS}
    out = [
        to_dns(config.dns),
        {"ports": tcp(*config.isolation.api_ports), **({"to": where} if where else {})},
        {"to": [decoy], "ports": tcp(*SERVING_PORTS, PORT_LET_IN)},
    ]
    return policy(metadata(namespace, ASK, IsolationPart.PROBE), WHO_ASKS, [], out)


def jobs(run: Run, config: OperatorConfig) -> tuple[Json, ...]:
    """The three Jobs of a run, under Pod Security `restricted`."""
    made = []
    for probe, name in run.jobs:
        control = probe is IsolationProbe.CONTROL
        namespace, _ = places(run, config)[probe]
        containers = [_knock(probe, run, config)]
        containers += [_ask(config, control)] if probe is not IsolationProbe.KNOCK else []
        labels = {
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_NAME: names.PROBER,
            names.LABEL_PROBE: str(probe),
            # Under the very policies of what serves.
            **({names.LABEL_DEPLOYMENT: run.deployment} if probe is IsolationProbe.KNOCK else {}),
        }
        told = {names.ANNOTATION_PROBED: dumps(run)}
        template = {"metadata": {"labels": labels, "annotations": told}, "spec": _pod(containers, probe, config)}
        made.append(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": metadata(namespace, name, IsolationPart.PROBE, **told),
                "spec": {"backoffLimit": 0, "activeDeadlineSeconds": DEADLINE_SECONDS, "template": template},
            }
        )
    return tuple(made)


def _pod(containers: list[Json], probe: str, config: OperatorConfig) -> Json:
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted(config.pod_user),
        "containers": containers,
    }
    if probe != IsolationProbe.KNOCK:
        pod["serviceAccountName"] = CONTROL if probe == IsolationProbe.CONTROL else names.PROBER
        sources = [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]
        pod["volumes"] = [{"name": "walls", "projected": {"sources": sources}}]
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    return pod


def _knock(probe: IsolationProbe, run: Run, config: OperatorConfig) -> Json:
    arguments = [
        "--doors",
        dumps(doors(probe, run, config)),
        *(["--expect", "open"] if probe is IsolationProbe.CONTROL else []),
    ]
    node = {"name": NODE_VARIABLE, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIP"}}}
    made = container(config, CONTAINER_KNOCK, "knock", arguments)
    return made if probe is IsolationProbe.ASK else made | {"env": [node]}


def _ask(config: OperatorConfig, control: bool) -> Json:
    asked = questions(config)
    if control:
        asked = tuple(replace(question, anonymous=False) for question in asked)
    arguments = ["--questions", dumps(asked), *(["--expect", "open"] if control else [])]
    return container(config, CONTAINER_ASK, "ask", arguments) | {
        "volumeMounts": [mount("walls", DIR_TOKEN, read_only=True)]
    }


def container(config: OperatorConfig, name: str, verb: str, arguments: list[str]) -> Json:
    """A container of the prober or of the decoy."""
    return {
        "name": name,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_monitoring.isolation_test", verb],
        "args": arguments,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": locked(),
    }
