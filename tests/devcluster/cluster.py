"""The embedded cluster as the demo and the end-to-end tests use it.

cluster = Cluster.up(Steps())
subprocess.run(["kubectl", f"--kubeconfig={cluster.kubeconfig}", "get", "nodes"])
port = cluster.forward("10.96.1.7", 8001)       # ask a Service from the host
cluster.down()
"""

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from devcluster import addons, bringup, daemons, forwarder
from devcluster import down as teardown
from devcluster.cache import locked
from devcluster.components import containerd
from devcluster.images.recipe import Image
from devcluster.layout import Layout, cluster_layout
from devcluster.steps import Steps
from devcluster.toolchain import kubectl

LOCK = "cluster"
_FORWARDING = threading.Lock()
"""Threads of one process forward; all write one record."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: where it lies, and the host's ports that lead into it."""

    layout: Layout
    ports: Mapping[str, int]
    is_new: bool = False
    """Whether `up` started it, rather than find it running."""

    @classmethod
    def up(cls, steps: Steps, wanted: list[Image] | None = None, *, wait: bool = True) -> Self:
        """Start the cluster, or find it running and healthy, which takes a moment.

        `wanted` are the images of the cluster's own parts, if the caller has built them already. With `wait` unset the
        caller waits for the system's pods, by `wait_for_system_pods`.
        A half-dead cluster, or one that another version of this tool started, is cleared first.
        """
        layout = cluster_layout()
        steps.expect(bringup.STEP_COUNT + (0 if wanted is not None else len(addons.IMAGES) + 1))
        own = wanted if wanted is not None else _own_images(steps)
        with locked(LOCK):
            running = cls._healthy(layout, own)
            if running is not None:
                steps.expect(1 - bringup.STEP_COUNT)
                with steps.step("cluster: already running") as step:
                    step.cached()
                return running
            started = cls._start(layout, own, steps)
            if wait:
                started.wait_for_system_pods(steps)
            return started

    def wait_for_system_pods(self, steps: Steps) -> None:
        """Wait until DNS, policies, volumes and monitoring work."""
        bringup.wait_for_addons(self.layout, self.ports, steps)

    @classmethod
    def attach(cls) -> Self:
        """The running cluster, for the verbs that only use it; an error that says how to start one."""
        layout = cluster_layout()
        record = _read_record(layout)
        if record is None:
            raise SystemExit(
                "No embedded cluster runs; start one with: make demo, or PYTHONPATH=tests python -m devcluster up"
            )
        return cls(layout, record["ports"])

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works from the host."""
        return self.layout.kubeconfig("admin")

    @property
    def prometheus_url(self) -> str:
        """Prometheus, from the host."""
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    @property
    def alertmanager_url(self) -> str:
        """Alertmanager, from the host."""
        return f"http://127.0.0.1:{self.ports['alertmanager']}"

    @property
    def audit_log(self) -> Path:
        """One JSON line for each request to the API server."""
        return self.layout.logs / "audit.log"

    def kubectl(self, *words: str) -> str:
        """Run kubectl as the administrator and return what it prints; its standard error goes into the exception."""
        command = [str(kubectl()), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(words)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def import_image(self, image: Image) -> None:
        """Make an image available to pods, unless it is already."""
        self.import_images([image])

    def import_images(self, wanted: Sequence[Image]) -> None:
        """Make images available to pods; those that containerd has cost nothing."""
        have = containerd.image_refs(self.layout)
        for image in wanted:
            if not {image.ref, image.pinned} <= have:
                bringup.import_image(self.layout, image)

    def forward(self, address: str, port: int) -> int:
        """A loopback port of the host that leads to `address`:`port` inside, for as long as the cluster runs."""
        name = f"forward-{address}-{port}"
        with _FORWARDING:
            known = dict(self._forwards())
            if name in known and daemons.alive(name, self.layout):
                return known[name]
            made = forwarder.start(name, [(0, f"{address}:{port}")], self.layout)[0].port
            bringup.write_record(self.layout.run / "forwards.json", known | {name: made})
            return made

    def inside(self, *words: str) -> list[str]:
        """The command that runs `words` in the cluster's network namespace."""
        return [*daemons.in_namespace(self.layout), *words]

    def down(self) -> None:
        """Stop the cluster and remove everything of it but imported images and logs."""
        with locked(LOCK):
            teardown.down(self.layout)

    def diagnostics(self, folder: Path) -> None:
        """Write all that explains a failure into `folder`: daemons' logs, pods, events, pods' logs."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.layout.logs.is_dir():
            shutil.copytree(self.layout.logs, folder / "daemons", dirs_exist_ok=True)
        if (self.layout.state / "pod-logs").is_dir():
            shutil.copytree(self.layout.state / "pod-logs", folder / "pods", dirs_exist_ok=True, symlinks=True)
        questions = {
            "pods.txt": ("get", "pods", "-A", "-o", "wide"),
            "pods.yaml": ("get", "pods", "-A", "-o", "yaml"),
            "events.txt": ("get", "events", "-A", "--sort-by=.lastTimestamp"),
            "workloads.yaml": ("get", "deployments,statefulsets,services,networkpolicies", "-A", "-o", "yaml"),
            "r1plus.yaml": ("get", "r1plusdeployments,r1plusengines", "-A", "-o", "yaml"),
        }
        for name, words in questions.items():
            (folder / name).write_text(self._answer(*words))

    def _answer(self, *words: str) -> str:
        try:
            return self.kubectl("--request-timeout=10s", *words)
        except RuntimeError as error:
            return f"{error}\n"

    def _forwards(self) -> Mapping[str, int]:
        path = self.layout.run / "forwards.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    @classmethod
    def _healthy(cls, layout: Layout, own: list[Image]) -> Self | None:
        """The running cluster, if each daemon lives, the API and the node are ready and it is of this version."""
        record = _read_record(layout)
        if record is None or record["fingerprint"] != fingerprint(own):
            return None
        if not all(daemons.alive(name, layout) for name in bringup.DAEMONS):
            return None
        api = bringup.api_of(layout, record["ports"]["api"])
        if not (api.ready() and bringup.node_ready(api) and containerd.answers(layout)):
            return None
        return cls(layout, record["ports"])

    @classmethod
    def _start(cls, layout: Layout, own: list[Image], steps: Steps) -> Self:
        teardown.down(layout)
        shutil.rmtree(layout.logs, ignore_errors=True)
        ports = bringup.start_control_plane(layout, own, steps)
        bringup.start_node(layout)
        bringup.apply_addons(layout, own, ports, steps)
        bringup.wait_for_node(layout, ports, steps)
        bringup.write_record(_record_path(layout), {"fingerprint": fingerprint(own), "ports": ports})
        return cls(layout, ports, is_new=True)


def fingerprint(own: list[Image], source: Path = Path(__file__).parent) -> str:
    """Names what the cluster is made of: this tool's sources and its parts' images. Another one means start anew."""
    files = sorted([*source.glob("*.py"), *source.glob("components/*.py"), *source.glob("manifests/*.yaml")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    for image in sorted(own, key=lambda image: image.ref):
        digest.update(image.ref.encode())
    return digest.hexdigest()[:16]


def _own_images(steps: Steps) -> list[Image]:
    """Imported here and not above: who brings its own images needs no builder."""
    from devcluster.images.builder import component_images

    return component_images(steps)


def _record_path(layout: Layout) -> Path:
    return layout.run / "cluster.json"


def _read_record(layout: Layout) -> dict[str, Any] | None:
    path = _record_path(layout)
    return dict(json.loads(path.read_text())) if path.exists() else None
