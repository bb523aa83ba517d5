"""`r1plus preflight` before anything of r1plus is in the cluster, and `helm test` after the operator is: both prove isolation.

`make e2e STORY=preflight`. It needs the embedded cluster, whose plugin it stops, and no engine.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from devcluster.__main__ import build_all as build_programs
from devcluster.cache import binary
from devcluster.cluster import Cluster
from devcluster.images import builder
from devcluster.steps import Steps
from e2e.chart import CHART
from e2e.chart import NAMESPACE as OPERATOR_NAMESPACE
from e2e.waiting import wait_for
from r1plus_cli.preflight.network_probe import NAMESPACE
from support.cli.command import run

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(1800)]
PLUGIN = ("daemonset", "kube-router", "--namespace=kube-system")
NOWHERE = {"spec": {"template": {"spec": {"nodeSelector": {"r1plus.ai/nowhere": "true"}}}}}
ANYWHERE = {"spec": {"template": {"spec": {"nodeSelector": None}}}}


@dataclass(frozen=True, slots=True)
class EmptyCluster:
    """The embedded cluster with the monitor's image, and nothing of r1plus."""

    cluster: Cluster
    image: str
    operator_image: str

    def helm(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run helm on the release."""
        command = [binary("helm"), *words, f"--namespace={OPERATOR_NAMESPACE}", "--timeout=300s"]
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)

    def check(self) -> tuple[int, dict[str, dict[str, str]]]:
        """Run preflight; returns exit status, and check -> what it says."""
        words = ("preflight", "-o", "json", "--no-values", "--image", self.image)
        done = run(*words, "--kubeconfig", self.cluster.kubeconfig)
        return done.exit_code, {one["name"]: one for one in json.loads(done.stdout)["checks"]}

    def set_plugin(self, patch: object, count: int) -> None:
        """Patch the network plugin's DaemonSet, and wait until so many of its pods run."""
        self.cluster.kubectl("patch", *PLUGIN, "--patch", json.dumps(patch))
        pods = ("get", "pods", "--namespace=kube-system", "--selector=k8s-app=kube-router", "--output=name")
        wait_for(lambda: len(self.cluster.kubectl(*pods).split()) == count, f"{count} pods of the network plugin")
        if count:
            self.cluster.kubectl("rollout", "status", *PLUGIN)


@pytest.fixture(scope="module")
def empty() -> Iterator[EmptyCluster]:
    steps = Steps(1 + builder.COMPONENT_STEPS)
    build_programs(steps)
    own = builder.component_images(steps)
    images = builder.product_images(steps, ("monitor", "operator"))
    cluster = Cluster.up(steps, own)
    try:
        cluster.import_images(list(images.values()))
        yield EmptyCluster(cluster, images["monitor"].pinned, images["operator"].pinned)
    finally:
        if cluster.is_new:
            cluster.down()


@pytest.fixture
def without_plugin(empty: EmptyCluster) -> Iterator[None]:
    """Nothing that makes packet filters of network policies runs."""
    empty.set_plugin(NOWHERE, 0)
    yield
    empty.set_plugin(ANYWHERE, 1)


@pytest.fixture(scope="module")
def installed(empty: EmptyCluster) -> EmptyCluster:
    """The operator runs; nothing is served, and nothing needs to be."""
    images = {"operator": empty.operator_image, "monitor": empty.image, "requireDigests": False}
    values = {f"images.{name}={value}" for name, value in images.items()} | {"registry.enabled=false"}
    chosen = [f"--set={value}" for value in sorted(values)]
    done = empty.helm("upgrade", "--install", "r1plus", str(CHART), "--create-namespace", "--wait", *chosen)
    assert done.returncode == 0, done.stderr
    return empty


def is_clean(empty: EmptyCluster) -> bool:
    """Whether nothing of the proof is left."""
    return NAMESPACE not in empty.cluster.kubectl("get", "namespaces", "--output=name")


def test_a_network_plugin_that_enforces_policies_is_proven(empty: EmptyCluster) -> None:
    status, checks = empty.check()
    assert checks["NetworkPolicy"]["result"] == "OK", checks["NetworkPolicy"]
    assert {name for name, one in checks.items() if one["result"] != "OK"} <= {"AVX2"}
    assert (status, is_clean(empty)) == (0, True)


def test_a_cluster_that_ignores_policies_is_not_ready(empty: EmptyCluster, without_plugin: None) -> None:
    status, checks = empty.check()
    assert checks["NetworkPolicy"]["seen"].startswith("NetworkPolicies have no effect"), checks["NetworkPolicy"]
    assert (status, is_clean(empty)) == (1, True)


def test_helm_finds_that_an_installation_works(installed: EmptyCluster) -> None:
    done = installed.helm("test", "r1plus")
    assert done.returncode == 0, done.stdout + done.stderr
    left = installed.cluster.kubectl("get", "pods,roles", "--all-namespaces", "--output=name")
    assert "r1plus-operator-test" not in left


def test_helm_finds_that_no_network_policy_has_an_effect(installed: EmptyCluster, without_plugin: None) -> None:
    kubectl = installed.cluster.kubectl
    # Filters of pods from before stay; a new one has none.
    kubectl("delete", "pods", "--namespace=r1plus-decoy", "--selector=r1plus.ai/deployment=decoy")
    assert installed.helm("test", "r1plus").returncode != 0
    lines = kubectl("logs", f"--namespace={OPERATOR_NAMESPACE}", "r1plus-operator-test").splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "FAILED"]
    assert "The decoy does not hold: port 8000, 8001" in lines[2]
