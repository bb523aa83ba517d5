"""Builders of a deployment's child objects, one pure function a kind. Each is applied whole, by its owner's name."""

import hashlib
from collections.abc import Collection

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.settings import (
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
from r1plus_operator.plan.observation import Json, SuiteSource
from r1plus_operator.plan.podspec.pod import STARTUP_SECONDS, accuracy_name
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.settings import DnsTerms, OperatorConfig

FALSE_ALARM_DAYS = 30
LEAST_PODS = 8
STEADINESS = 0.98
"""What the detectors of monitors and pool are set up with; `make bench-detector` measures what follows."""
NOTHING_PROMOTED = "nothing-promoted"
"""What a Service selects before the first promotion: no revision has this name, since each ends in ten hex digits."""
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


class Owner:
    """Who owns the children: makes their metadata."""

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

    def metadata(self, name: str, labels: dict[str, str] | None = None) -> Json:
        """Name, namespace, labels and the owner reference by which the garbage collector finds the child."""
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
    def pods(self) -> Json:
        """Selector of every pod of this deployment, whatever its revision."""
        return {"matchLabels": {names.LABEL_DEPLOYMENT: self.name}}

    @property
    def serving(self) -> Json:
        """Of them those that serve or did: the prober's pods stand behind the same walls, and a budget knows none."""
        return {**self.pods, "matchExpressions": [{"key": names.LABEL_SERVING, "operator": "Exists"}]}


def service_account(owner: Owner) -> Json:
    """An identity with no rights and no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owner.metadata(owner.name),
        "automountServiceAccountToken": False,
    }


def network_policy(owner: Owner, callers: Collection[str], config: OperatorConfig) -> Json:
    """The walls: nothing in or out but what is named here. `callers`: other namespaces that may call."""
    spec = {
        "podSelector": owner.pods,
        "policyTypes": ["Ingress", "Egress"],
        **serving_walls(owner.pods, callers, config),
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owner.metadata(owner.name),
        "spec": spec,
    }


def serving_walls(pods: Json, callers: Collection[str], config: OperatorConfig) -> dict[str, list[Json]]:
    """What is let through to the pods that serve, and from them.

    In: callers to Triton; Prometheus to both metrics ports; the operator to the monitor. Out: DNS, and the deployment's
    own pods at the port that its Service leads to, by which monitors look at the way that users take.
    """
    who = [{"podSelector": {}}, *(namespace_peer(name) for name in sorted(set(callers)))]
    prometheus = [namespace_peer(config.monitoring_namespace)]
    return {
        "ingress": [
            {"from": who, "ports": tcp(names.PORT_HTTP, names.PORT_GRPC)},
            {"from": prometheus, "ports": tcp(names.PORT_TRITON_METRICS, names.PORT_MONITOR)},
            {"from": [namespace_peer(config.operator_namespace)], "ports": tcp(names.PORT_MONITOR)},
        ],
        "egress": [to_dns(config.dns), {"to": [{"podSelector": pods}], "ports": tcp(names.PORT_GRPC)}],
    }


def namespace_peer(name: str) -> Json:
    """All pods of the namespace, as a wall names them."""
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}}


def tcp(*ports: int) -> list[Json]:
    """These ports, as a wall names them."""
    return [{"protocol": "TCP", "port": port} for port in ports]


def to_dns(dns: DnsTerms) -> Json:
    """The way to the cluster's DNS. Policies are judged after a Service's translation: CoreDNS's own port is 5353."""
    pods = [{**namespace_peer(one.namespace), "podSelector": {"matchLabels": dict(one.labels)}} for one in dns.pods]
    return {
        "to": [*pods, *({"ipBlock": {"cidr": cidr}} for cidr in dns.cidrs)],
        "ports": [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP") for port in (53, 5353)],
    }


def revision_config(owner: Owner, revision: Revision) -> Json:
    """What `verify` and the monitor read of their revision."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(revision.name, {names.LABEL_REVISION: revision.name}),
        "immutable": True,
        "data": {"config.pbtxt": revision.config_pbtxt, "identity.json": dumps(revision.data["identity"])},
    }


def accuracy_config(
    owner: Owner,
    spec: R1PlusDeploymentSpec,
    source: SuiteSource,
    verdicts: tuple[GateReport, ...],
    acknowledged: str = "",
    control: ControlOrder | None = None,
    restored: str = "",
    former: tuple[Former, SuiteSource] | None = None,
) -> Json:
    """What the monitors hold every revision to: settings, the suite itself, and the verdicts that already stand."""
    assert source.suite is not None
    settings = MonitorSettings(
        suite=source.name,
        suite_hash=source.suite.header.sha256,
        threshold=spec.accuracy.threshold,
        gate=spec.accuracy.gate,
        probes_per_minute=spec.accuracy.probes_per_minute,
        reference_hash=reference_hash(source),
        false_alarm_days=FALSE_ALARM_DAYS,
        most_pods=most_pods(spec),
        steadiness=STEADINESS,
        acknowledged=acknowledged,
        control=control,
        restored=restored,
        former=former[0] if former else None,
        service=f"{owner.name}.{owner.namespace}.svc:{names.PORT_GRPC}",
    )
    files = suite_files(source, *SUITE_FILES)
    if former:
        files |= suite_files(former[1], *FORMER_SUITE_FILES)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(accuracy_name(owner.name)),
        "data": {
            SETTINGS_FILE: dumps(settings),
            VERDICTS_FILE: dumps(KnownVerdicts(verdicts)),
            **files,
        },
    }


def reference_hash(source: SuiteSource) -> str:
    """sha256 of a suite's recorded answers; empty where it has none."""
    return hashlib.sha256(source.reference_text.encode()).hexdigest() if source.reference_text else ""


def suite_files(source: SuiteSource, header: str, items: str, reference: str) -> dict[str, str]:
    """A suite as monitors read it, under these names."""
    found = {header: source.header_text, items: source.items_text}
    return found | ({reference: source.reference_text} if source.reference_text else {})


def most_pods(spec: R1PlusDeploymentSpec) -> int:
    """Among how many pods the budget of false alarms is shared, at least: fewer replicas only make it quieter."""
    return max(LEAST_PODS, spec.replicas)


def deployment(owner: Owner, spec: R1PlusDeploymentSpec, revision: Revision, replicas: int) -> Json:
    """The Deployment of one revision; its template comes from the ControllerRevision, unchanged."""
    labels = {names.LABEL_REVISION: revision.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(revision.name, labels),
        "spec": {
            "replicas": replicas,
            # Our own deadline comes first: this one only says that a Deployment is stuck.
            "progressDeadlineSeconds": int(spec.rollout.deadline_seconds) + STARTUP_SECONDS,
            "revisionHistoryLimit": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {
                "matchLabels": {
                    names.LABEL_DEPLOYMENT: owner.name,
                    names.LABEL_REVISION: revision.name,
                    names.LABEL_SERVING: "true",
                }
            },
            "template": revision.template,
        },
    }


def service(owner: Owner, revision: str) -> Json:
    """The one address of the deployment; the switch of a rollout is this selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.name),
        "spec": {
            "type": "ClusterIP",
            "selector": {
                names.LABEL_DEPLOYMENT: owner.name,
                names.LABEL_REVISION: revision,
                names.LABEL_SERVING: "true",
            },
            "ports": [
                {"name": "grpc", "port": names.PORT_GRPC, "targetPort": "grpc", "protocol": "TCP"},
                {"name": "http", "port": names.PORT_HTTP, "targetPort": "http", "protocol": "TCP"},
            ],
        },
    }


def disruption_budget(owner: Owner) -> Json:
    """A drain takes one pod at a time, and never waits for one that is not Ready anyway."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.metadata(owner.name),
        "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": owner.serving},
    }
