"""TrainJobs in the chart: no right, and no exemption of other controllers, unless the platform team asks for it."""

from typing import Any

from r1plus_operator.api import rbac
from support.chart import Objects, Refusal, Render

ENABLED: dict[str, Any] = {"trainJobs": {"enabled": True, "controllers": ["system:serviceaccount:kubeflow:jobset"]}}
EXEMPTION = "not-of-a-train-job"


def exemptions(objects: Objects) -> dict[str, str]:
    """Return policy -> the users that it leaves alone."""
    return {
        policy["metadata"]["name"]: condition["expression"]
        for policy in objects
        if policy["kind"] == "ValidatingAdmissionPolicy"
        for condition in policy["spec"].get("matchConditions", ())
        if condition["name"] == EXEMPTION
    }


def find_train_job_objects(objects: Objects, kind: str) -> Objects:
    return [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == "r1plus-operator-train-jobs"]


def setting_of(objects: Objects) -> str:
    (pod,) = [
        one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "r1plus-operator"
    ]
    return next(one["value"] for one in pod["containers"][0]["env"] if one["name"] == "R1PLUS_TRAIN_JOBS")


def test_by_default_the_operator_has_no_right_to_train_jobs(render: Render) -> None:
    objects = render()
    assert find_train_job_objects(objects, "ClusterRole") == find_train_job_objects(objects, "ClusterRoleBinding") == []
    assert exemptions(objects) == {}
    assert setting_of(objects) == "false"


def test_with_train_jobs_it_has_the_tables_rights_and_their_controllers_may_make_what_they_need(render: Render) -> None:
    objects = render(ENABLED)
    (role,), (binding,) = (
        find_train_job_objects(objects, "ClusterRole"),
        find_train_job_objects(objects, "ClusterRoleBinding"),
    )
    assert role["rules"] == [grant.build_rule() for grant in rbac.list_train_job_grants()]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [one["name"] for one in binding["subjects"]] == ["r1plus-operator"]
    assert set(exemptions(objects)) == {"r1plus-operator-names", "r1plus-operator-serving-templates"}
    assert all("['system:serviceaccount:kubeflow:jobset']" in text for text in exemptions(objects).values())
    assert setting_of(objects) == "true"


def test_a_controller_that_is_no_account_is_refused(refusal: Refusal) -> None:
    said = refusal({"trainJobs": {"enabled": True, "controllers": ["jobset"]}})
    assert "/trainJobs/controllers/0" in said
