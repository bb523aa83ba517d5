"""What preflight reads of a cluster, and what it makes of a user who may read little."""

from r1plus_cli.preflight.observer import observe
from support.cli.cluster_api import REVIEW, MemoryApi, node

CLUSTER = {
    "/version": {"gitVersion": "v1.34.4"},
    "/apis/monitoring.coreos.com/v1": {"resources": [{"name": "podmonitors"}, {"name": "podmonitors/status"}]},
    "/api/v1/nodes": [node("n1")],
    "/api/v1/pods": [],
}


def test_it_reads_and_asks_and_writes_nothing() -> None:
    api = MemoryApi(CLUSTER)
    view = observe(api, "r1plus-system")
    assert {(method, path) for method, path, _ in api.requests if method != "GET"} == {("POST", REVIEW)}
    assert "monitoring.coreos.com/v1/podmonitors" in view.served
    assert view.nodes == (node("n1"),)
    assert all(view.rights.values())


def test_what_is_namespaced_is_asked_for_the_namespace_of_the_release() -> None:
    api = MemoryApi(CLUSTER)
    observe(api, "ml-system")
    asked = [body["spec"]["resourceAttributes"] for _, path, body in api.requests if path == REVIEW and body]
    assert {one["resource"]: one.get("namespace") for one in asked}["secrets"] == "ml-system"
    assert {one["resource"]: one.get("namespace") for one in asked}["clusterroles"] is None
    assert {"podmonitors"} == {one["resource"] for one in asked if one["group"] == "monitoring.coreos.com"}


def test_what_the_user_may_not_list_is_none() -> None:
    denied = frozenset({"/api/v1/nodes", "/api/v1/pods", "/api/v1/namespaces/kube-system/services"})
    view = observe(MemoryApi(CLUSTER, denied, allowed=False), "r1plus-system")
    assert (view.nodes, view.used, view.dns_services) == (None, None, None)
    assert not any(view.rights.values())
