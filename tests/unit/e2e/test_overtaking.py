"""Writes of a noisy tenant that come before another one's wall."""

from bench.reconcile.audit import Request
from e2e.isolation.overtaking import OPERATOR, count_overtaking
from e2e.story import Name

WALL = Name("wall-b", "triage")


def ask(verb: str, began: float, *, namespace: str = "wall-b", name: str = "triage", user: str = OPERATOR) -> Request:
    """Return a request about a NetworkPolicy that took half a second."""
    group = "networking.k8s.io"
    return Request(user, verb, group, "networkpolicies", namespace, name, 200, "", began, began + 0.5)


def noise(began: float, verb: str = "patch", user: str = OPERATOR) -> Request:
    return ask(verb, began, namespace="wall-a", name="noisy-001", user=user)


def test_the_operators_writes_between_a_deletion_and_its_repair_are_counted() -> None:
    requests = [
        noise(0.9),
        ask("delete", 1.0, user="admin"),
        noise(1.2),  # Before the deletion has ended.
        noise(2.0),
        noise(2.1, user="alice"),
        noise(2.2, verb="get"),
        noise(2.3),
        ask("patch", 3.0),
        noise(3.5),
        ask("delete", 4.0, user="admin"),
        ask("patch", 5.0),
    ]
    assert count_overtaking(reversed(requests), WALL, "wall-a") == [2, 0]


def test_a_wall_that_is_not_back_yet_is_not_counted() -> None:
    assert count_overtaking([ask("delete", 1.0), noise(2.0)], WALL, "wall-a") == []
