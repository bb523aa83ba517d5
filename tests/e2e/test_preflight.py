"""`r1plus preflight` before anything of r1plus is in the cluster: its proof sees a network plugin that works, and one that doesn't.

`make e2e STORY=preflight`. It needs the embedded cluster, whose plugin it stops, and no engine.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from devcluster.__main__ import build_all as build_programs
from devcluster.cluster import Cluster
from devcluster.images import builder
from devcluster.steps import Steps
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
    monitor = builder.product_images(steps, ("monitor",))["monitor"]
    cluster = Cluster.up(steps, own)
    try:
        cluster.import_images([monitor])
        yield EmptyCluster(cluster, monitor.pinned)
    finally:
        if cluster.is_new:
            cluster.down()


@pytest.fixture
def without_plugin(empty: EmptyCluster) -> Iterator[None]:
    """Nothing that makes packet filters of network policies runs."""
    empty.set_plugin(NOWHERE, 0)
    yield
    empty.set_plugin(ANYWHERE, 1)


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
