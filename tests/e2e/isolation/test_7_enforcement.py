"""A cluster that ignores NetworkPolicies: the prober finds out, says so everywhere, and takes it back when it is over."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from e2e import evidence
from e2e.isolation.enforcement import switched_off
from e2e.isolation.stage import OPEN, Side, World
from e2e.kube import Json
from e2e.story import condition
from e2e.waiting import wait_for
from r1plus_contract.metrics import ISOLATION_VERIFIED
from r1plus_contract.names import PORT_GRPC, TENANT
from r1plus_contract.timestamps import parse_timestamp
from r1plus_operator.plan.tenancy.isolation_test_run import IsolationTestRun, read_run
from support.dashboards.asking import Window, ask

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

VERIFIED = "IsolationVerified"
HELD, IGNORED, GAP = ("True", "IsolationEnforced"), ("False", "NetworkPolicyNotEnforced"), ("False", "IsolationBroken")
DECOY = "r1plus-decoy"


def says(found: Json) -> tuple[str, str]:
    """Status and reason of the condition on a CR."""
    told = condition(found, VERIFIED)
    return told.get("status", ""), told.get("reason", "")


def until(world: World, side: Side, wanted: tuple[str, str]) -> None:
    """The tenant and its deployment say so."""
    kube = world.kube

    def told() -> list[tuple[str, str]]:
        kinds = (("r1plustenants", TENANT), ("r1plusdeployments", side.name.name))
        return [says(kube.get(plural, side.namespace, name) or {}) for plural, name in kinds]

    def seen_instead() -> str:
        jobs = kube.kubectl("get", "jobs,pods", "-A", "-l", "r1plus.ai/walls=probe", "-o", "wide")
        return f"{told()}\n{jobs}\n{evidence.of_deployment(kube, side.namespace, side.name.name)}"

    wait_for(lambda: told() == [wanted, wanted], f"{side.namespace} says {wanted}", seen_instead)


def change_a_policy(world: World, side: Side, port: int) -> None:
    """What a platform team may do at any time: another way out for the tenant's own pods. A run follows."""
    way = {"namespace": OPEN, "ports": [port]}
    world.kube.patch("r1plustenants", side.namespace, TENANT, {"spec": {"egress": [way]}})


def run_isolation_test(world: World, side: Side, port: int) -> None:
    """Let a run begin and end now, so that nothing that was changed before makes one due for an hour."""

    def list_runs() -> list[IsolationTestRun]:
        jobs = json.loads(world.kube.kubectl("get", "jobs", "-n", side.namespace, "-o", "json"))["items"]
        return [run for job in jobs if (run := read_run(job))]

    tested_before = {run.walls[""] for run in list_runs()}
    change_a_policy(world, side, port)

    def has_ended() -> bool:
        status = (world.kube.get("r1plustenants", side.namespace, TENANT) or {})["status"]
        finished = parse_timestamp(status["isolation"]["finished"])
        return any(run.walls[""] not in tested_before and finished >= run.started for run in list_runs())

    wait_for(has_ended, f"a run that began after the change of {side.namespace} has ended", period_s=1.0)
    until(world, side, HELD)


def figure(world: World, side: Side) -> float | None:
    """What Prometheus has of it now."""
    with world.target.prometheus() as url:
        now = time.time()
        lines = ask(url, f'{ISOLATION_VERIFIED}{{namespace="{side.namespace}"}}', Window(now - 30.0, now, 15.0))
    return max((line.values[-1] for line in lines), default=None)


def until_figure(world: World, side: Side, wanted: float) -> None:
    """Prometheus has it."""
    wait_for(
        lambda: figure(world, side) == wanted,
        f"{ISOLATION_VERIFIED} of {side.namespace} is {wanted}",
        lambda: str(figure(world, side)),
    )


def reaches(world: World) -> bool:
    """Whether a pod of A's connects to B's model."""
    return world.a.ordinary().one(world.b.address, PORT_GRPC).startswith("open ")


def test_policies_that_are_not_enforced_are_told_and_told_again_when_they_are(world: World) -> None:
    for side in (world.a, world.b):
        until(world, side, HELD)
    until_figure(world, world.a, 1.0)
    run_isolation_test(world, world.b, 11)
    assert not reaches(world)

    with switched_off(world):
        assert reaches(world), "the walls are gone, by the same look that saw them"
        change_a_policy(world, world.a, 9)
        until(world, world.a, IGNORED)
        until_figure(world, world.a, 0.0)
        until(world, world.b, HELD)  # Nobody has looked since; its next run is due within the hour.

    wait_for(lambda: not reaches(world), "the walls are there again", period_s=1.0)
    change_a_policy(world, world.a, 7)
    until(world, world.a, HELD)
    until_figure(world, world.a, 1.0)


@contextmanager
def not_refused(world: World, policy: str) -> Iterator[None]:
    """Of the chart's admission policies this one is told of only."""
    bindings = world.kube.kubectl("get", "validatingadmissionpolicybindings", "-o", "name").split()
    (binding,) = (name for name in bindings if name.endswith(f"-{policy}"))

    def act(*actions: str) -> None:
        patch = json.dumps({"spec": {"validationActions": actions}})
        world.kube.kubectl("patch", binding, "--type=merge", "-p", patch)

    act("Audit")
    try:
        yield
    finally:
        act("Deny")


def test_a_policy_that_another_one_hides_is_missed(world: World) -> None:
    """Of egress and ingress only one is gone: no pod under a tenant's walls gets through, and that is not enough."""
    side = world.a
    meta = {"name": "let-everybody-in", "namespace": DECOY}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}
    gap = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    target = f"decoy-pods.{DECOY}.svc"

    def is_let_in() -> bool:
        return world.open_place().one(target, PORT_GRPC).startswith("open ")

    def is_made() -> bool:
        with suppress(RuntimeError):  # What an admission policy does not refuse any more it refuses for a moment yet.
            world.kube.kubectl("apply", "-f", "-", given=json.dumps(gap))
            return True
        return False

    until(world, side, HELD)
    assert not is_let_in()
    with not_refused(world, "walls"):
        try:
            wait_for(is_made, "the policy is made")
            wait_for(is_let_in, "whoever is let out is let in", period_s=1.0)
            change_a_policy(world, side, 9)
            until(world, side, GAP)
            told = (world.kube.get("r1plustenants", side.namespace, TENANT) or {})["status"]["isolation"]
            assert told["open"] == [f"decoy-ingress:{port}" for port in (8000, 8001, 8002, 8080)]
        finally:
            world.kube.kubectl("delete", "networkpolicy", meta["name"], "-n", DECOY, "--ignore-not-found")
    wait_for(lambda: not is_let_in(), "the decoy is walled again", period_s=1.0)
    change_a_policy(world, side, 7)
    until(world, side, HELD)
