"""The three Jobs of an isolation test, and the objects that they need. Pure builders."""

from dataclasses import replace

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.isolation import CONTAINER_ASK, CONTAINER_KNOCK, DIR_TOKEN, IsolationPart, IsolationProbe
from r1plus_operator.plan.manifests.children import build_dns_rule, build_namespace_peer, build_tcp_ports
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import build_container_security_context, build_mount, build_pod_security_context
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.isolation_test_run import (
    ASK,
    CONTROL,
    DEADLINE_SECONDS,
    NODE_VARIABLE,
    PORT_ALLOWED,
    SERVING_PORTS,
    IsolationTestRun,
    list_api_requests,
    list_connection_targets,
    locate_jobs,
)
from r1plus_operator.plan.tenancy.network_policies import build_metadata, build_policy

DECOY_PODS: Json = {"matchLabels": {names.LABEL_DEPLOYMENT: names.DECOY}}
API_PROBE_PODS: Json = {"matchLabels": {names.LABEL_PROBE: IsolationProbe.ASK.value}}


def build_service_account(namespace: str) -> Json:
    """Return the service account of the API probe: it has no rights, and only its own Job mounts its token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(namespace, names.PROBER, IsolationPart.PROBE),
        "automountServiceAccountToken": False,
    }


def build_network_policy(namespace: str, config: OperatorConfig) -> Json:
    """Return the NetworkPolicy of the API probe: out to DNS, the API server and the decoy, and nothing in."""
    networks = [{"ipBlock": {"cidr": cidr}} for cidr in config.isolation.api_cidrs]
    decoy = {**build_namespace_peer(config.isolation.decoy_namespace), "podSelector": DECOY_PODS}
    egress = [
        build_dns_rule(config.dns),
        {"ports": build_tcp_ports(*config.isolation.api_ports), **({"to": networks} if networks else {})},
        {"to": [decoy], "ports": build_tcp_ports(*SERVING_PORTS, PORT_ALLOWED)},
    ]
    return build_policy(build_metadata(namespace, ASK, IsolationPart.PROBE), API_PROBE_PODS, [], egress)


def build_jobs(run: IsolationTestRun, config: OperatorConfig) -> tuple[Json, ...]:
    """Return the three Jobs of a run, under Pod Security `restricted`."""
    run_jobs = []
    for probe, name in run.jobs:
        namespace, _ = locate_jobs(run, config)[probe]
        containers = [_build_connection_container(probe, run, config)]
        containers += (
            [_build_api_container(config, is_control=probe is IsolationProbe.CONTROL)]
            if probe is not IsolationProbe.KNOCK
            else []
        )
        labels = {
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_NAME: names.PROBER,
            names.LABEL_PROBE: str(probe),
            # So that the network policies of what serves select it.
            **({names.LABEL_DEPLOYMENT: run.deployment} if probe is IsolationProbe.KNOCK else {}),
        }
        annotations = {names.ANNOTATION_PROBED: dumps(run)}
        template = {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": _build_pod(containers, probe, config),
        }
        run_jobs.append(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": build_metadata(namespace, name, IsolationPart.PROBE, **annotations),
                "spec": {"backoffLimit": 0, "activeDeadlineSeconds": DEADLINE_SECONDS, "template": template},
            }
        )
    return tuple(run_jobs)


def _build_pod(containers: list[Json], probe: str, config: OperatorConfig) -> Json:
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": build_pod_security_context(config.pod_user),
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


def _build_connection_container(probe: IsolationProbe, run: IsolationTestRun, config: OperatorConfig) -> Json:
    arguments = [
        "--doors",
        dumps(list_connection_targets(probe, run, config)),
        *(["--expect", "open"] if probe is IsolationProbe.CONTROL else []),
    ]
    node = {"name": NODE_VARIABLE, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIP"}}}
    container = build_container(config, CONTAINER_KNOCK, "knock", arguments)
    return container if probe is IsolationProbe.ASK else container | {"env": [node]}


def _build_api_container(config: OperatorConfig, *, is_control: bool) -> Json:
    requests = list_api_requests(config)
    if is_control:
        requests = tuple(replace(request, anonymous=False) for request in requests)
    arguments = ["--questions", dumps(requests), *(["--expect", "open"] if is_control else [])]
    return build_container(config, CONTAINER_ASK, "ask", arguments) | {
        "volumeMounts": [build_mount("walls", DIR_TOKEN, read_only=True)]
    }


def build_container(config: OperatorConfig, name: str, verb: str, arguments: list[str]) -> Json:
    """Return a container of the isolation test or of the decoy."""
    return {
        "name": name,
        "image": config.monitor_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "r1plus_monitoring.isolation_test", verb],
        "args": arguments,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": build_container_security_context(),
    }
