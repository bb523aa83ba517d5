"""What goes wrong in a running pod, and what its monitor then says. Faults of the images in `images`, and of processes."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from devcluster.toolchain import kubectl
from e2e.inside import monitor_report
from e2e.kube import Json, Kube
from e2e.story import Name
from e2e.tenants import in_container
from e2e.waiting import wait_for

DEGRADED = ("triton", "/tmp/degraded")
BROKEN_SCORER = ("monitor", "/tmp/broken-scorer")
_ENOUGH = "/tmp/enough"

_TORMENT = """
import os, pathlib, signal, sys, time
while not pathlib.Path(sys.argv[2]).exists():
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"r1plus_monitoring.process.prober" in (folder / "cmdline").read_bytes().split(b"\\0"):
                os.kill(int(folder.name), getattr(signal, sys.argv[1]))
        except (FileNotFoundError, ProcessLookupError):
            pass
    time.sleep(0.2)
"""

_NEWEST = """
import json, urllib.request as u
print(json.load(u.urlopen("http://127.0.0.1:8080/outcomes?since=999999999", timeout=60))["newest"])
"""


def strike(kube: Kube, name: Name, pod: str, fault: tuple[str, str]) -> float:
    """The fault appears in the pod; the moment (monotonic) until which there certainly was none."""
    container, file = fault
    at = time.monotonic()
    in_container(kube, name, pod, container, "/bin/sh", "-c", f": > {file}")
    return at


def mend(kube: Kube, name: Name, pod: str, fault: tuple[str, str]) -> None:
    """It is gone again."""
    container, file = fault
    in_container(kube, name, pod, container, "/bin/rm", "-f", file)


def probes_heard(kube: Kube, name: Name, pod: str) -> int:
    """How many outcomes the pod's detectors have heard so far."""
    return int(in_container(kube, name, pod, "monitor", "python3", "-c", _NEWEST))


def until_alarmed(kube: Kube, name: Name, pod: str) -> Json:
    """The pod's detector has alarmed; what its monitor says. While it counts, no further probe is heard."""

    def look() -> Json | None:
        try:
            said = monitor_report(kube, name.namespace, pod)
        except RuntimeError:
            return None
        return said if (said.get("watch") or {}).get("alarmedAt") else None

    return wait_for(look, f"the detector of {pod} alarms")


@contextmanager
def tormented(kube: Kube, name: Name, pod: str, signal: str) -> Iterator[None]:
    """The pod's prober gets this signal again and again, as soon as its supervisor has started it anew."""
    in_container(kube, name, pod, "monitor", "/bin/rm", "-f", _ENOUGH)
    command = [str(kubectl()), f"--kubeconfig={kube.kubeconfig}", "exec", f"--namespace={name.namespace}", pod]
    script = ("--container=monitor", "--", "python3", "-c", _TORMENT, signal, _ENOUGH)
    running = subprocess.Popen([*command, *script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        in_container(kube, name, pod, "monitor", "/bin/sh", "-c", f": > {_ENOUGH}")
        running.wait(timeout=30.0)
