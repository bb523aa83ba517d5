"""The decoy: a tenant's namespace of the chart's own, in which the prober's control may do what it tries, and no more."""

from typing import Any

import pytest

from r1plus_contract import names
from support.chart import Objects, Render, environment, one

LABELS = {
    names.LABEL_TENANT: "true",
    names.LABEL_POD_SECURITY: "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
    "pod-security.kubernetes.io/audit": "restricted",
}
CONTROL = {
    ("", "secrets"): {"get", "list"},
    ("", "configmaps"): {"list"},
    ("", "pods"): {"list", "create"},
    ("", "pods/log"): {"get"},
    ("", "pods/exec"): {"create"},
    ("", "serviceaccounts/token"): {"create"},
    ("networking.k8s.io", "networkpolicies"): {"delete"},
    ("apps", "controllerrevisions"): {"list"},
    ("r1plus.ai", "r1plusdeployments"): {"list"},
    ("r1plus.ai", "r1plustenants"): {"patch"},
}


def inside(objects: Objects, namespace: str) -> set[tuple[str, str]]:
    """Kind and name of what the chart puts there."""
    return {(o["kind"], o["metadata"]["name"]) for o in objects if o["metadata"].get("namespace") == namespace}


@pytest.mark.parametrize(
    ("values", "namespace"),
    [({}, "r1plus-decoy"), ({"isolation": {"decoyNamespace": "walls"}}, "walls")],
    ids=["by default", "where the values say"],
)
def test_it_is_a_tenant_under_pod_security_with_a_control_and_a_secret(
    render: Render, values: dict[str, Any], namespace: str
) -> None:
    objects = render(values)
    assert one(objects, "Namespace", namespace)["metadata"]["labels"].items() >= LABELS.items()
    expected = {("Secret", names.DECOY), *((kind, "control") for kind in ("ServiceAccount", "Role", "RoleBinding"))}
    expected |= {(kind, "r1plus-operator-test") for kind in ("Role", "RoleBinding")}
    assert inside(objects, namespace) == expected
    assert one(objects, "ServiceAccount", "control")["automountServiceAccountToken"] is False


def test_its_control_may_do_what_the_prober_tries_there_and_nothing_else(render: Render) -> None:
    objects = render()
    rules = one(objects, "Role", "control")["rules"]
    granted = {(rule["apiGroups"][0], name): set(rule["verbs"]) for rule in rules for name in rule["resources"]}
    assert granted == CONTROL
    (token,) = [rule for rule in rules if rule["resources"] == ["serviceaccounts/token"]]
    assert token["resourceNames"] == ["control"]
    bound = [
        o for o in objects if o["kind"] in ("RoleBinding", "ClusterRoleBinding") and "control" in str(o["subjects"])
    ]
    assert [(o["kind"], o["metadata"]["namespace"]) for o in bound] == [("RoleBinding", "r1plus-decoy")]


def test_its_secret_says_that_it_is_none(render: Render) -> None:
    secret = one(render(), "Secret", names.DECOY)
    assert secret["type"] == "Opaque"
    assert secret["stringData"] == {"value": "this-is-a-decoy-and-opens-nothing"}
    assert "data" not in secret


def test_who_wants_no_prober_gets_no_namespace(render: Render) -> None:
    objects = render({"isolation": {"decoyNamespace": ""}})
    assert not [o for o in objects if o["kind"] in ("Namespace", "Secret")]
    assert environment(objects)["R1PLUS_DECOY_NAMESPACE"] == ""
