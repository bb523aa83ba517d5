"""What `helm test` makes: it exists during the test only, has few rights, and asks for what the values install."""

from typing import Any

import pytest

from r1plus_operator.installation import main
from support.chart import Objects, Render, one
from support.tables import for_each

NAME = "r1plus-operator-test"


def list_hooks(objects: Objects) -> Objects:
    return [o for o in objects if o["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]


def test_all_of_it_goes_after_a_success_and_its_rights_come_before_its_pod(render: Render) -> None:
    hooks = list_hooks(render())
    assert {o["metadata"]["name"] for o in hooks} == {NAME}
    kinds = ["ServiceAccount", "Role", "RoleBinding", "Role", "RoleBinding", "NetworkPolicy", "Pod"]
    assert sorted(o["kind"] for o in hooks) == sorted(kinds)
    notes = [o["metadata"]["annotations"] for o in hooks]
    assert {note["helm.sh/hook-delete-policy"] for note in notes} == {"before-hook-creation,hook-succeeded"}
    weights = {o["kind"]: int(o["metadata"]["annotations"]["helm.sh/hook-weight"]) for o in hooks}
    assert weights["Role"] < weights["RoleBinding"] < weights["Pod"] == 0


def test_it_may_read_the_lease_and_ask_in_the_decoys_namespace(render: Render) -> None:
    roles = {o["metadata"]["namespace"]: o["rules"] for o in list_hooks(render()) if o["kind"] == "Role"}
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}
    assert roles == {
        "r1plus-system": [lease | {"resourceNames": ["r1plus-operator"]}],
        "r1plus-decoy": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        ],
    }


def test_its_pod_runs_the_operators_image(render: Render) -> None:
    objects = render()
    pod, operator = one(objects, "Pod", NAME)["spec"], one(objects, "Deployment")["spec"]["template"]["spec"]
    (container,), (other,) = pod["containers"], operator["containers"]
    assert container["image"] == other["image"]
    assert container["command"] == ["python3", "-m", "r1plus_operator.installation"]
    assert (pod["restartPolicy"], pod["securityContext"]) == ("Never", operator["securityContext"])


ASKED = {
    "all of it by default": ({}, ["--namespace=r1plus-system", "--decoy=r1plus-decoy", "--policies=enforced"]),
    "no policies that are only looked at": (
        {"admissionPolicy": {"action": "Audit"}}, ["--namespace=r1plus-system", "--decoy=r1plus-decoy", "--policies=other"],
    ),
    "no policies that are not there": (
        {"admissionPolicy": {"enabled": False}}, ["--namespace=r1plus-system", "--decoy=r1plus-decoy", "--policies=other"],
    ),
    "no decoy where there is none": (
        {"isolation": {"decoyNamespace": ""}}, ["--namespace=r1plus-system", "--decoy=", "--policies=enforced"],
    ),
}  # fmt: skip


@for_each("values, words", ASKED)
def test_it_asks_for(values: dict[str, Any], words: list[str], render: Render) -> None:
    assert one(render(values), "Pod", NAME)["spec"]["containers"][0]["args"] == words


def test_words_that_it_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--namespace=r1plus-system", "--policies=maybe"])
    assert "invalid choice: 'maybe'" in capsys.readouterr().err
