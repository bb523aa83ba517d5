"""The admission policies as rendered: whom they let, what they look at, and that they are in force."""

from typing import Any

import pytest

from r1plus_contract import names
from r1plus_operator.api import fence, kinds
from unit.chart.conftest import Objects, Render

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
    assert seen == {(resource.group, resource.plural) for resource in kinds.CHILDREN}


def test_every_policy_knows_the_operators_own_account(objects: Objects) -> None:
    found = policies(objects)
    # Who mounts an engine is asked of everybody: the operator itself makes no pod.
    del found["r1plus-operator-engine-volumes"]
    for name, policy in found.items():
        assert [c["name"] for c in policy["matchConditions"] if ACCOUNT in c["expression"]], name


def test_labels_and_marks_are_the_contracts(objects: Objects) -> None:
    found = policies(objects)
    assert found["r1plus-operator-children"]["matchConstraints"]["objectSelector"] == {
        "matchLabels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}
    }
    for name in ("r1plus-operator-serving-pods", "r1plus-operator-serving-templates"):
        for label in (names.LABEL_DEPLOYMENT, names.LABEL_REVISION, names.LABEL_SERVING, names.LABEL_VOLUME):
            assert f"'{label}'" in str(found[name]["matchConditions"])


def test_a_cluster_can_do_without_them(render: Render) -> None:
    rendered = {o["kind"] for o in render({"admissionPolicy": {"enabled": False}, "leaderElection": {"fence": False}})}
    assert not {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} & rendered
