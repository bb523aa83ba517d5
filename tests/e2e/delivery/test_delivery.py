"""Engines on volumes, on a real cluster: fetched, verified, served, scored; and every way in which that can go wrong.

`make e2e STORY=delivery`. The engine is the demo's smallest, its weights real; the artifact server is a pod.
"""

import re
from collections.abc import Iterator

import pytest

from e2e import objects, story
from e2e.delivery.artifacts import Artifacts
from e2e.kube import Json, Kube
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.names import ANNOTATION_DELIVERED, LABEL_VOLUME

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

TENANT = "team-volumes"
SIZE = "400Mi"


@pytest.fixture(scope="module")
def tenant(target: Target) -> Iterator[Kube]:
    """A namespace of its own, gone at the end."""
    kube = target.kube
    kube.apply(objects.namespace(TENANT))
    yield kube
    kube.kubectl("delete", "namespace", TENANT, "--wait=false")
    for engine in kube.all("r1plusengines"):
        if engine["spec"]["family"].startswith("bank-"):
            kube.delete("r1plusengines", None, engine["metadata"]["name"])


def register(kube: Kube, name: str, url: str, sha256: str, size: str = SIZE) -> Json:
    """The shipped engine under another name, as an archive."""
    spec = objects.spec_of_engine(kube) | {"family": name}
    archive = {"url": url, "sha256": sha256, "size": size}
    spec["artifact"] = {"archive": archive, "sha256": spec["artifact"]["sha256"]}
    kube.apply(objects.engine(name, spec))
    return spec


def deploy(kube: Kube, name: str, family: str, **spec: object) -> None:
    kube.apply(objects.deployment(TENANT, name, context={"maxTokens": 1024}, engine={"family": family}, **spec))


def condition(kube: Kube, name: str, kind: str) -> tuple[str, str, str]:
    cr = kube.get("r1plusdeployments", TENANT, name) or {}
    found = (c for c in cr.get("status", {}).get("conditions", ()) if c["type"] == kind)
    return next(((c["status"], c["reason"], c["message"]) for c in found), ("", "", ""))


def describe(kube: Kube, name: str) -> str:
    return kube.kubectl("describe", "r1plusdeployment", "-n", TENANT, name)


def told(kube: Kube, name: str, pattern: str) -> str:
    """Wait until EngineReady of a deployment says that."""

    def look() -> str | None:
        said = " ".join(condition(kube, name, "EngineReady"))
        return said if re.search(pattern, said) else None

    return wait_for(look, f"EngineReady of {name} says {pattern!r}", lambda: describe(kube, name))


def job_pods(kube: Kube) -> list[str]:
    """Pods that fill a volume now."""
    pods = kube.all("pods", TENANT, f"{LABEL_VOLUME},app.kubernetes.io/name=r1plus-delivery")
    return [p["metadata"]["name"] for p in pods if p.get("status", {}).get("phase") == "Running"]


REACHES = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 4)"


def reaches(kube: Kube, pod: str, host: str, port: int) -> bool:
    """Whether a connection from the Job's pod is let out."""
    try:
        kube.kubectl("exec", "-n", TENANT, pod, "-c", "fill", "--", "python3", "-c", REACHES, host, str(port))
    except RuntimeError as error:
        assert re.search("timed out|refused|unreachable", str(error)), error
        return False
    return True


def test_an_archive_is_fetched_within_policies_survives_a_kill_and_is_served_and_scored(
    tenant: Kube, server: Artifacts
) -> None:
    register(tenant, "bank-slow", server.url("slow", "bank"), server.sha256)
    deploy(tenant, "credit", "bank-slow")
    told(tenant, "credit", r"Unknown Delivering .*fetching [1-9]0 %")
    assert condition(tenant, "credit", "Ready")[:2] == ("False", "NotServing")
    (pod,) = job_pods(tenant)
    host, port = server.url("slow", "bank").split("/")[2].split(":")
    assert reaches(tenant, pod, host, int(port))
    assert not reaches(tenant, pod, "kubernetes.default.svc", 443)
    assert not reaches(tenant, pod, "prometheus-operated.monitoring.svc", 9090)

    tenant.kubectl("delete", "pod", "-n", TENANT, pod, "--grace-period=0", "--force")
    assert tenant.pods_of(TENANT, "credit") == [], "nothing half-written is loaded"

    def ready() -> bool:
        return condition(tenant, "credit", "Ready")[:2] == ("True", "Serving")

    wait_for(ready, "credit serves", lambda: describe(tenant, "credit"), seconds=story.GATE_SECONDS)
    assert condition(tenant, "credit", "QualityVerified")[:2] == ("True", "GatePassed")
    (claim,) = tenant.all("persistentvolumeclaims", TENANT)
    cr = tenant.get("r1plusengines", None, "bank-slow")
    assert cr is not None
    assert claim["metadata"]["annotations"][ANNOTATION_DELIVERED] == cr["spec"]["artifact"]["sha256"]
    assert tenant.all("jobs", TENANT, LABEL_VOLUME) == [], "the isolation test's are none of this"
    assert claim["metadata"]["name"] not in [p["metadata"]["name"] for p in tenant.all("networkpolicies", TENANT)]
    assert server.asked("/slow/bank.tar") == 2


def test_a_second_deployment_of_the_same_engine_finds_it_there(tenant: Kube, server: Artifacts) -> None:
    before = server.asked("/slow/bank.tar")
    deploy(tenant, "triage", "bank-slow")

    def runs() -> bool:
        return any(p.get("status", {}).get("phase") == "Running" for p in tenant.pods_of(TENANT, "triage"))

    wait_for(runs, "triage has a pod", lambda: describe(tenant, "triage"))
    assert server.asked("/slow/bank.tar") == before
    (claim,) = tenant.all("persistentvolumeclaims", TENANT)
    assert sorted(o["name"] for o in claim["metadata"]["ownerReferences"]) == ["credit", "triage"]
    tenant.delete("r1plusdeployments", TENANT, "triage")

    def parted() -> bool:
        (left,) = tenant.all("persistentvolumeclaims", TENANT)
        return [o["name"] for o in left["metadata"]["ownerReferences"]] == ["credit"]

    wait_for(parted, "the volume is credit's alone")


FAULTS = {
    "half": r"False DeliveryFailed .*FetchFailed: .*the connection ended after \d+ of \d+ bytes",
    "tampered": r"False EngineDigestMismatch .*sha256 is",
    "moved": r"False DeliveryFailed .*FetchRefused: https://169\.254\.169\.254/.* metadata",
    "absent": r"False DeliveryFailed .*FetchRefused: .*HTTP 404",
    "other": r"False EngineDigestMismatch .*the archive is not the one that was registered",
    "unsigned": r"False DeliveryFailed .*SignatureInvalid: model\.sig is missing",
    "huge": r"False StorageFull .*the volume is too small: needs \d+ bytes, has \d+ free",
}


def test_what_goes_wrong_is_told_and_nothing_of_it_is_loaded(tenant: Kube, server: Artifacts) -> None:
    """Each engine claims another digest, so that each has a volume of its own."""
    for place, name in enumerate(FAULTS):
        kind = "whole" if name in ("other", "huge") else name
        sha256 = {"other": "0" * 64, "unsigned": server.unsigned_sha256}.get(name, server.sha256)
        family = f"bank-{name}"
        spec = register(tenant, family, server.url(kind, name), sha256, "8Ti" if name == "huge" else SIZE)
        spec["artifact"]["sha256"] = f"{place:x}" * 16 + spec["artifact"]["sha256"][16:]
        tenant.apply(objects.engine(family, spec))
        deploy(tenant, name, family)
    for name, pattern in FAULTS.items():
        told(tenant, name, pattern)
        assert tenant.pods_of(TENANT, name) == []
        assert name in describe(tenant, name)
    assert condition(tenant, "credit", "Ready")[:2] == ("True", "Serving"), "others are not affected"
    for name in FAULTS:
        tenant.delete("r1plusdeployments", TENANT, name)
    wait_for(
        lambda: len(tenant.all("persistentvolumeclaims", TENANT)) == 1,
        "the volumes go with those who needed them",
    )
