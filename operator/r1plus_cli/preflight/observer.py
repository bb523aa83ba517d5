"""Reads of a cluster what the checks judge. It changes nothing; what the user may not read is None."""

from collections.abc import Iterator
from typing import Protocol

from r1plus_cli.errors import AccessDeniedError, NotFoundError
from r1plus_cli.preflight.checks import list_rights
from r1plus_cli.preflight.cluster_view import AccessRight, ClusterView, Items, Json, ResourceUse, sum_requests
from r1plus_cli.preflight.network_checks import OPENSHIFT_DNS

GROUPS = ("admissionregistration.k8s.io/v1", "monitoring.coreos.com/v1", "security.openshift.io/v1")
"""Groups whose kinds are looked up."""
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_OPERATORS = "app.kubernetes.io/name=r1plus-operator"
_PART_OF = "app.kubernetes.io/part-of=r1plus"
_MONITORING = "/apis/monitoring.coreos.com/v1"
_PODMONITOR_CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/podmonitors.monitoring.coreos.com"
_RUNNING = "status.phase!=Succeeded,status.phase!=Failed"


class ClusterReader(Protocol):
    """Sends requests to the API server; `cluster.raw_api.RawApi` does."""

    def request(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        """Send a request and return the response."""

    def list_items(self, path: str, **query: str) -> Iterator[Json]:
        """Yield the objects of a collection."""


def observe(api: ClusterReader, namespace: str) -> ClusterView:
    """Read the cluster. Raise UnavailableError if it does not answer."""
    version = api.request("GET", "/version")
    served = frozenset(kind for group in GROUPS for kind in _list_kinds(api, group))
    system = _list_items(api, "/api/v1/namespaces/kube-system/services")
    openshift = _list_items(api, f"/api/v1/namespaces/{OPENSHIFT_DNS}/services")
    pods = _list_pods(api)
    return ClusterView(
        namespace=namespace,
        version=version,
        served=served,
        nodes=_list_items(api, "/api/v1/nodes"),
        used=pods,
        namespaces=_list_items(api, "/api/v1/namespaces"),
        storage_classes=_list_items(api, "/apis/storage.k8s.io/v1/storageclasses"),
        dns_services=None if system is None else (*system, *(openshift or ())),
        daemon_sets=_list_items(api, "/apis/apps/v1/namespaces/kube-system/daemonsets"),
        api_service=_read(api, "/api/v1/namespaces/default/services/kubernetes"),
        api_slices=_list_items(
            api,
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            labelSelector="kubernetes.io/service-name=kubernetes",
        ),
        prometheuses=_list_items(api, f"{_MONITORING}/prometheuses"),
        prometheus_crd=_read(api, _PODMONITOR_CRD),
        operators=_list_items(api, "/apis/apps/v1/deployments", labelSelector=_OPERATORS),
        policy_bindings=_list_items(
            api, "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", labelSelector=_PART_OF
        ),
        rights={right: _review(api, right, namespace) for right in list_rights(served)},
    )


def _list_kinds(api: ClusterReader, group: str) -> Iterator[str]:
    try:
        resources = api.request("GET", f"/apis/{group}").get("resources") or ()
    except (NotFoundError, AccessDeniedError):
        return
    yield from (f"{group}/{one['name']}" for one in resources)


def _list_items(api: ClusterReader, path: str, **query: str) -> Items | None:
    try:
        return tuple(api.list_items(path, **query))
    except AccessDeniedError:
        return None


def _list_pods(api: ClusterReader) -> dict[str, ResourceUse] | None:
    try:
        return sum_requests(api.list_items("/api/v1/pods", fieldSelector=_RUNNING))
    except AccessDeniedError:
        return None


def _read(api: ClusterReader, path: str) -> Json | None:
    try:
        return api.request("GET", path)
    except (NotFoundError, AccessDeniedError):
        return None


def _review(api: ClusterReader, right: AccessRight, namespace: str) -> bool:
    """Return whether the user has the right."""
    attributes = {"group": right.group, "resource": right.plural, "verb": right.verb}
    if right.is_namespaced:
        attributes["namespace"] = namespace
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    status = api.request("POST", REVIEW, body).get("status") or {}
    return bool(status.get("allowed"))
