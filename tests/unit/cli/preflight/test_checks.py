"""What each check says of clusters that have, lack or hide what r1plus needs."""

from typing import Any

import pytest

from r1plus_cli.preflight.checks import CHECKS, find_worst, list_rights, run_checks
from r1plus_cli.preflight.cluster_view import ClusterView, ResourceUse, sum_requests
from r1plus_cli.preflight.outcome import CheckLevel, CheckOutcome
from support.cli.cluster_api import (
    GOOD,
    MONITORING,
    POLICIES,
    dns_service,
    named,
    node,
    prometheus,
    storage_class,
    with_,
)
from support.tables import for_each

OK, WARN, FAIL = CheckLevel
AVX2, EXAMINED = "feature.node.kubernetes.io/cpu-cpuid.AVX2", "feature.node.kubernetes.io/cpu-model.vendor_id"
RIGHTS = list_rights(())
CACHE_ARGS = ["-localip", "169.254.20.10,10.96.0.10", "-conf", "/etc/Corefile"]


def judge(name: str, view: ClusterView) -> CheckOutcome:
    (check,) = [one for one in CHECKS if one.name == name]
    return check.judge(view)


def binding(name: str, *actions: str) -> dict[str, Any]:
    return named(name, spec={"policyName": name, "validationActions": list(actions)})


def api_at(*ports: int) -> dict[str, Any]:
    return {
        "api_slices": (
            named(
                "kubernetes", "default", ports=[{"port": one} for one in ports], endpoints=[{"addresses": ["10.0.0.1"]}]
            ),
        )
    }


ROWS: dict[str, tuple[str, ClusterView, CheckLevel, str, dict[str, Any]]] = {
    "the tested version is fine": ("Kubernetes", GOOD, OK, "v1.34.4", {}),
    "a newer version was not tested": ("Kubernetes", with_(version={"gitVersion": "v1.36.0+k3s1"}), OK, "tested on 1.34", {}),
    "an older version is refused by the chart": ("Kubernetes", with_(version={"gitVersion": "v1.30.9"}), FAIL, "v1.30.9", {}),
    "a version that says nothing is not known": ("Kubernetes", with_(version={}), WARN, "not known", {}),
    "admission policies that are not served keep nobody out": ("admission", with_(served=frozenset()), FAIL, "not served", {}),
    "bindings that audit for a review are told": (
        "admission", with_(policy_bindings=(binding("r1plus-operator-children", "Audit", "Warn"), binding("r1plus-operator-operator-reach", "Deny"))),
        WARN, "1 of 2 bindings of r1plus refuse nothing: admissionPolicy.action is Audit", {},
    ),
    "a binding on the operator that audits was edited": (
        "admission", with_(policy_bindings=(binding("r1plus-operator-operator-reach", "Audit"),)), FAIL, "refuse nothing: r1plus-operator-operator-reach", {},
    ),
    "a binding that does nothing was edited": ("admission", with_(policy_bindings=(binding("r1plus-operator-children", "Warn"),)), FAIL, "refuse nothing", {}),
    "bindings that deny are counted": ("admission", with_(policy_bindings=(binding("r1plus-operator-children", "Deny"),)), OK, "all Deny", {}),
    "all rights are there": ("rights", with_(rights=dict.fromkeys(RIGHTS, True)), OK, f"all {len(RIGHTS)}", {}),
    "rights that lack are named": (
        "rights", with_(rights={one: one.verb != "escalate" for one in RIGHTS}), FAIL, "escalate clusterroles.rbac", {},
    ),
    "of many rights that lack the first five are named": ("rights", with_(rights=dict.fromkeys(RIGHTS, False)), FAIL, "more", {}),
    "no other release is there": ("releases", GOOD, OK, "no other release", {}),
    "a release in the same namespace is upgraded": ("releases", with_(operators=(named("o", "r1plus-system"),)), OK, "helm upgrade", {}),
    "a release in another namespace would refuse this one's writes": ("releases", with_(operators=(named("o", "ml"),)), FAIL, "ml", {}),
    "nodes of the images' platform need no value": ("nodes", GOOD, OK, "1 of linux/amd64", {}),
    "among nodes of two platforms the operator needs a selector": (
        "nodes", with_(nodes=(node("a"), node("b", arch="arm64"))), OK, "1 of linux/amd64, 1 of linux/arm64",
        {"nodeSelector": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}},
    ),
    "nodes of another platform alone run nothing": ("nodes", with_(nodes=(node("b", arch="arm64"),)), FAIL, "1 of linux/arm64", {}),
    "a virtual node runs no engine": ("nodes", with_(nodes=(node("v", type="virtual-kubelet"),)), FAIL, "no node", {}),
    "nodes with AVX2 are fine": ("AVX2", GOOD, OK, "1 nodes have it", {}),
    "nodes that nobody examined are not known": ("AVX2", with_(nodes=(node("a"),)), WARN, "1 not known", {}),
    "nodes that all lack AVX2 serve no engine on CPU": ("AVX2", with_(nodes=(node("a", **{EXAMINED: "AMD"}),)), FAIL, "1 lack it", {}),
    "nodes of which some lack AVX2 are to be labelled": (
        "AVX2", with_(nodes=(node("a", **{EXAMINED: "AMD"}), node("b", **{EXAMINED: "AMD", AVX2: "true"}))), WARN, "1 lack it", {},
    ),
    "a node has room for the smallest engine": ("capacity", GOOD, OK, "smollm2-edge", {}),
    "memory that pods request is taken": ("capacity", with_(used={"n1": ResourceUse(15 * 2**30, 0)}), FAIL, "1.0 GiB on a node", {}),
    "processors that pods request are taken": ("capacity", with_(used={"n1": ResourceUse(0, 3.99)}), FAIL, "16.0 GiB on a node", {}),
    "requests that nobody may read are said to be not known": ("capacity", with_(used=None), OK, "requests are not known", {}),
    "a default StorageClass is fine": ("storage", GOOD, OK, "with a default", {}),
    "without a StorageClass the registry is switched off": ("storage", with_(storage_classes=()), WARN, "no StorageClass", {"registry.enabled": False}),
    "the only StorageClass is named": (
        "storage", with_(storage_classes=(storage_class("slow", is_default=False),)), WARN, "slow is not the default",
        {"registry.storage.className": "slow", "delivery.volume.className": "slow"},
    ),
    "among several StorageClasses a person chooses": (
        "storage", with_(storage_classes=(storage_class("a", is_default=False), storage_class("b", is_default=False))), FAIL, "none of a, b", {},
    ),
    "the usual DNS is the chart's default": ("DNS", GOOD, OK, "kube-system: k8s-app=kube-dns", {}),
    "a DNS with more labels is the chart's default as well": (
        "DNS", with_(dns_services=(dns_service(**{"k8s-app": "kube-dns", "app": "rke2"}),)), OK, "rke2", {},
    ),
    "a DNS with other labels is named": (
        "DNS", with_(dns_services=(dns_service(name="coredns", app="coredns"),)), OK, "app=coredns",
        {"networkPolicy.dns.pods": [{"namespace": "kube-system", "labels": {"app": "coredns"}}]},
    ),
    "on OpenShift its own DNS is named and no other": (
        "DNS", with_(dns_services=(dns_service(), dns_service("openshift-dns", "dns-default", **{"dns.operator.openshift.io/daemonset-dns": "default"}))),
        OK, "openshift-dns",
        {"networkPolicy.dns.pods": [{"namespace": "openshift-dns", "labels": {"dns.operator.openshift.io/daemonset-dns": "default"}}]},
    ),
    "a cache on each node is named by its address": (
        "DNS", with_(daemon_sets=(named("node-local-dns", "kube-system", spec={"template": {"spec": {"containers": [{"args": CACHE_ARGS}]}}}),)),
        OK, "169.254.20.10", {"networkPolicy.dns.cidrs": ["169.254.20.10/32"]},
    ),
    "a DNS that is not found is for a person to name": ("DNS", with_(dns_services=(named("metrics", "kube-system", spec={}),)), WARN, "no Service with port 53", {}),
    "the usual ports of the API server are the chart's": ("API server", GOOD, OK, "ports 443, 6443 at 10.0.0.1", {}),
    "other ports of the API server are named": ("API server", with_(**api_at(16443)), OK, "443, 16443", {"networkPolicy.apiServerPorts": [443, 16443]}),
    "an API server without endpoints has ports that nobody knows": ("API server", with_(api_slices=()), WARN, "no address", {}),
    "prometheus-operator is there": ("alerts", GOOD, OK, "CRDs of 0.88.0", {}),
    "without prometheus-operator no alert fires": ("alerts", with_(served=frozenset({POLICIES})), WARN, "podmonitors, prometheusrules", {}),
    "an old prometheus-operator lacks fields": (
        "alerts", with_(prometheus_crd=named("p", annotations={"operator.prometheus.io/version": "0.60.1"})), WARN, "0.60.1", {},
    ),
    "CRDs that nobody may read have no version": ("alerts", with_(prometheus_crd=None), OK, "version not known", {}),
    "a Prometheus that selects everything is fine": ("Prometheus", GOOD, OK, "monitoring/main selects everything", {}),
    "a Prometheus elsewhere is named": ("Prometheus", with_(prometheuses=(prometheus("obs"),)), OK, "obs/main", {"monitoring.namespace": "obs"}),
    "a Prometheus that selects its own labels misses tenants": (
        "Prometheus", with_(prometheuses=(prometheus(podMonitorSelector={"matchLabels": {"release": "x"}}),)), WARN, "podMonitorSelector may leave", {},
    ),
    "of two Prometheuses that of the chart's namespace counts": ("Prometheus", with_(prometheuses=(prometheus("a"), prometheus())), OK, "monitoring/main, and 1 more", {}),
    "no Prometheus scrapes nothing": ("Prometheus", with_(prometheuses=()), WARN, "no Prometheus", {}),
    "a cluster that assigns no users needs no value": ("users", GOOD, OK, "may name their user", {}),
    "a cluster that assigns users is left to do so": (
        "users", with_(namespaces=(named("a", annotations={"openshift.io/sa.scc.uid-range": "1000660000/10000"}),)), OK, "1 namespaces",
        {"podSecurity.runAsUser": None, "podSecurity.runAsGroup": None, "podSecurity.fsGroup": None},
    ),
    "the cluster's own namespaces are reserved": (
        "namespaces", with_(namespaces=(named("istio-system"), named("team-a"))), OK, "1 of 2", {"isolation.reservedNamespaces": ["istio-system"]},
    ),
}  # fmt: skip


@for_each("name, view, level, seen, values", ROWS)
def test_a_check_says_what_it_saw_and_what_the_chart_needs(
    name: str, view: ClusterView, level: CheckLevel, seen: str, values: dict[str, Any]
) -> None:
    outcome = judge(name, view)
    assert outcome.level is level, outcome
    assert seen in outcome.seen
    assert {value.path: value.value for value in outcome.values} == values
    assert bool(outcome.remedy) == (level is not OK), "what is not OK says what to do"


HIDDEN = {
    "nodes": "nodes", "AVX2": "nodes", "capacity": "nodes", "storage": "storage_classes", "DNS": "dns_services",
    "API server": "api_slices", "Prometheus": "prometheuses", "users": "namespaces", "namespaces": "namespaces",
    "releases": "operators",
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_what_the_user_may_not_read_is_not_known_and_no_failure(name: str) -> None:
    outcome = judge(name, with_(**{HIDDEN[name]: None}))
    assert outcome.level is WARN
    assert outcome.seen.startswith("not known: you may not list")


def test_a_good_cluster_passes_every_check() -> None:
    results = run_checks(with_(rights=dict.fromkeys(list_rights(MONITORING), True)))
    assert [(check.name, outcome) for check, outcome in results if outcome.level is not OK] == []
    assert [value for _, outcome in results for value in outcome.values] == []


@for_each("levels, worst", {
    "a warning is worse than none": ((OK, WARN), WARN),
    "a failure is worse than a warning": ((FAIL, WARN, OK), FAIL),
    "nothing at all is fine": ((), OK),
})  # fmt: skip
def test_the_worst_outcome_decides(levels: tuple[CheckLevel, ...], worst: CheckLevel) -> None:
    assert find_worst(CheckOutcome(level, "") for level in levels) is worst


def container(memory: str, cpu: str = "0") -> dict[str, Any]:
    return {"resources": {"requests": {"memory": memory, "cpu": cpu}}}


def test_pods_take_what_their_containers_request_and_ended_ones_nothing() -> None:
    spec = {"nodeName": "n1", "containers": [container("1Gi", "500m"), {}], "initContainers": [container("3Gi")]}
    pods = [
        {"spec": spec, "status": {"phase": "Running"}},
        {"spec": spec, "status": {"phase": "Succeeded"}},
        {"spec": {"containers": [container("9Gi")]}},
        {"spec": {"nodeName": "n1", "containers": [container("9Ei")]}},
    ]
    assert sum_requests(pods) == {"n1": ResourceUse(3 * 2**30, 0.5)}
