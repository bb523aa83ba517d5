"""A tenant that comes and goes: what it was given is taken back in stages, and what it had goes with it.

It runs between the story and the count of rights that were used (`test_story_surplus`), by its name: nothing else in the
story takes away a quota, a volume or an old revision. No pod of it ever starts.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.kube import Json, Kube
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.history import AUDIENCE
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT, LABEL_TENANT, TENANT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NAMESPACE, MODEL, READER = "team-passing", "credit", "reader"
FAMILY, FORMER = "passing", "passing-former"
SHIPPED = "smollm2-edge-q4-1"
SECONDS = 120.0
KEPT_REVISIONS, CHANGES = 10, 12
LABELS = {LABEL_TENANT: "true", "pod-security.kubernetes.io/enforce": "restricted"}
GIVEN = ("resourcequotas", "limitranges", "rolebindings")


def tenant(**spec: object) -> Json:
    """Its R1PlusTenant."""
    head = {"apiVersion": API_VERSION, "kind": KIND_TENANT}
    return {**head, "metadata": {"name": TENANT, "namespace": NAMESPACE}, "spec": spec}


def deployment(context: int, family: str = FAMILY) -> Json:
    """Of an engine that has to be fetched, from nowhere: the volume for it is made, and that is all."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND_DEPLOYMENT,
        "metadata": {"name": MODEL, "namespace": NAMESPACE},
        "spec": {"tier": "edge", "engine": {"family": family}, "context": {"maxTokens": context}},
    }


@pytest.fixture(scope="module")
def passing(target: Target) -> Iterator[Kube]:
    """The namespace, with everything that an R1PlusTenant gives."""
    kube = target.kube
    shipped = kube.get("r1plusengines", None, SHIPPED)
    assert shipped is not None
    for place, family in enumerate((FAMILY, FORMER)):
        spec = copy.deepcopy(shipped["spec"]) | {"family": family}
        archive = {"url": "https://artifacts.invalid/engine.tar", "sha256": "0" * 64, "size": "64Mi"}
        spec["artifact"] = {"archive": archive, "sha256": f"{place}" * 64}
        kube.apply({"apiVersion": API_VERSION, "kind": KIND_ENGINE, "metadata": {"name": family}, "spec": spec})
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": LABELS}})
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": READER, "namespace": NAMESPACE}})
    people, reader = {"kind": "User", "name": "paula"}, {"kind": "ServiceAccount", "name": READER}
    kube.apply(tenant(admins=[people], viewers=[reader], quota={"pods": 3, "memory": "1Gi"}))
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
    wait_for(lambda: ours(kube, plural) == wanted or None, what, SECONDS, lambda: str(ours(kube, plural)))


def test_old_revisions_go_one_by_one_and_a_volume_that_none_needs_goes_with_them(passing: Kube) -> None:
    seen: set[str] = set()

    def another() -> set[str] | None:
        return set(ours(passing, "controllerrevisions")) - seen or None

    for number in range(CHANGES):
        passing.apply(deployment(1024 + number, FAMILY if number else FORMER))
        seen |= wait_for(another, f"revision {number + 1} is made", SECONDS, period_s=0.2)
    wait_for(lambda: len(ours(passing, "controllerrevisions")) <= KEPT_REVISIONS + 1 or None, "old ones go", SECONDS)
    assert len(seen) == CHANGES
    wait_for(lambda: len(ours(passing, "persistentvolumeclaims")) == 1 or None, "a volume goes with them", SECONDS)
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

    def told() -> bool | None:
        nonlocal said
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        said = f"exit status {done.returncode}: {done.stdout[:500]} {done.stderr[:500]}"
        return (done.returncode == 0 and f"{MODEL}-" in done.stdout) or None

    wait_for(told, f"{READER} reads the history of {NAMESPACE}/{MODEL}", SECONDS, lambda: said)


def test_what_a_tenant_was_given_is_taken_back_when_it_is_given_less(passing: Kube) -> None:
    until(passing, "resourcequotas", ["r1plus-tenant"])
    until(passing, "rolebindings", ["r1plus-tenant-admins", "r1plus-tenant-viewers"])
    passing.apply(tenant())
    for plural in GIVEN:
        until(passing, plural, [])


def test_an_r1plustenant_goes_after_all_that_it_gave_and_the_walls_stay(passing: Kube) -> None:
    passing.apply(tenant(quota={"pods": 3}))
    until(passing, "resourcequotas", ["r1plus-tenant"])
    passing.kubectl("delete", "r1plustenant", TENANT, "-n", NAMESPACE, "--wait=false")
    passing.delete("r1plusdeployments", NAMESPACE, MODEL)

    def left() -> Json | None:
        return passing.get("r1plustenants", NAMESPACE, TENANT)

    wait_for(lambda: left() is None or None, "the R1PlusTenant is gone", SECONDS, lambda: str(left()))
    for plural in (*GIVEN, "persistentvolumeclaims"):
        assert ours(passing, plural) == []
    assert {"r1plus-default-deny", "r1plus-callers"} <= set(ours(passing, "networkpolicies"))
