"""Where the operator writes and what, when its process is compromised and its account cluster-admin: tenants, by its names.

Every kind that it makes is tried. Its claims, Services, accounts and monitors lead nowhere else. Pods are in
`test_operator_pods`; requests of other kinds, and what it must be able to make, in `test_operator_reach`.
"""

import uuid
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY_SERVICE
from r1plus_operator.api import kinds
from r1plus_operator.plan.manifests.alerts import build_pod_monitor
from r1plus_operator.plan.manifests.children import ChildOwner
from support.apiserver.admission_world import CompromisedOperator
from support.apiserver.chart import PULL_SECRET
from support.apiserver.child_bodies import CHILD_BODIES, CLAIM_SPEC, ENDPOINT, LABELLED, build_child
from support.apiserver.manifests import CHILD, MARK, SERVICE_ACCOUNT, Json, manifest, tenant_namespace
from support.apiserver.people import Answer, Person
from support.apiserver.walls import CONFIGURED, assert_held
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.usefixtures("optional_kinds"), pytest.mark.first_run_counts]
REACH = "operator-reach"
NAMES = {
    "ConfigMap": "credit-accuracy",
    "ServiceAccount": "credit",
    "Service": "credit",
    "ControllerRevision": "credit-0123456789",
    "Deployment": "credit-0123456789",
    "NetworkPolicy": "credit",
    "PodDisruptionBudget": "credit",
    "PersistentVolumeClaim": "r1plus-engine-0123456789abcdef",
    "Job": "r1plus-engine-0123456789abcdef",
    "PodMonitor": "credit",
    "PrometheusRule": "credit",
    "ResourceQuota": "r1plus-tenant",
    "LimitRange": "r1plus-tenant",
    "RoleBinding": "r1plus-tenant-viewers",
}
"""Kind -> a name that the operator gives to an object of it."""


def build(kind: str, name: str = "", labels: Json = CHILD, **changed: Any) -> Json:
    """Return an object as the operator makes it, but for this."""
    return build_child(kind, name or NAMES[kind], labels, **changed)


def test_every_kind_that_the_operator_writes_is_tried() -> None:
    assert NAMES.keys() == CHILD_BODIES.keys() == {resource.kind for resource in kinds.CHILDREN}


@pytest.mark.parametrize("kind", NAMES)
def test_the_operator_makes_nothing_outside_tenants(attacker: CompromisedOperator, kind: str) -> None:
    assert_held(
        attacker.make(build(kind), attacker.plain),
        REACH,
        f"{attacker.plain} is not a tenant",
    )
    allowed = attacker.make(build(kind))
    assert allowed.status == 201, allowed


@pytest.mark.parametrize("kind", NAMES)
def test_the_operator_makes_nothing_at_a_foreign_name(attacker: CompromisedOperator, kind: str) -> None:
    for name in ("payments", "credit-database", "data-postgres-0"):
        refused = attacker.make(build(kind, name))
        assert_held(refused, REACH, f"{name} is no name that the operator gives to {kinds.BY_KIND[kind].plural}")


@pytest.mark.parametrize("kind", NAMES)
def test_what_the_operator_makes_has_its_mark(attacker: CompromisedOperator, kind: str) -> None:
    assert_held(
        attacker.make(build(kind, labels={names.LABEL_DEPLOYMENT: "credit"})),
        REACH,
        "must have the value r1plus-operator",
    )


def test_a_child_in_a_namespace_that_lost_its_label_can_be_repaired(
    attacker: CompromisedOperator, admin: Person
) -> None:
    namespace = f"f-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    network_policy = kinds.BY_KIND["NetworkPolicy"]
    wait_until(
        lambda: attacker.make(build("NetworkPolicy"), namespace).status == 201,
        "the namespace is known as a tenant",
    )
    attacker.account.do("POST", network_policy.path(namespace), build("NetworkPolicy"))
    admin.do("PATCH", kinds.NAMESPACE.path(name=namespace), {"metadata": {"labels": {names.LABEL_TENANT: None}}})
    wait_until(lambda: attacker.make(build("ConfigMap"), namespace).refused, "the namespace is known as none")
    edit = {"spec": {"podSelector": {"matchLabels": LABELLED}}}
    assert attacker.account.ask("PATCH", network_policy.path(namespace, "credit"), edit).status == 200


def event_about(kind: str, name: str, version: str = names.API_VERSION, of: str = "credit") -> Json:
    """Return an Event as the operator makes it, but for what it is about and its own name."""
    about = {"apiVersion": version, "kind": kind, "name": of}
    return manifest(kinds.EVENT, name, involvedObject=about, reason="Serving", message="m", type="Normal")


def test_the_operator_reports_events_about_its_own_objects_only(attacker: CompromisedOperator) -> None:
    def report(namespace: str, event: Json) -> Answer:
        event["involvedObject"]["namespace"] = namespace
        return attacker.account.ask("POST", kinds.EVENT.path(namespace), event)

    good = "credit.0123456789ab"
    for about in (
        event_about("Pod", good, "v1"),
        event_about(names.KIND_DEPLOYMENT, good, "apps/v1"),
        event_about(names.KIND_DEPLOYMENT, "payments.0123456789ab"),
    ):
        assert_held(report(attacker.tenant, about), REACH, "Events about R1PlusDeployments only")
    assert_held(report("kube-system", event_about(names.KIND_DEPLOYMENT, good)), REACH, "kube-system is reserved")
    newer = {"eventTime": "2026-01-01T00:00:00.000000Z", "action": "a", "reportingController": "c/d"}
    about = {"apiVersion": "v1", "kind": "Pod", "name": "credit", "namespace": attacker.tenant}
    event = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": good}, "regarding": about}
    event |= {**newer, "reportingInstance": "i", "reason": "Serving", "type": "Normal", "note": "m"}
    path = f"/apis/events.k8s.io/v1/namespaces/{attacker.tenant}/events"
    assert_held(attacker.account.ask("POST", path, event), REACH, "Events about R1PlusDeployments only")
    for namespace in (attacker.tenant, attacker.plain):
        answer = report(namespace, event_about(names.KIND_DEPLOYMENT, good))
        assert answer.status == 201, answer


CREDENTIALS: dict[str, Any] = {
    "authorization": {"credentials": {"name": "database", "key": "password"}},
    "basicAuth": {"password": {"name": "database", "key": "password"}},
    "oauth2": {"clientSecret": {"name": "database", "key": "password"}},
    "bearerTokenSecret": {"name": "database", "key": "password"},
    "bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "tlsConfig": {"keySecret": {"name": "database", "key": "password"}},
    "proxyUrl": "http://proxy.example.com",
}


@pytest.mark.parametrize("field", CREDENTIALS)
def test_no_monitor_of_the_operators_carries_credentials(attacker: CompromisedOperator, field: str) -> None:
    spec = {"selector": {}, "podMetricsEndpoints": [ENDPOINT, ENDPOINT | {field: CREDENTIALS[field]}]}
    assert_held(attacker.make(build("PodMonitor", spec=spec)), REACH, "carry no credentials")


def test_no_monitor_of_the_operators_looks_into_other_namespaces(attacker: CompromisedOperator) -> None:
    spec = {"selector": {}, "namespaceSelector": {"any": True}, "podMetricsEndpoints": [ENDPOINT]}
    assert_held(attacker.make(build("PodMonitor", spec=spec)), REACH, "namespaceSelector")


def test_no_account_of_the_operators_takes_others_pull_secrets(attacker: CompromisedOperator) -> None:
    refused = attacker.make(build("ServiceAccount", imagePullSecrets=[{"name": "registry-of-payments"}]))
    assert_held(refused, REACH, "the chart's value imagePullSecrets only")
    assert attacker.make(build("ServiceAccount", imagePullSecrets=[{"name": PULL_SECRET}])).status == 201


ROLE_ARN = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/payments"}


def annotated(**annotations: str | None) -> Json:
    return {"metadata": {"annotations": annotations}}


def test_no_account_of_the_operators_has_rights_in_a_cloud(attacker: CompromisedOperator, admin: Person) -> None:
    def account(**annotations: str) -> Json:
        made = manifest(SERVICE_ACCOUNT, "support", labels={**MARK, names.LABEL_DEPLOYMENT: "support"})
        made["metadata"]["annotations"] = annotations
        return made

    said = "only those under r1plus.ai/ on an account"
    assert_held(attacker.make(account(**ROLE_ARN)), REACH, said)
    operator, path = attacker.account, SERVICE_ACCOUNT.path(attacker.tenant)
    operator.do("POST", path, account(**{"r1plus.ai/note": "a"}))
    path = f"{path}/support"
    assert_held(operator.ask("PATCH", path, annotated(**ROLE_ARN)), REACH, said)
    admin.do("PATCH", path, annotated(**{"platform/role": "reader"}))
    for value in ("writer", None):
        assert_held(operator.ask("PATCH", path, annotated(**{"platform/role": value})), REACH, said)
    assert operator.ask("PATCH", path, annotated(**{"r1plus.ai/note": "b"})).status == 200


def monitor(**endpoint: Any) -> Json:
    """Return the PodMonitor that the operator makes, with these fields in its first endpoint."""
    owner = ChildOwner({"metadata": {"name": "credit", "namespace": "", "uid": "1"}})
    made = build_pod_monitor(owner, CONFIGURED)
    del made["metadata"]["namespace"]
    made["spec"]["podMetricsEndpoints"][0] |= endpoint
    return made


ELSEWHERE: dict[str, Json] = {
    "an address": {"targetLabel": "__address__", "replacement": "169.254.169.254:80"},
    "a path": {"targetLabel": "__metrics_path__", "replacement": "/latest/meta-data"},
    "a label that another one names": {"sourceLabels": ["a"], "targetLabel": "${1}", "replacement": "x:80"},
    "labels that others name": {"action": "labelmap", "regex": "a_(.+)", "replacement": "$1"},
    "labels that others name, in capitals": {"action": "LabelMap", "regex": "a_(.+)", "replacement": "$1"},
}


@pytest.mark.parametrize("rule", ELSEWHERE.values(), ids=ELSEWHERE)
def test_no_monitor_of_the_operators_leads_prometheus_elsewhere(attacker: CompromisedOperator, rule: Json) -> None:
    rules = [*monitor()["spec"]["podMetricsEndpoints"][0]["relabelings"], rule]
    assert_held(attacker.make(monitor(relabelings=rules)), REACH, "plain labels only")
    answer = attacker.make(monitor())
    assert answer.status == 201, answer


def test_no_monitor_of_the_operators_takes_a_scrape_class(attacker: CompromisedOperator) -> None:
    made = monitor()
    made["spec"]["scrapeClass"] = "with-a-client-certificate"
    assert_held(attacker.make(made), REACH, "no scrapeClass")
    assert_held(attacker.make(monitor(proxyFromEnvironment=True)), REACH, "no proxy")


@pytest.mark.parametrize("followed", [True, None])
def test_no_monitor_of_the_operators_follows_redirects(attacker: CompromisedOperator, followed: bool | None) -> None:
    assert_held(attacker.make(monitor(followRedirects=followed)), REACH, "followRedirects false")


SOURCES: dict[str, Json] = {
    "a copy of another claim": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "data-postgres-0"}},
    "a copy of another claim by its newer field": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "data"}},
    "a snapshot": {
        "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "of-the-database"}
    },
    "a volume of its own choice": {"volumeName": "pv-of-another-tenant"},
    "a volume by its labels": {"selector": {"matchLabels": {"app": "postgres"}}},
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_no_claim_of_the_operators_takes_its_content_from_elsewhere(
    attacker: CompromisedOperator, source: Json
) -> None:
    def make(source: Json) -> Answer:
        return attacker.make(build("PersistentVolumeClaim", "r1plus-engine-aaaaaaaaaa", MARK, spec=CLAIM_SPEC | source))

    assert_held(make(source), REACH, "no dataSource, dataSourceRef, volumeName or selector")
    assert make({}).status == 201


SERVICES: dict[str, Json] = {
    "a host outside of the cluster": {"type": "ExternalName", "externalName": "collector.example"},
    "a load balancer": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    "a port of every node": {"type": "NodePort", "ports": [{"port": 80}]},
}


@pytest.mark.parametrize("spec", SERVICES.values(), ids=SERVICES)
def test_no_service_of_the_operators_leads_out_of_the_cluster_or_into_it(
    attacker: CompromisedOperator, spec: Json
) -> None:
    def make(spec: Json) -> Answer:
        return attacker.make(build("Service", GATEWAY_SERVICE, MARK, spec=spec))

    assert_held(make(spec), REACH, "spec.type: the operator's Services")
    for control in ({"ports": [{"port": 80}]}, {"ports": [{"port": 80}], "clusterIP": "None", "type": "ClusterIP"}):
        assert make(control).status == 201
