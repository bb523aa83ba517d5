"""The decoy: a tenant of the operator's own, which isolation tests attack instead of other tenants. Pure builders.

The chart makes its namespace, the service account of the control and the Secret that the test requests. The operator
makes what only it may make: pods with the labels and the network policies of a serving pod.
"""

from r1plus_contract import names
from r1plus_contract.monitor.isolation import CONTAINER_DECOY, IsolationPart, IsolationProbe
from r1plus_operator.plan.manifests.children import build_serving_rules, build_tcp_ports
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import build_pod_security_context
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.plan.tenancy.isolation_test_jobs import API_PROBE_PODS, DECOY_PODS, build_container
from r1plus_operator.plan.tenancy.isolation_test_run import PORT_ALLOWED, SERVING_PORTS


def build_network_policies(config: OperatorConfig) -> list[Json]:
    """Return the NetworkPolicies of the decoy's pod.

    The first is made as for every serving pod. The others let in the control, and the API probe at one port.
    """
    namespace = config.isolation.decoy_namespace
    control: Json = {"matchLabels": {names.LABEL_PROBE: IsolationProbe.CONTROL.value}}
    from_api_probe = {
        "from": [{"namespaceSelector": {}, "podSelector": API_PROBE_PODS}],
        "ports": build_tcp_ports(PORT_ALLOWED),
    }
    name = f"{names.DECOY}-control"
    return [
        network_policies.build_policy(
            _build_metadata(namespace, names.DECOY), DECOY_PODS, **build_serving_rules(DECOY_PODS, (), config)
        ),
        network_policies.build_policy(
            _build_metadata(namespace, name), DECOY_PODS, [{"from": [{"podSelector": control}]}], []
        ),
        network_policies.build_policy(_build_metadata(namespace, f"{name}-out"), control, [], [{}]),
        network_policies.build_policy(
            _build_metadata(namespace, f"{names.DECOY}-let-in"), DECOY_PODS, [from_api_probe], []
        ),
    ]


def build_objects(config: OperatorConfig) -> list[Json]:
    """Return the decoy's Deployment and its two Services."""
    namespace = config.isolation.decoy_namespace
    arguments = ["--ports", ",".join(map(str, (*SERVING_PORTS, PORT_ALLOWED)))]
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": build_pod_security_context(config.pod_user),
        "containers": [build_container(config, CONTAINER_DECOY, "decoy", arguments) | {"readinessProbe": _READY}],
    }
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    labels = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_NAME: names.DECOY,
        names.LABEL_DEPLOYMENT: names.DECOY,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _build_metadata(namespace, names.DECOY),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "selector": DECOY_PODS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return [
        deployment,
        _build_service(namespace, names.DECOY),
        _build_service(namespace, f"{names.DECOY}-pods", headless=True),
    ]


_READY: Json = {"tcpSocket": {"port": names.PORT_GRPC}, "periodSeconds": 5}


def _build_service(namespace: str, name: str, *, headless: bool = False) -> Json:
    ports = [{"name": f"p{port}", "port": port, "targetPort": port, "protocol": "TCP"} for port in SERVING_PORTS]
    spec: Json = {"type": "ClusterIP", "selector": DECOY_PODS["matchLabels"], "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _build_metadata(namespace, name),
        "spec": spec | ({"clusterIP": "None"} if headless else {}),
    }


def _build_metadata(namespace: str, name: str) -> Json:
    return network_policies.build_metadata(namespace, name, IsolationPart.DECOY)
