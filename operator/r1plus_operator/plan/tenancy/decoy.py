"""The decoy: a tenant of the operator's own, which the prober attacks in every other tenant's place. Pure builders.

The chart makes its namespace, with the service account of the control and the Secret that is asked for; the operator
makes what only it may: pods under the labels and the walls of what serves.
"""

from r1plus_contract import names
from r1plus_contract.isolation import CONTAINER_DECOY, IsolationPart, IsolationProbe
from r1plus_operator.plan.manifests.children import serving_walls, tcp
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import restricted
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.plan.tenancy.isolation_test_jobs import DECOY_PODS, WHO_ASKS, container
from r1plus_operator.plan.tenancy.isolation_test_run import PORT_LET_IN, SERVING_PORTS


def walls_of(config: OperatorConfig) -> list[Json]:
    """Its pod's walls, made as those of every serving pod are; beside them the leave of its control, and of who asks to
    come as far as one port."""
    namespace = config.isolation.decoy_namespace
    control: Json = {"matchLabels": {names.LABEL_PROBE: IsolationProbe.CONTROL.value}}
    who_asks = {"from": [{"namespaceSelector": {}, "podSelector": WHO_ASKS}], "ports": tcp(PORT_LET_IN)}
    name = f"{names.DECOY}-control"
    return [
        network_policies.policy(_meta(namespace, names.DECOY), DECOY_PODS, **serving_walls(DECOY_PODS, (), config)),
        network_policies.policy(_meta(namespace, name), DECOY_PODS, [{"from": [{"podSelector": control}]}], []),
        network_policies.policy(_meta(namespace, f"{name}-out"), control, [], [{}]),
        network_policies.policy(_meta(namespace, f"{names.DECOY}-let-in"), DECOY_PODS, [who_asks], []),
    ]


def objects(config: OperatorConfig) -> list[Json]:
    """Its pod, and the two ways to it."""
    namespace = config.isolation.decoy_namespace
    listens = ["--ports", ",".join(map(str, (*SERVING_PORTS, PORT_LET_IN)))]
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": restricted(config.pod_user),
        "containers": [container(config, CONTAINER_DECOY, "decoy", listens) | {"readinessProbe": _READY}],
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
        "metadata": _meta(namespace, names.DECOY),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "selector": DECOY_PODS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return [deployment, _service(namespace, names.DECOY), _service(namespace, f"{names.DECOY}-pods", headless=True)]


_READY: Json = {"tcpSocket": {"port": names.PORT_GRPC}, "periodSeconds": 5}


def _service(namespace: str, name: str, *, headless: bool = False) -> Json:
    ports = [{"name": f"p{port}", "port": port, "targetPort": port, "protocol": "TCP"} for port in SERVING_PORTS]
    spec: Json = {"type": "ClusterIP", "selector": DECOY_PODS["matchLabels"], "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(namespace, name),
        "spec": spec | ({"clusterIP": "None"} if headless else {}),
    }


def _meta(namespace: str, name: str) -> Json:
    return network_policies.metadata(namespace, name, IsolationPart.DECOY)
