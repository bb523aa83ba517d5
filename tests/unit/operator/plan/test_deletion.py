"""The end of an R1PlusDeployment that is deleted while a finalizer keeps it."""

from r1plus_operator.plan.deletion import Deletion, plan_deletion

CHILDREN = (("Service", "credit", "s"), ("Deployment", "credit-0123456789", "d"))
PODS = (("credit-0123456789-q", "q"),)
CR = {
    "metadata": {"name": "credit", "namespace": "t", "uid": "u", "generation": 3, "finalizers": ["example.com/a"]},
    "status": {"requests": 4, "lastRequest": "at pin by alice: x", "verdict": "Pass", "accuracy": "210/210"},
}


def test_a_deleted_deployment_loses_its_children_and_its_status_claims_nothing_more() -> None:
    plan = plan_deletion(Deletion(CR, CHILDREN, PODS), 1000.0)
    assert (plan.delete, plan.cut) == (CHILDREN, PODS)
    assert not plan.creates
    (ready,) = plan.status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "Deleting")
    assert "example.com/a" in ready["message"]
    assert {"verdict", "accuracy"}.isdisjoint(plan.status)
    assert plan.status["requests"] == 4, "the next request goes on counting there"


def test_a_second_pass_writes_nothing() -> None:
    status = plan_deletion(Deletion(CR, CHILDREN, PODS), 1000.0).status
    again = plan_deletion(Deletion({**CR, "status": status}, ()), 2000.0)
    assert (again.writes, again.status) == (0, status)
