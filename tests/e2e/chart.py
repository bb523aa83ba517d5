"""Installs the operator as a platform team would: the real `helm`, the chart of this repository, values in a file."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster.binaries import build
from devcluster.cache import binary
from devcluster.steps import Steps
from e2e.evidence import of_operator
from e2e.kube import Json, Kube
from e2e.parts import Parts
from e2e.waiting import StoryError, wait_for
from r1plus_model_repo.catalog.loader import load_all_engines

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "r1plus-operator"
RELEASE = "r1plus"
NAMESPACE = "r1plus-system"
OPERATOR = "app.kubernetes.io/name=r1plus-operator"
"""Selects the operator."""
INSTALL_SECONDS = 600


def values_of(parts: Parts) -> dict[str, Any]:
    """The chart's values for these images. The chart refuses an engine that its catalog lacks."""
    catalog = {engine.name for engine in load_all_engines(CHART / "files" / "catalog")}
    engines = {name: reference for name, reference in parts.engines.items() if name in catalog}
    return {
        "images": {
            "operator": parts.refs["operator"],
            "monitor": parts.refs["monitor"],
            "registry": parts.refs["registry"],
            "gateway": parts.refs["gateway"],
            "triton": parts.refs["triton-cpu"],
            "engines": engines,
        },
        "engineDigests": {name: digest for name, digest in parts.digests.items() if name in catalog},
    }


def install(kube: Kube, parts: Parts, extra: Mapping[str, Any] | None = None) -> None:
    """`helm upgrade --install --wait`; the same command installs, upgrades and finds nothing to do."""
    helm = _helm()
    _forget_interrupted(kube)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as values:
        json.dump(values_of(parts) | dict(extra or {}), values)
        values.flush()
        command = [
            str(helm),
            f"--kubeconfig={kube.kubeconfig}",
            "upgrade",
            "--install",
            RELEASE,
            str(CHART),
            f"--namespace={NAMESPACE}",
            "--create-namespace",
            "--wait",
            f"--timeout={INSTALL_SECONDS}s",
            f"--values={values.name}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS + 60)
    if done.returncode != 0:
        raise StoryError(f"helm exited {done.returncode}: {done.stderr.strip()[-1500:]}\n{of_operator(kube)}")


def as_leader(kube: Kube) -> dict[str, str]:
    """Headers of a request that is made as the operator's pod that holds the Lease: no other may write."""
    lease = kube.get("leases", NAMESPACE, "r1plus-operator")
    assert lease is not None
    pod, uid = lease["spec"]["holderIdentity"].split("_")
    extra = "Impersonate-Extra-authentication.kubernetes.io%2Fpod"
    account = f"system:serviceaccount:{NAMESPACE}:r1plus-operator"
    return {"Impersonate-User": account, f"{extra}-name": pod, f"{extra}-uid": uid}


def operator_pods(kube: Kube) -> list[Json]:
    """Return the operator's pods."""
    return kube.all("pods", NAMESPACE, OPERATOR)


@contextmanager
def operator_down(kube: Kube) -> Iterator[None]:
    """Let no operator run; at the end as many as before."""
    (found,) = kube.all("deployments", NAMESPACE, OPERATOR)
    name, replicas = found["metadata"]["name"], found["spec"]["replicas"]

    def scale(to: int) -> None:
        kube.patch("deployments", NAMESPACE, name, {"spec": {"replicas": to}})

    scale(0)
    try:
        wait_for(lambda: not operator_pods(kube), "no operator runs")
        yield
    finally:
        scale(replicas)


def _forget_interrupted(kube: Kube) -> None:
    """A helm that was killed half way leaves a record by which every later one refuses to work."""
    half_way = "status in (pending-install,pending-upgrade,pending-rollback)"
    selector = f"--selector=owner=helm,name={RELEASE},{half_way}"
    kube.kubectl("delete", "secrets", f"--namespace={NAMESPACE}", "--ignore-not-found", selector)


def _helm() -> Path:
    """helm from the cache; with a cluster of one's own nothing else of the cache was built."""
    found = binary("helm")
    if not found.exists():
        build(Steps(1), ("helm",))
    return found
