"""values.schema.json refuses what would fail later, and says where."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"wrokers": 3}, ["'wrokers' not allowed"]),
        ({"workers": 0}, ["/workers", "got 0, want 1"]),
        ({"workers": "many"}, ["/workers", "want integer"]),
        ({"replicas": 50}, ["/replicas", "got 50, want 5"]),
        ({"leaderElection": {"fence": "yes"}}, ["/leaderElection/fence", "want boolean"]),
        ({"images": {"operator": ""}}, ["/images/operator"]),
        ({"images": {"monitor": "two words"}}, ["/images/monitor"]),
        ({"images": {"pullPolicy": "Sometimes"}}, ["/images/pullPolicy", "IfNotPresent"]),
        ({"images": {"engines": {"smollm2-full-f16": 1}}}, ["/images/engines/smollm2-full-f16", "want string"]),
        (
            {"images": {"engines": {"r1plus-full-fp16-vllm": "a:1"}}},
            ["r1plus-full-fp16-vllm is a published shape", "engineDigests.r1plus-full-fp16-vllm"],
        ),
        ({"images": {"engines": {"nothing": "a:1"}}}, ["images.engines: nothing", "smollm2-edge-q4-1,"]),
        ({"images": {"gpu": {"tensorrt": {"image": "a:1", "version": "10"}}}}, ["/images/gpu", "tensorrt"]),
        ({"images": {"gpu": {"vllm": "a:1"}}}, ["/images/gpu/vllm", "want object"]),
        ({"images": {"gpu": {"vllm": {"image": "a:1"}}}}, ["/images/gpu/vllm", "version"]),
        ({"engineDigests": {"smollm2-full-f16": "abc"}}, ["/engineDigests/smollm2-full-f16"]),
        ({"engineDigests": {"nothing": "0" * 64}}, ["engineDigests: nothing", "smollm2-edge-q4-1,"]),
        ({"imagePullSecrets": [{"name": "a"}]}, ["/imagePullSecrets/0", "want string"]),
        ({"defaultFamily": "Not A Label"}, ["/defaultFamily"]),
        ({"suites": {"requireSignature": "false"}}, ["/suites/requireSignature", "want boolean"]),
        ({"suites": {"trustedKeys": ["A" * 43]}}, ["/suites/trustedKeys/0"]),
        ({"suites": {"trustedKeys": ["A" * 42 + "B="]}}, ["/suites/trustedKeys/0"]),
        ({"delivery": {"cidrs": ["10.0.0.1"]}}, ["/delivery/cidrs/0"]),
        ({"delivery": {"trustedKeys": ["-----BEGIN PRIVATE KEY-----"]}}, ["/delivery/trustedKeys/0"]),
        ({"delivery": {"ca": "bank-ca.pem"}}, ["/delivery/ca"]),
        ({"delivery": {"volume": {"accessMode": "ReadWriteOncePod"}}}, ["/delivery/volume/accessMode"]),
        ({"verdictIntervalSeconds": 0.1}, ["/verdictIntervalSeconds", "want 1"]),
        ({"monitoring": {"interval": "15"}}, ["/monitoring/interval"]),
        ({"monitoring": {"namespace": None}}, ["/monitoring", "namespace"]),
        ({"networkPolicy": {"apiServerPorts": []}}, ["/networkPolicy/apiServerPorts"]),
        ({"networkPolicy": {"apiServerCIDRs": ["10.0.0.1"]}}, ["/networkPolicy/apiServerCIDRs/0"]),
        ({"resources": {"limits": {"memory": "lots"}}}, ["/resources/limits/memory"]),
        ({"admissionPolicy": {"enabled": "yes"}}, ["/admissionPolicy/enabled", "want boolean"]),
        ({"isolation": {"decoyNamespace": "R1plus"}}, ["/isolation/decoyNamespace"]),
        ({"isolation": {"everySeconds": 1}}, ["/isolation/everySeconds", "want 10"]),
        (
            {"isolation": {"decoyNamespace": "r1plus-system"}},
            ["isolation.decoyNamespace: r1plus-system is no tenant's"],
        ),
        ({"isolation": {"decoyNamespace": "monitoring"}}, ["isolation.decoyNamespace: monitoring is no tenant's"]),
        ({"isolation": {"decoyNamespace": "kube-system"}}, ["isolation.decoyNamespace: kube-system is no tenant's"]),
    ],
    ids=[
        "a value that is misspelt",
        "too few workers",
        "a word for a number",
        "more replicas than anyone needs",
        "a word for a fence",
        "no image",
        "a reference with a space",
        "a pull policy that is none",
        "an engine's image that is a number",
        "an image without a digest for a published shape",
        "an image for an engine that the catalog lacks",
        "an image for a backend that is not served",
        "an image for GPUs as the other images are written",
        "an image for GPUs of no version",
        "a digest that is too short",
        "a digest for an engine that the catalog lacks",
        "pull secrets as Kubernetes writes them",
        "a family that is no label",
        "a word for whether signatures are needed",
        "a key that is too short",
        "a key that is not written the one canonical way",
        "an address for a network",
        "a private key for a public one",
        "a file for a certificate",
        "a volume that no Job could fill",
        "an interval below a second",
        "an interval without a unit",
        "no namespace of Prometheus",
        "no port to the API server",
        "an address for a network",
        "a quantity that is none",
        "a word for yes or no",
        "a decoy in a namespace that is none",
        "a prober without a pause",
        "a decoy in the operator's namespace",
        "a decoy in Prometheus' namespace",
        "a decoy in Kubernetes' own namespace",
    ],
)
def test_a_wrong_value_is_refused_with_its_path(
    run_helm: Callable[..., subprocess.CompletedProcess[str]], values: dict[str, Any], said: list[str]
) -> None:
    done = run_helm("template", values)
    assert done.returncode != 0
    assert [words for words in said if words not in done.stderr] == [], done.stderr
