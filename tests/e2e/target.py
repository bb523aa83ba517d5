"""Where the story plays: the embedded cluster, or the one that KUBECONFIG names. The story doesn't know which."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from devcluster.api import pod_ready
from devcluster.cache import binary
from devcluster.cluster import Cluster
from devcluster.toolchain import kubectl, put_beside_python
from e2e.kube import Kube
from e2e.waiting import StoryError
from r1plus_cli.cluster.port_forward import forward_port

ALERTMANAGER_SERVICE = "R1PLUS_ALERTMANAGER"
"""namespace/service:port of Alertmanager in a cluster of your own."""
DEFAULT_ALERTMANAGER = "monitoring/alertmanager-operated:9093"
PROMETHEUS_SERVICE = "R1PLUS_PROMETHEUS"
"""Likewise of Prometheus."""
DEFAULT_PROMETHEUS = "monitoring/prometheus-operated:9090"
BIN = ".venv/bin"
"""Where what people are told to type lies: of the PATH of whoever reads it nothing is known."""


class Target(Protocol):
    """A cluster, and the ways into it from here."""

    @property
    def kube(self) -> Kube:
        """Its API."""

    def reach(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """`host:port` that leads to the Service while the context is open."""

    def alertmanager(self) -> AbstractContextManager[str]:
        """Base URL of Alertmanager."""

    def prometheus(self) -> AbstractContextManager[str]:
        """Base URL of Prometheus."""

    def diagnostics(self) -> Path:
        """Write down all that explains a failure; returns the folder."""

    def farewell(self) -> list[str]:
        """How to look around and how to leave."""


@dataclass(frozen=True, slots=True)
class EmbeddedTarget:
    """The cluster of tests/devcluster. Its Service addresses are forwarded, so kube-proxy is on the way."""

    cluster: Cluster
    kube: Kube

    @contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """Through the Service's own address."""
        found = self.kube.get("services", namespace, service)
        if found is None:
            raise StoryError(f"There is no Service {namespace}/{service}")
        yield f"127.0.0.1:{self.cluster.forward(found['spec']['clusterIP'], port)}"

    @contextmanager
    def alertmanager(self) -> Iterator[str]:
        """The forward that the cluster keeps open."""
        yield self.cluster.alertmanager_url

    @contextmanager
    def prometheus(self) -> Iterator[str]:
        """Likewise."""
        yield self.cluster.prometheus_url

    def diagnostics(self) -> Path:
        """The cluster's own dump."""
        folder = Path(tempfile.mkdtemp(prefix="r1plus-diagnostics-"))
        self.cluster.diagnostics(folder)
        return folder

    def describe_entrance(self) -> list[str]:
        """Return how to look in while the story goes on; the program that is named is where it is said to be."""
        put_beside_python(kubectl())
        return looking_in(self.kube.kubeconfig)

    def farewell(self) -> list[str]:
        """For a person at this machine."""
        put_beside_python(kubectl(), binary("promtool"))
        return looking_around(self.kube.kubeconfig, self.cluster.prometheus_url, self.cluster.alertmanager_url)


GOING_BACK: Final = (
    "R1PlusAccuracyBelowThreshold goes on firing, on purpose: credit serves the engine that step 7 forced through.",
    "To go back to the engine that passed, which ends the alert:",
    f"  {BIN}/kubectl apply -f examples/credit-full.yaml",
)
"""What step 7 leaves behind."""


def looking_in(kubeconfig: Path) -> list[str]:
    """What to type in another shell before the operator is installed."""
    return [
        "To look in from another shell, from this folder:",
        f"  export KUBECONFIG={kubeconfig}",
        f"  {BIN}/kubectl get pods -A",
    ]


def looking_around(kubeconfig: Path, prometheus: str, alertmanager: str) -> list[str]:
    """What to type in the embedded cluster; each command, indented by two, works in a new shell in the clone's root."""
    return [
        "The cluster goes on running. To look around, in this shell or a new one, from this folder:",
        f"  export KUBECONFIG={kubeconfig}",
        f"  {BIN}/kubectl get r1plusdeployments -A",
        f"  {BIN}/r1plus status -A",
        f"  {BIN}/r1plus status credit -n team-credit",
        f"  {BIN}/r1plus history credit -n team-credit",
        f"  {BIN}/r1plus ask assistant -n team-support 'What is the capital of Sweden?'",
        f"  {BIN}/r1plus usage -n team-credit",
        "Prometheus and Alertmanager answer at their APIs only, since their web pages are not built in:",
        f"  {BIN}/promtool query instant {prometheus} r1plus_accuracy_ratio",
        f"  amtool --alertmanager.url={alertmanager} alert",
        *GOING_BACK,
        "To play it again:",
        "  make demo",
        "To leave, so that no process, mount, namespace or cgroup stays:",
        "  make down",
    ]


@dataclass(frozen=True, slots=True)
class GivenTarget:
    """A cluster of the user's own: everything goes through its API server, nothing is built or torn down."""

    kube: Kube

    @contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """A forwarded port to a pod that the Service selects."""
        found = self.kube.get("services", namespace, service)
        selector = (found or {}).get("spec", {}).get("selector") or {}
        pods = self.kube.all("pods", namespace, ",".join(f"{k}={v}" for k, v in selector.items()))
        ready = [p["metadata"]["name"] for p in pods if pod_ready(p)]
        if not found or not ready:
            raise StoryError(f"No Ready pod behind the Service {namespace}/{service}")
        target = next(p.get("targetPort", port) for p in found["spec"]["ports"] if p["port"] == port)
        number = target if isinstance(target, int) else port
        with forward_port(self.kube.core, namespace, ready[0], number) as address:
            yield address

    @contextmanager
    def alertmanager(self) -> Iterator[str]:
        """A forwarded port to the Service that the environment names."""
        with self._named(os.environ.get(ALERTMANAGER_SERVICE, DEFAULT_ALERTMANAGER)) as url:
            yield url

    @contextmanager
    def prometheus(self) -> Iterator[str]:
        """Likewise."""
        with self._named(os.environ.get(PROMETHEUS_SERVICE, DEFAULT_PROMETHEUS)) as url:
            yield url

    @contextmanager
    def _named(self, named: str) -> Iterator[str]:
        """`namespace/service:port`, forwarded."""
        namespace, rest = named.split("/", 1)
        service, port = rest.rsplit(":", 1)
        with self.reach(namespace, service, int(port)) as address:
            yield f"http://{address}"

    def diagnostics(self) -> Path:
        """What kubectl can tell."""
        folder = Path(tempfile.mkdtemp(prefix="r1plus-diagnostics-"))
        for name, words in {
            "pods.txt": ("get", "pods", "-A", "-o", "wide"),
            "events.txt": ("get", "events", "-A", "--sort-by=.lastTimestamp"),
            "r1plus.yaml": ("get", "r1plusdeployments,r1plusengines", "-A", "-o", "yaml"),
        }.items():
            try:
                text = self.kube.kubectl(*words)
            except RuntimeError as error:
                text = f"{error}\n"
            (folder / name).write_text(text)
        return folder

    def farewell(self) -> list[str]:
        """For a person with a cluster of their own."""
        put_beside_python(kubectl(), binary("helm"))
        return [
            "The deployments go on running. To look around, from this folder:",
            f"  export KUBECONFIG={self.kube.kubeconfig.resolve()}",
            f"  {BIN}/kubectl get r1plusdeployments -A",
            f"  {BIN}/r1plus status -A",
            *GOING_BACK,
            "To leave:",
            f"  {BIN}/kubectl delete -f examples/tenants.yaml && {BIN}/helm uninstall r1plus -n r1plus-system",
        ]
