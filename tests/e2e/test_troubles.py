"""Ten broken deployments on a real cluster: `kubectl describe` names the cause and the remedy of each.

`make e2e STORY=troubles`. They share one tenant; their engines are catalog entries of their own, gone at the end.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from e2e import chart, objects
from e2e.kube import Json, Kube
from e2e.target import Target
from e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

TENANT, POOR_TENANT = "team-trouble", "team-poor"


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
        kube.apply(objects.namespace(name))
    kube.apply(_quota())
    for name, trouble in TROUBLES.items():
        if trouble.engine is not None:
            kube.apply(objects.engine(name, _spec_of_engine(kube, name, trouble.engine)))
        family = {"engine": {"family": name}} if trouble.engine is not None else {}
        kube.apply(objects.deployment(trouble.namespace, name, **trouble.spec, **family))
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
        lambda: troubled.kubectl("describe", "r1plusdeployment", "-n", trouble.namespace, name),
        period_s=1.0,
    )
    for word in trouble.words:
        assert word in text


def _events(description: str) -> str:
    return description.partition("\nEvents:")[2]


def _spec_of_engine(kube: Kube, name: str, otherwise: Json) -> Json:
    """Return the spec of the shipped engine, changed, under a family of its own."""
    spec = objects.spec_of_engine(kube)
    for key, change in otherwise.items():
        spec[key] = {**spec[key], **change}
    if spec["artifact"]["image"] == OPERATOR_IMAGE:
        spec["artifact"]["image"] = chart.operator_pods(kube)[0]["spec"]["containers"][0]["image"]
    return spec | {"family": name}


def _quota() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "compute", "namespace": POOR_TENANT},
        "spec": {"hard": {"requests.memory": "64Mi"}},
    }
