"""Where kinds live in the API server's URL space."""

import pytest

from r1plus_operator.runtime.resources import Resource

PODS = Resource("", "v1", "pods", "Pod")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
NODES = Resource("", "v1", "nodes", "Node", is_namespaced=False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(PODS.path(), "/api/v1/pods", id="all of a core kind"),
        pytest.param(PODS.path("ns"), "/api/v1/namespaces/ns/pods", id="those of a namespace"),
        pytest.param(PODS.path("ns", "p"), "/api/v1/namespaces/ns/pods/p", id="one"),
        pytest.param(PODS.path("ns", "p", "eviction"), "/api/v1/namespaces/ns/pods/p/eviction", id="a subresource"),
        pytest.param(DEPLOYMENTS.path("ns", "d"), "/apis/apps/v1/namespaces/ns/deployments/d", id="a kind of a group"),
        pytest.param(NODES.path(None, "n"), "/api/v1/nodes/n", id="one of a cluster-scoped kind"),
        pytest.param(NODES.path(None, "system:a/b"), "/api/v1/nodes/system%3Aa%2Fb", id="a name that needs quoting"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def test_names_as_kubectl_writes_them() -> None:
    assert (DEPLOYMENTS.api_version, DEPLOYMENTS.name) == ("apps/v1", "deployments.apps")
    assert (PODS.api_version, PODS.name) == ("v1", "pods")
