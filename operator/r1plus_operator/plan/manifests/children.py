"""Builders of a deployment's child objects, one pure function per kind. Each object is applied as a whole."""

import hashlib
from collections.abc import Collection

from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY, name_pods_service
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.settings import (
    FORMER_SUITE_FILES,
    SETTINGS_FILE,
    SUITE_FILES,
    VERDICTS_FILE,
    ControlOrder,
    Former,
    KnownVerdicts,
    MonitorSettings,
)
from r1plus_contract.verdict import GateReport
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import GatewayView, Json, SuiteSource
from r1plus_operator.plan.podspec.pod import STARTUP_SECONDS, name_accuracy_config
from r1plus_operator.plan.revision.record import CONFIG_FILE, IDENTITY_FILE, REVISION_PARTS, Revision
from r1plus_operator.plan.settings import DnsTerms, OperatorConfig

FALSE_ALARM_DAYS = 30
LEAST_PODS = 8
STEADINESS = 0.98
"""Settings of the monitors' and the pooled detectors; docs/reference/accuracy.md has the resulting figures."""
GATEWAY_PODS: Json = {"matchLabels": {LABEL_GATEWAY: "true"}}
"""Selector of the pods of the tenant's gateway."""
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


class ChildOwner:
    """The CR that owns the children. It builds their metadata."""

    def __init__(self, cr: Json) -> None:
        self.name: str = cr["metadata"]["name"]
        self.namespace: str = cr["metadata"]["namespace"]
        self._reference = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND_DEPLOYMENT,
            "name": self.name,
            "uid": cr["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def build_metadata(self, name: str, labels: dict[str, str] | None = None) -> Json:
        """Return name, namespace, labels and the owner reference of a child."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": {
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_DEPLOYMENT: self.name,
                **(labels or {}),
            },
            "ownerReferences": [self._reference],
        }

    @property
    def pod_selector(self) -> Json:
        """Selector of every pod of this deployment, whatever its revision."""
        return {"matchLabels": {names.LABEL_DEPLOYMENT: self.name}}

    def select_pods_in_traffic(self, revision: str) -> dict[str, str]:
        """Return the labels of a revision's pods that may take traffic: no quarantined ones, none of a test."""
        return {names.LABEL_DEPLOYMENT: self.name, names.LABEL_REVISION: revision, names.LABEL_SERVING: "true"}


def build_service_account(owner: ChildOwner) -> Json:
    """Return the pods' service account, which has no rights and no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owner.build_metadata(owner.name),
        "automountServiceAccountToken": False,
    }


def build_network_policy(
    owner: ChildOwner, callers: Collection[str], config: OperatorConfig, gateway: GatewayView | None = None
) -> Json:
    """Return the deployment's NetworkPolicy. `callers` are other namespaces that may call it."""
    spec = {
        "podSelector": owner.pod_selector,
        "policyTypes": ["Ingress", "Egress"],
        **build_serving_rules(owner.pod_selector, callers, config, gateway),
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owner.build_metadata(owner.name),
        "spec": spec,
    }


def build_serving_rules(
    pods: Json, callers: Collection[str], config: OperatorConfig, gateway: GatewayView | None = None
) -> dict[str, list[Json]]:
    """Return the ingress and egress rules of serving pods.

    In: callers to Triton, Prometheus to both metrics ports, the operator to the monitor. Out: DNS, and the deployment's
    own pods at the Service's port, through which monitors test the users' path.
    """
    prometheus = [build_namespace_peer(config.monitoring_namespace)]
    return {
        "ingress": [
            *_build_caller_rules(pods, callers, gateway),
            {"from": prometheus, "ports": build_tcp_ports(names.PORT_TRITON_METRICS, names.PORT_MONITOR)},
            {"from": [build_namespace_peer(config.operator_namespace)], "ports": build_tcp_ports(names.PORT_MONITOR)},
        ],
        "egress": [
            build_dns_rule(config.dns),
            {"to": [{"podSelector": pods}], "ports": build_tcp_ports(names.PORT_GRPC)},
        ],
    }


def _build_caller_rules(pods: Json, callers: Collection[str], gateway: GatewayView | None) -> list[Json]:
    """Return who may call a model: this namespace and `callers`, or the gateway and the model's own pods alone."""
    who = [{"podSelector": {}}, *(build_namespace_peer(name) for name in sorted(set(callers)))]
    direct = {"from": who, "ports": build_tcp_ports(names.PORT_HTTP, names.PORT_GRPC)}
    if gateway is None:
        return [direct]
    own = {"from": [{"podSelector": pods}], "ports": build_tcp_ports(names.PORT_GRPC)}
    ports = build_tcp_ports(names.PORT_GRPC, names.PORT_MONITOR)
    return [own if gateway.is_exclusive else direct, {"from": [{"podSelector": GATEWAY_PODS}], "ports": ports}]


def build_namespace_peer(name: str) -> Json:
    """Return the peer of a NetworkPolicy rule for all pods of a namespace."""
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}}


def build_tcp_ports(*ports: int) -> list[Json]:
    """Return the ports of a NetworkPolicy rule."""
    return [{"protocol": "TCP", "port": port} for port in ports]


def build_dns_rule(dns: DnsTerms) -> Json:
    """Return the egress rule to the cluster's DNS. Policies apply to pod ports, and CoreDNS listens on 5353 as well."""
    pods = [
        {**build_namespace_peer(one.namespace), "podSelector": {"matchLabels": dict(one.labels)}} for one in dns.pods
    ]
    return {
        "to": [*pods, *({"ipBlock": {"cidr": cidr}} for cidr in dns.cidrs)],
        "ports": [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP") for port in (53, 5353)],
    }


def build_revision_config(owner: ChildOwner, revision: Revision) -> Json:
    """Return the ConfigMap of a revision, which `verify` and the monitor read.

    With the Deployment it has all that the ControllerRevision is made again from, should that be lost.
    """
    metadata = owner.build_metadata(revision.name, {names.LABEL_REVISION: revision.name})
    rest = {key: value for key, value in revision.data.items() if key not in REVISION_PARTS}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**metadata, "annotations": {names.ANNOTATION_REVISION_DATA: dumps(rest)}},
        "immutable": True,
        "data": {CONFIG_FILE: revision.config_pbtxt, IDENTITY_FILE: dumps(revision.data["identity"])},
    }


def build_accuracy_config(
    owner: ChildOwner,
    spec: R1PlusDeploymentSpec,
    source: SuiteSource,
    verdicts: tuple[GateReport, ...],
    ack_token: str = "",
    control: ControlOrder | None = None,
    readmitted_identity: str = "",
    former: tuple[Former, SuiteSource] | None = None,
) -> Json:
    """Return the monitors' ConfigMap: settings, the suite, and the known verdicts."""
    assert source.suite is not None
    settings = MonitorSettings(
        suite=source.name,
        suite_hash=source.suite.header.sha256,
        threshold=spec.accuracy.threshold,
        gate=spec.accuracy.gate,
        probes_per_minute=spec.accuracy.probes_per_minute,
        reference_hash=hash_reference(source),
        false_alarm_days=FALSE_ALARM_DAYS,
        most_pods=compute_max_pods(spec),
        steadiness=STEADINESS,
        acknowledged=ack_token,
        control=control,
        restored=readmitted_identity,
        former=former[0] if former else None,
        service=f"{owner.name}.{owner.namespace}.svc:{names.PORT_GRPC}",
    )
    files = build_suite_files(source, *SUITE_FILES)
    if former:
        files |= build_suite_files(former[1], *FORMER_SUITE_FILES)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.build_metadata(name_accuracy_config(owner.name)),
        "data": {
            SETTINGS_FILE: dumps(settings),
            VERDICTS_FILE: dumps(KnownVerdicts(verdicts)),
            **files,
        },
    }


def hash_reference(source: SuiteSource) -> str:
    """Return the sha256 of a suite's recorded answers; empty: it has none."""
    return hashlib.sha256(source.reference_text.encode()).hexdigest() if source.reference_text else ""


def build_suite_files(source: SuiteSource, header: str, items: str, reference: str) -> dict[str, str]:
    """Return the files of a suite under these names, as monitors read them."""
    files = {header: source.header_text, items: source.items_text}
    return files | ({reference: source.reference_text} if source.reference_text else {})


def compute_max_pods(spec: R1PlusDeploymentSpec) -> int:
    """Return the number of pods that share the budget of false alarms. With fewer pods there are fewer alarms."""
    return max(LEAST_PODS, spec.replicas)


def build_deployment(owner: ChildOwner, spec: R1PlusDeploymentSpec, revision: Revision, replicas: int) -> Json:
    """Return the Deployment of a revision. Its template is that of the ControllerRevision, unchanged."""
    labels = {names.LABEL_REVISION: revision.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.build_metadata(revision.name, labels),
        "spec": {
            "replicas": replicas,
            # Longer than our own deadline, so that it only reports a stuck Deployment.
            "progressDeadlineSeconds": int(spec.rollout.deadline_seconds) + STARTUP_SECONDS,
            "revisionHistoryLimit": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": owner.select_pods_in_traffic(revision.name)},
            "template": revision.template,
        },
    }


def build_service(owner: ChildOwner, revision: str) -> Json:
    """Return the deployment's Service. A rollout switches traffic by its selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.build_metadata(owner.name),
        "spec": {
            "type": "ClusterIP",
            # The default, but explicit: one that is taken over might have true, and lead to pods that have not passed.
            "publishNotReadyAddresses": False,
            "selector": owner.select_pods_in_traffic(revision),
            "ports": [
                {"name": "grpc", "port": names.PORT_GRPC, "targetPort": "grpc", "protocol": "TCP"},
                {"name": "http", "port": names.PORT_HTTP, "targetPort": "http", "protocol": "TCP"},
            ],
        },
    }


def build_pods_service(owner: ChildOwner, revision: str) -> Json:
    """Return the headless Service by which the tenant's gateway finds each pod of the revision that takes traffic."""
    service = build_service(owner, revision)
    ports = [
        {"name": "grpc", "port": names.PORT_GRPC, "targetPort": "grpc", "protocol": "TCP"},
        {"name": "monitor", "port": names.PORT_MONITOR, "targetPort": "monitor", "protocol": "TCP"},
    ]
    return service | {
        "metadata": owner.build_metadata(name_pods_service(owner.name)),
        "spec": service["spec"] | {"clusterIP": "None", "ports": ports},
    }


def build_disruption_budget(owner: ChildOwner, revision: str) -> Json:
    """Return the PodDisruptionBudget: a drain evicts one pod at a time, and unhealthy pods at once.

    It selects the revision that takes traffic. Pods that outlive their Deployment, as draining or quarantined ones do,
    have no controller; while a budget selects one, Kubernetes cannot count and evicts nothing.
    """
    selector = {"matchLabels": owner.select_pods_in_traffic(revision)}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.build_metadata(owner.name),
        "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": selector},
    }
