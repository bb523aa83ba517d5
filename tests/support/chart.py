"""The operator's chart for tests: where it lies, values that change everything, and how to find what it renders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "r1plus-operator"
PROMETHEUS_OPERATOR = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
SIGNER = (ROOT / "tests/unit/model_repo/engine_fetch/signed/signing.pub").read_text()
BANK_CA = (ROOT / "tests/support/bank-ca.pem").read_text()

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]
Refusal = Callable[[dict[str, Any]], str]
"""Values that helm must refuse -> what it says."""

OTHER_VALUES: dict[str, Any] = {
    "images": {
        "operator": "registry.example.com/operator@sha256:1",
        "monitor": "registry.example.com/monitor:2",
        "registry": "registry.example.com/registry:4",
        "gateway": "registry.example.com/gateway:5",
        "triton": "registry.example.com/triton:3",
        "pullPolicy": "Always",
        "engines": {"smollm2-full-f16": f"registry.example.com/f16@sha256:{'4' * 64}"},
        "gpu": {"vllm": {"image": "registry.example.com/tritonserver:vllm", "version": "0.11.0"}},
        "cpu": {"vllm": {"image": "registry.example.com/triton-vllm-cpu:1", "version": "0.32.0"}},
    },
    "engineDigests": {"smollm2-full-f16": "12345678" * 8},
    "imagePullSecrets": ["pull-a", "pull-b"],
    "defaultFamily": "r1plus",
    "suites": {"requireSignature": False, "trustedKeys": ["A" * 43 + "=", "B" * 42 + "A="]},
    "delivery": {
        "cidrs": ["10.20.0.0/16", "fd00::/8"],
        "requireSignature": False,
        "trustedKeys": [SIGNER, SIGNER],
        "ca": BANK_CA,
        "proxy": {
            "url": "http://proxy.bank.example:3128",
            "cidrs": ["10.0.9.7/32", "fd00::7/128"],
            "noProxy": ["models.bank.example", "10.0.0.0/8"],
        },
        "volume": {"className": "fast", "accessMode": "ReadWriteMany"},
    },
    "verdictIntervalSeconds": 2.5,
    "replicas": 3,
    "leaderElection": {"fence": False, "leaseSeconds": 30},
    "workers": 3,
    "monitoring": {
        "namespace": "observability",
        "interval": "30s",
        "podMonitor": True,
        "alerts": {
            "runbookURL": "https://wiki.example.com/r1plus",
            "labels": {"team": "ml-serving", "service": "models"},
            "severities": {"critical": "page"},
        },
    },
    "gitops": {"argocd": True},
    "networkPolicy": {
        "enabled": True,
        "apiServerPorts": [8443],
        "apiServerCIDRs": ["10.1.0.0/16"],
        "dns": {"pods": [{"namespace": "openshift-dns", "labels": {"dns": "default"}}], "cidrs": ["169.254.20.10/32"]},
    },
    "podSecurity": {"runAsUser": 2001, "runAsGroup": 2000, "fsGroup": 3000},
    "registry": {
        "replicas": 2,
        "database": {"existingSecret": "registry-database", "key": "url", "ports": [6432], "cidrs": ["10.2.0.0/16"]},
        "clientGroups": ["credit-admins"],
    },
    "isolation": {
        "decoyNamespace": "walls",
        "everySeconds": 60,
        "reservedNamespaces": ["openshift-dns", "istio-system"],
    },
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "priorityClassName": "system-cluster-critical",
}


def one(objects: Objects, kind: str, name: str = "r1plus-operator") -> dict[str, Any]:
    """Return the only object of that kind and name."""
    (found,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Return pod specs by the kind of what makes them; `Pod`: of the one that is a pod itself."""
    templates = ("Deployment", "Job", "StatefulSet")
    return {
        o["kind"]: o["spec"] if o["kind"] == "Pod" else o["spec"]["template"]["spec"]
        for o in objects
        if o["kind"] in ("Pod", *templates)
    }


def environment(objects: Objects) -> dict[str, str]:
    """Return the operator's environment, but for what the kubelet fills in."""
    (container,) = pods(objects)["Deployment"]["containers"]
    return {entry["name"]: entry.get("value", "from the pod") for entry in container["env"]}
