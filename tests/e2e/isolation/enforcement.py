"""The embedded cluster's enforcement of NetworkPolicies, switched off and on again: what a platform has that lacks a plugin."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from devcluster.api import pod_ready
from e2e.isolation.stage import World
from e2e.kube import Json
from e2e.waiting import wait_for

NAME, NAMESPACE = "kube-router", "kube-system"
CHAINS = ("KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT")
"""From which every rule of kube-router's is reached. (Its own --cleanup-config, 2.1.0, dies of a nil pointer.)"""


@contextmanager
def switched_off(world: World) -> Iterator[None]:
    """No pod of kube-router runs, and no rule of its own is reached. However the block ends, both are there again."""
    try:
        _select({"none": "has-it"}, world)
        wait_for(lambda: not _pods(world), f"{NAME} is gone")
        for chain in CHAINS:
            subprocess.run(world.target.cluster.inside("iptables", "-w", "-F", chain), check=True)
        yield
    finally:
        _select({"none": None}, world)
        wait_for(lambda: any(pod_ready(pod) for pod in _pods(world)), f"{NAME} is back")


def _select(labels: Json, world: World) -> None:
    patch = {"spec": {"template": {"spec": {"nodeSelector": labels}}}}
    words = ("patch", "daemonset", NAME, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(patch))
    world.kube.kubectl(*words)


def _pods(world: World) -> list[Json]:
    return world.kube.all("pods", NAMESPACE, f"k8s-app={NAME}")
