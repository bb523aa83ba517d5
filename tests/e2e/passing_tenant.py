"""A tenant that comes and goes: what it was given is taken back in stages, and what it had goes with it. No pod of it ever starts."""

import os
import subprocess
import sys
from pathlib import Path

from e2e import objects
from e2e.kube import Json, Kube
from e2e.waiting import wait_for
from r1plus_contract.gateway import GATEWAY, GATEWAY_SERVICE
from r1plus_contract.history import AUDIENCE
from r1plus_contract.names import REGISTRY_READER, TENANT

NAMESPACE, MODEL, READER = "team-passing", "credit", "reader"
FAMILY, FORMER = "passing", "passing-former"
KEPT_REVISIONS, CHANGES = 10, 12
GATEWAY_PARTS = (
    ("deployments", GATEWAY),
    ("services", GATEWAY_SERVICE),
    ("configmaps", GATEWAY),
    ("networkpolicies", GATEWAY),
    ("poddisruptionbudgets", GATEWAY),
    ("podmonitors", GATEWAY),
)
GIVEN = ("resourcequotas", "limitranges", "rolebindings")


def deployment(context: int, family: str = FAMILY) -> Json:
    """Of an engine that has to be fetched, from nowhere: the volume for it is made, and that is all."""
    return objects.deployment(NAMESPACE, MODEL, engine={"family": family}, context={"maxTokens": context})


def create_tenant(kube: Kube) -> None:
    """The namespace, with everything that an R1PlusTenant gives."""
    for place, family in enumerate((FAMILY, FORMER)):
        spec = objects.spec_of_engine(kube) | {"family": family}
        archive = {"url": "https://artifacts.invalid/engine.tar", "sha256": "0" * 64, "size": "64Mi"}
        spec["artifact"] = {"archive": archive, "sha256": f"{place}" * 64}
        kube.apply(objects.engine(family, spec))
    kube.apply(objects.namespace(NAMESPACE))
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": READER, "namespace": NAMESPACE}})
    people, reader = {"kind": "User", "name": "paula"}, {"kind": "ServiceAccount", "name": READER}
    kube.apply(objects.tenant(NAMESPACE, admins=[people], viewers=[reader], quota={"pods": 3, "memory": "1Gi"}))


def clear(kube: Kube) -> None:
    """Remove what is left."""
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


def replace_revisions(kube: Kube) -> None:
    """Old revisions go one by one, and a volume that none needs goes with them."""
    seen: set[str] = set()

    def another() -> set[str]:
        return set(ours(kube, "controllerrevisions")) - seen

    for number in range(CHANGES):
        kube.apply(deployment(1024 + number, FAMILY if number else FORMER))
        seen |= wait_for(another, f"revision {number + 1} is made", period_s=0.2)
    wait_for(lambda: len(ours(kube, "controllerrevisions")) <= KEPT_REVISIONS + 1, "old ones go")
    assert len(seen) == CHANGES, seen
    wait_for(lambda: len(ours(kube, "persistentvolumeclaims")) == 1, "a volume goes with them")
    pods = kube.pods_of(NAMESPACE, MODEL)
    assert pods == [], pods


def read_history(kube: Kube) -> None:
    """The tenant's own account reads its history."""
    words = ("create", "token", READER, f"--namespace={NAMESPACE}", f"--audience={AUDIENCE}")
    env = {
        **os.environ,
        "KUBECONFIG": str(kube.kubeconfig),
        "R1PLUS_REGISTRY_TOKEN": kube.kubectl(*words).strip(),
    }
    command = [str(Path(sys.executable).parent / "r1plus"), "history", MODEL, "-n", NAMESPACE, "-o", "json"]
    said = ""

    def told() -> bool:
        nonlocal said
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        said = f"exit status {done.returncode}: {done.stdout[:500]} {done.stderr[:500]}"
        return done.returncode == 0 and f"{MODEL}-" in done.stdout

    wait_for(told, f"{READER} reads the history of {NAMESPACE}/{MODEL}", lambda: said, period_s=1.0)


def take_back_grants(kube: Kube) -> None:
    """What the tenant was given is taken back when it is given less."""
    until(kube, "resourcequotas", ["r1plus-tenant"])
    until(kube, "rolebindings", [REGISTRY_READER, "r1plus-tenant-admins", "r1plus-tenant-viewers"])
    kube.apply(objects.tenant(NAMESPACE))
    # The quota stays, since ConfigMaps are always counted.
    for plural, left in zip(GIVEN, (["r1plus-tenant"], [], [REGISTRY_READER]), strict=True):
        until(kube, plural, left)


def switch_gateway(kube: Kube) -> None:
    """A gateway of two pods, which wait for Secrets that nobody makes, and then none: all that it had is deleted."""
    nowhere = {"secretName": "nobody-made-this", "egress": {"namespace": NAMESPACE, "ports": [5432]}}
    kube.apply(objects.tenant(NAMESPACE, gateway={"enabled": True, "replicas": 2, "database": nowhere}))

    def parts() -> list[tuple[str, str]]:
        return [(plural, name) for plural, name in GATEWAY_PARTS if name in ours(kube, plural)]

    wait_for(lambda: parts() == list(GATEWAY_PARTS), "the gateway is made", lambda: str(parts()))
    kube.apply(objects.tenant(NAMESPACE))
    wait_for(lambda: not parts(), "the gateway goes", lambda: str(parts()))


def delete_tenant(kube: Kube) -> None:
    """The R1PlusTenant goes after all that it gave, and the walls stay."""
    kube.apply(objects.tenant(NAMESPACE, quota={"pods": 3}))
    until(kube, "resourcequotas", ["r1plus-tenant"])
    kube.kubectl("delete", "r1plustenant", TENANT, "-n", NAMESPACE, "--wait=false")
    kube.delete("r1plusdeployments", NAMESPACE, MODEL)

    def left() -> Json | None:
        return kube.get("r1plustenants", NAMESPACE, TENANT)

    wait_for(lambda: left() is None, "the R1PlusTenant is gone", lambda: str(left()))
    still_there = {plural: ours(kube, plural) for plural in (*GIVEN, "persistentvolumeclaims")}
    assert not any(still_there.values()), still_there
    policies = ours(kube, "networkpolicies")
    assert {"r1plus-default-deny", "r1plus-callers"} <= set(policies), policies
