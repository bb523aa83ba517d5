"""Ten broken deployments on a real cluster: `kubectl describe` names the cause and the remedy of each.

`make e2e-troubles`. They share one tenant; their engines are catalog entries of their own, gone at the end.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from e2e import chart
from e2e.kube import Json, Kube
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT, KIND_ENGINE

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(900)]

TENANT, POOR_TENANT = "team-trouble", "team-poor"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "r1plus.ai/tenant": "true"}
MODEL = "smollm2-edge-q4-1"
SECONDS = 600.0


@dataclass(frozen=True)
class Trouble:
    """A deployment that cannot serve: what it asks for, of which engine, and what its owner must be told."""

    reason: str
    words: tuple[str, ...]
    spec: Json = field(default_factory=dict)
    engine: Json | None = None
    """What its own engine has otherwise than the shipped one; None: the shipped one."""
    namespace: str = TENANT


SMALL = {"batching": {"maxBatchSize": 1}, "context": {"maxTokens": 512}}
OPERATOR_IMAGE = "the operator's"
"""An image that every node has and that holds no engine; its reference is the running operator's."""
TROUBLES = {
    "no-such-engine": Trouble("EngineNotFound", ("9.9.9", "the catalog has"), {"engine": {"version": "9.9.9"}}),
    "no-such-suite": Trouble("SuiteNotFound", ("no-such", "smollm2-edge-v1"), {"accuracy": {"suite": "no-such"}}),
    "context-too-long": Trouble("ContextTooLong", ("spec.context.maxTokens", "8192"), {"context": {"maxTokens": 8193}}),
    "batch-too-large": Trouble("BatchTooLarge", ("batching.maxBatchSize", "32"), {"batching": {"maxBatchSize": 33}}),
    "no-node": Trouble(
        "NoNodeFits",
        ("spec.placement.nodeSelector", "gpu=none-has-it"),
        {"placement": {"nodeSelector": {"gpu": "none-has-it"}}},
    ),
    "no-image": Trouble(
        "ImagePullFailed", ("pull secrets",), SMALL, {"artifact": {"image": "registry.invalid/engine:1"}}
    ),
    "another-digest": Trouble("EngineDigestMismatch", ("sha256",), SMALL, {"artifact": {"sha256": "0" * 64}}),
    "no-engine-inside": Trouble("CrashLooping", ("exit", "/engine"), SMALL, {"artifact": {"image": OPERATOR_IMAGE}}),
    "no-quota": Trouble("QuotaExceeded", ("exceeded quota", "ResourceQuota"), SMALL, namespace=POOR_TENANT),
    "no-cores-free": Trouble(
        "Unschedulable", ("Insufficient cpu",), SMALL, {"requirements": {"cpu": "2", "cpuRequest": "2"}}
    ),
}


@pytest.fixture(scope="module")
def troubled(target: Target) -> Iterator[Kube]:
    """All of them applied at once."""
    kube = target.kube
    for name in (TENANT, POOR_TENANT):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    kube.apply(_quota())
    shipped = kube.get("r1plusengines", None, MODEL)
    assert shipped is not None
    for name, trouble in TROUBLES.items():
        if trouble.engine is not None:
            engine = _engine(shipped, name, trouble.engine)
            if engine["spec"]["artifact"]["image"] == OPERATOR_IMAGE:
                engine["spec"]["artifact"]["image"] = _operator_image(kube)
            kube.apply(engine)
        kube.apply(_deployment(name, trouble))
    yield kube
    for name in (TENANT, POOR_TENANT):
        kube.kubectl("delete", "namespace", name, "--wait=false")
    for name, trouble in TROUBLES.items():
        if trouble.engine is not None:
            kube.delete("r1plusengines", None, name)


@pytest.mark.parametrize("name", TROUBLES)
def test_describe_names_the_cause_and_the_remedy(troubled: Kube, name: str) -> None:
    trouble = TROUBLES[name]

    def told() -> str | None:
        text = troubled.kubectl("describe", "r1plusdeployment", "-n", trouble.namespace, name)
        condition = re.search(rf"Reason:\s+{trouble.reason}\n", text)
        return text if condition and trouble.reason in _events(text) else None

    text = wait_for(
        told,
        f"{name}: condition and Event {trouble.reason}",
        SECONDS,
        lambda: troubled.kubectl("describe", "r1plusdeployment", "-n", trouble.namespace, name),
    )
    for word in trouble.words:
        assert word in text


def _operator_image(kube: Kube) -> str:
    pods = kube.all("pods", chart.NAMESPACE, "app.kubernetes.io/name=r1plus-operator")
    return str(pods[0]["spec"]["containers"][0]["image"])


def _events(description: str) -> str:
    return description.partition("\nEvents:")[2]


def _deployment(name: str, trouble: Trouble) -> Json:
    family = {"engine": {"family": name}} if trouble.engine is not None else {}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND_DEPLOYMENT,
        "metadata": {"name": name, "namespace": trouble.namespace},
        "spec": {"tier": "edge", **trouble.spec, **family},
    }


def _engine(shipped: Json, name: str, otherwise: Json) -> Json:
    spec = copy.deepcopy(shipped["spec"])
    for key, change in otherwise.items():
        spec[key] = {**spec[key], **change}
    spec["family"] = name
    return {"apiVersion": API_VERSION, "kind": KIND_ENGINE, "metadata": {"name": name}, "spec": spec}


def _quota() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "compute", "namespace": POOR_TENANT},
        "spec": {"hard": {"requests.memory": "64Mi"}},
    }
