"""A tenant that comes and goes: what it was given is taken back in stages, and what it had goes with it.

It runs between the story and the count of rights that were used (`test_story_surplus`), by its name: nothing else in the
story takes away a quota, a volume or an old revision. No pod of it ever starts.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import objects
from e2e.kube import Json, Kube
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.history import AUDIENCE
from r1plus_contract.names import TENANT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

NAMESPACE, MODEL, READER = "team-passing", "credit", "reader"
FAMILY, FORMER = "passing", "passing-former"
KEPT_REVISIONS, CHANGES = 10, 12
GIVEN = ("resourcequotas", "limitranges", "rolebindings")


def deployment(context: int, family: str = FAMILY) -> Json:
    """Of an engine that has to be fetched, from nowhere: the volume for it is made, and that is all."""
    return objects.deployment(NAMESPACE, MODEL, engine={"family": family}, context={"maxTokens": context})


@pytest.fixture(scope="module")
def passing(target: Target) -> Iterator[Kube]:
    """The namespace, with everything that an R1PlusTenant gives."""
    kube = target.kube
    for place, family in enumerate((FAMILY, FORMER)):
        spec = objects.spec_of_engine(kube) | {"family": family}
        archive = {"url": "https://artifacts.invalid/engine.tar", "sha256": "0" * 64, "size": "64Mi"}
        spec["artifact"] = {"archive": archive, "sha256": f"{place}" * 64}
        kube.apply(objects.engine(family, spec))
    kube.apply(objects.namespace(NAMESPACE))
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": READER, "namespace": NAMESPACE}})
    people, reader = {"kind": "User", "name": "paula"}, {"kind": "ServiceAccount", "name": READER}
    kube.apply(objects.tenant(NAMESPACE, admins=[people], viewers=[reader], quota={"pods": 3, "memory": "1Gi"}))
    yield kube
    kube.delete("r1plusdeployments", NAMESPACE, MODEL)
    for family in (FAMILY, FORMER):
        kube.delete("r1plusengines", None, family)
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def ours(kube: Kube, plural: str) -> list[str]:
    """Names of what the operator has made there."""
    found = kube.all(plural, NAMESPACE, "app.kubernetes.io/managed-by=r1plus-operator")
    return sorted(one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"])


def until(kube: Kube, plural: str, wanted: list[str]) -> None:
    """Exactly these are there."""
    what = f"{plural} {wanted or 'gone'} in {NAMESPACE}"
    wait_for(lambda: ours(kube, plural) == wanted, what, lambda: str(ours(kube, plural)))


def test_old_revisions_go_one_by_one_and_a_volume_that_none_needs_goes_with_them(passing: Kube) -> None:
    seen: set[str] = set()

    def another() -> set[str]:
        return set(ours(passing, "controllerrevisions")) - seen

    for number in range(CHANGES):
        passing.apply(deployment(1024 + number, FAMILY if number else FORMER))
        seen |= wait_for(another, f"revision {number + 1} is made", period_s=0.2)
    wait_for(lambda: len(ours(passing, "controllerrevisions")) <= KEPT_REVISIONS + 1, "old ones go")
    assert len(seen) == CHANGES
    wait_for(lambda: len(ours(passing, "persistentvolumeclaims")) == 1, "a volume goes with them")
    assert passing.pods_of(NAMESPACE, MODEL) == []


def test_a_tenants_own_account_reads_its_history(passing: Kube) -> None:
    words = ("create", "token", READER, f"--namespace={NAMESPACE}", f"--audience={AUDIENCE}")
    env = {
        **os.environ,
        "KUBECONFIG": str(passing.kubeconfig),
        "R1PLUS_REGISTRY_TOKEN": passing.kubectl(*words).strip(),
    }
    command = [str(Path(sys.executable).parent / "r1plus"), "history", MODEL, "-n", NAMESPACE, "-o", "json"]
    said = ""

    def told() -> bool:
        nonlocal said
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        said = f"exit status {done.returncode}: {done.stdout[:500]} {done.stderr[:500]}"
        return done.returncode == 0 and f"{MODEL}-" in done.stdout

    wait_for(told, f"{READER} reads the history of {NAMESPACE}/{MODEL}", lambda: said, period_s=1.0)


def test_what_a_tenant_was_given_is_taken_back_when_it_is_given_less(passing: Kube) -> None:
    until(passing, "resourcequotas", ["r1plus-tenant"])
    until(passing, "rolebindings", ["r1plus-tenant-admins", "r1plus-tenant-viewers"])
    passing.apply(objects.tenant(NAMESPACE))
    for plural in GIVEN:
        until(passing, plural, [])


def test_an_r1plustenant_goes_after_all_that_it_gave_and_the_walls_stay(passing: Kube) -> None:
    passing.apply(objects.tenant(NAMESPACE, quota={"pods": 3}))
    until(passing, "resourcequotas", ["r1plus-tenant"])
    passing.kubectl("delete", "r1plustenant", TENANT, "-n", NAMESPACE, "--wait=false")
    passing.delete("r1plusdeployments", NAMESPACE, MODEL)

    def left() -> Json | None:
        return passing.get("r1plustenants", NAMESPACE, TENANT)

    wait_for(lambda: left() is None, "the R1PlusTenant is gone", lambda: str(left()))
    for plural in (*GIVEN, "persistentvolumeclaims"):
        assert ours(passing, plural) == []
    assert {"r1plus-default-deny", "r1plus-callers"} <= set(ours(passing, "networkpolicies"))
