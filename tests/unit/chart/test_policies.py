"""The admission policies as rendered: whom they let, what they look at, and that they are in force."""

from typing import Any

import pytest

from r1plus_cli.preflight.cluster_checks import ALWAYS_ENFORCED
from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_contract.history import AUDIENCE
from r1plus_operator.api import fence, kinds
from r1plus_operator.api.tenants import CONTROL_PLANE
from r1plus_operator.plan.engine.placement import GPU_TAINT
from r1plus_operator.plan.settings import DnsTerms, IsolationTerms, OperatorConfig
from r1plus_operator.plan.tenancy import network_policies
from support.chart import Objects, Render, environment

ACCOUNT = "system:serviceaccount:r1plus-system:r1plus-operator"
WRITES_CHILDREN = ("r1plus-operator-children", "r1plus-operator-foreign-objects")


@pytest.fixture(scope="module")
def objects(render: Render) -> Objects:
    return render()


def policies(objects: Objects) -> dict[str, dict[str, Any]]:
    """Policy specs by name."""
    return {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "ValidatingAdmissionPolicy"}


def test_every_policy_is_in_force_and_fails_closed(objects: Objects) -> None:
    bindings = [o["spec"] for o in objects if o["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {b["policyName"]: b["validationActions"] for b in bindings} == {name: ["Deny"] for name in policies(objects)}
    failing = {name: policy["failurePolicy"] for name, policy in policies(objects).items()}
    # The Lease's fence alone: a Lease that cannot be read would stop every user's writes (`api/fence.py`).
    assert failing.pop(f"r1plus-system.r1plus-operator.{fence.SUFFIX}") == "Ignore"
    assert set(failing.values()) == {"Fail"}


@pytest.mark.parametrize("name", WRITES_CHILDREN)
def test_what_protects_children_looks_at_every_kind_of_child(objects: Objects, name: str) -> None:
    rules = policies(objects)[name]["matchConstraints"]["resourceRules"]
    seen = {(group, plural) for rule in rules for group in rule["apiGroups"] for plural in rule["resources"]}
    of_children = {(resource.group, resource.plural) for resource in (*kinds.CHILDREN, kinds.TRAIN_JOB)}
    assert {one for one in seen if not one[1].endswith("/status")} == of_children
    assert {(group, plural.removesuffix("/status")) for group, plural in seen if "/" in plural} <= of_children


def test_every_policy_knows_the_operators_own_account(objects: Objects) -> None:
    found = policies(objects)
    # Who mounts an engine, relabels a tenant, enters a pod, pushes others off a node, takes over their addresses,
    # places
    # models, makes a token, leads callers elsewhere, asks for a rollback, autoscales or writes large metadata is asked of everybody: the
    # operator does none of it.
    asked_of_all = (
        "control-plane",
        "placement",
        "engine-volumes",
        "namespaces",
        "exec",
        "priority",
        "addresses",
        "autoscalers",
        "requests",
        "metadata-size",
        "endpoints",
        "users",
        "tenant-users",
        "nodes",
        "tenant-nodes",
    )
    for name in (
        *asked_of_all,
        "registry-tokens",
        "gateway-tokens",
        "gateway-key",
        "replica-sets",
        "gateway-replica-sets",
    ):
        del found[f"r1plus-operator-{name}"]
    for name, policy in found.items():
        asked = [*policy.get("matchConditions", ()), *policy["validations"]]
        assert [one for one in asked if ACCOUNT in one["expression"]], name


def test_labels_and_marks_are_the_contracts(objects: Objects) -> None:
    found = policies(objects)
    for name in ("children", "kept"):
        assert found[f"r1plus-operator-{name}"]["matchConstraints"]["objectSelector"] == {
            "matchLabels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}
        }
    marks = found["r1plus-operator-marks"]["matchConstraints"]["objectSelector"]
    assert marks == {"matchExpressions": [{"key": names.LABEL_ISOLATION, "operator": "Exists"}]}
    for name, label in (("replica-sets", names.LABEL_DEPLOYMENT), ("gateway-replica-sets", LABEL_GATEWAY)):
        selector = found[f"r1plus-operator-{name}"]["matchConstraints"]["objectSelector"]
        assert selector == {"matchExpressions": [{"key": label, "operator": "Exists"}]}
    of_pods = (names.LABEL_DEPLOYMENT, names.LABEL_REVISION, names.LABEL_SERVING, names.LABEL_VOLUME, names.LABEL_PROBE)
    for name in ("serving-pods", "serving-templates"):
        conditions = str(found[f"r1plus-operator-{name}"]["matchConditions"])
        assert [label for label in of_pods if f"'{label}'" not in conditions] == []


def test_what_a_policy_of_ones_own_must_leave_out_is_what_the_operators_policy_for_ones_own_pods_does(
    objects: Objects,
) -> None:
    left_out = network_policies.build_callers_policy("team", (), DnsTerms())["spec"]["podSelector"]["matchExpressions"]
    assert {one["operator"] for one in left_out} == {"DoesNotExist"}
    for policy in ("walls", "budgets"):
        told = policies(objects)[f"r1plus-operator-{policy}"]["validations"][0]["expression"]
        assert [one["key"] for one in left_out if f"'{one['key']}'" not in told] == []


@pytest.mark.parametrize("name", ["deployments", "operator-reach"])
def test_the_namespaces_that_are_never_tenants_are_the_operators_own_idea_of_them(objects: Objects, name: str) -> None:
    expressions = [one["expression"] for one in policies(objects)[f"r1plus-operator-{name}"]["validations"]]
    (told,) = [one for one in expressions if "startsWith('kube-')" in one]
    config = OperatorConfig("m", "t", "f", operator_namespace="r1plus-system", monitoring_namespace="monitoring")
    assert "in ['default', 'r1plus-system', 'monitoring']" in told
    those = ("default", "r1plus-system", "monitoring", "kube-system", "kube-x")
    assert [name for name in (*those, "team-a", "r1plus-decoy") if config.is_reserved(name)] == list(those)


def test_policies_on_placement_say_what_the_operator_judges_by(objects: Objects) -> None:
    found = policies(objects)
    for policy in ("control-plane", "operator-templates"):
        asked = [one["expression"] for one in found[f"r1plus-operator-{policy}"]["validations"]]
        assert str(list(CONTROL_PLANE)) in str(asked)
    placement = found["r1plus-operator-placement"]
    assert placement["paramKind"] == {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT}
    assert f"'{GPU_TAINT}'" in str([one["expression"] for one in placement["validations"]])
    bindings = [o["spec"] for o in objects if o["kind"] == "ValidatingAdmissionPolicyBinding"]
    (bound,) = [one for one in bindings if one["policyName"] == "r1plus-operator-placement"]
    assert bound["paramRef"] == {"name": names.TENANT, "parameterNotFoundAction": "Allow"}


@pytest.mark.parametrize("name", ["serving-pods", "serving-templates", "engine-volumes", "scale", "registry-tokens"])
def test_policies_on_all_pods_exempt_reserved_namespaces(render: Render, name: str) -> None:
    found = policies(render({"isolation": {"reservedNamespaces": ["openshift-dns"]}}))
    (one,) = found[f"r1plus-operator-{name}"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
    assert (one["key"], one["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
    assert {"kube-system", "openshift-dns"} <= set(one["values"])
    terms = IsolationTerms(reserved_namespaces=("openshift-dns",))
    config = OperatorConfig("m", "t", "f", "r1plus-system", "monitoring", isolation=terms)
    assert [namespace for namespace in one["values"] if not config.is_reserved(namespace)] == []


def test_the_roles_that_policies_name_are_those_that_the_operator_gives(objects: Objects) -> None:
    found = policies(objects)
    roles = [names.ROLE_TENANT_ADMIN, names.ROLE_TENANT_VIEWER, names.ROLE_REGISTRY_READER]
    given = str(roles)
    prefix = "r1plus-tenant-"
    assert all(role.startswith(prefix) for role in roles)
    asked = found["r1plus-operator-access"]["matchConditions"]
    assert [one for one in asked if f"object.roleRef.name.startsWith('{prefix}')" in one["expression"]]
    assert given in str([one["expression"] for one in found["r1plus-operator-operator-reach"]["validations"]])
    assert f"'{names.REGISTRY_READER}'" in str(found["r1plus-operator-registry-tokens"]["matchConditions"])
    assert f"['{AUDIENCE}']" in str(
        [one["expression"] for one in found["r1plus-operator-registry-tokens"]["validations"]]
    )
    assert f"'{names.PROBER}'" in str(found["r1plus-operator-operator-templates"]["variables"])


def test_for_a_review_policies_on_others_warn_and_those_on_the_operator_refuse(render: Render) -> None:
    rendered = render({"admissionPolicy": {"action": "Audit"}})
    bindings = [one for one in rendered if one["kind"] == "ValidatingAdmissionPolicyBinding"]
    actions = {one["metadata"]["name"]: one["spec"]["validationActions"] for one in bindings}
    enforced = {name for name, given in actions.items() if given == ["Deny"]}
    assert enforced == {name for name in actions if name.endswith(ALWAYS_ENFORCED)}
    assert {tuple(given) for name, given in actions.items() if name not in enforced} == {("Audit", "Warn")}
    asks_only_of_the_operator = {
        name
        for name, policy in policies(rendered).items()
        if any(
            one["expression"].replace("(", "").startswith(f"request.userInfo.username == '{ACCOUNT}'")
            for one in policy.get("matchConditions", ())
        )
    }
    assert len(asks_only_of_the_operator) > 3
    assert asks_only_of_the_operator <= enforced, "what limits the operator is never only audited"


@pytest.mark.parametrize(
    ("values", "is_enforced"),
    [
        pytest.param({}, "true", id="they refuse"),
        pytest.param({"action": "Audit"}, "false", id="they audit"),
        pytest.param({"enabled": False}, "false", id="there are none"),
    ],
)
def test_the_operator_knows_whether_policies_refuse(render: Render, values: dict[str, Any], is_enforced: str) -> None:
    assert environment(render({"admissionPolicy": values}))["R1PLUS_POLICIES_ENFORCED"] == is_enforced


def test_a_cluster_can_do_without_them(render: Render) -> None:
    rendered = {o["kind"] for o in render({"admissionPolicy": {"enabled": False}, "leaderElection": {"fence": False}})}
    assert not {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} & rendered
