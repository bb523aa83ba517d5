"""Looks from inside the cluster: a pod that tries a connection, and words with a pod's monitor."""

import json
import uuid
from dataclasses import dataclass

from e2e import objects
from e2e.kube import Json, Kube
from e2e.waiting import wait_for

SHUT_OUT_SECONDS, LET_IN_SECONDS = 20, 300
"""How long is tried. A new pod is let through a wall only once the node has learned its address, some seconds after it started."""
ATTEMPT_SECONDS = 3

# Exit status 0 means connected, 3 that a wall stood in the way all the time (some drop packets, some send a refusal);
# anything else is a broken test. That somebody listens is shown by those who do connect. Who is to be shut out
# connects first where it is let in: before the node has learned its address, every wall would shut it out.
_CONNECT = """
import socket, sys, time
def connects(host, port, patience):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), {attempt}).close()
            return True
        except TimeoutError:
            pass
        except ConnectionRefusedError:
            time.sleep(0.5)
    return False
host, port, *control = sys.argv[1:]
if control and not connects(*control, {let_in}):
    sys.exit(4)
sys.exit(0 if connects(host, port, {shut_out} if control else {let_in}) else 3)
"""

_FIND_PROBER = """
import os, pathlib, signal, sys
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (folder / "cmdline").read_bytes().split(b"\\0")
    except (FileNotFoundError, ProcessLookupError):
        continue  # It has ended meanwhile.
    if b"r1plus_monitoring.process.prober" in words:
        os.kill(int(folder.name), getattr(signal, sys.argv[1]))
        print(folder.name)
"""


_REMEMBER_A_FALL = """
import pathlib
from dataclasses import replace
from r1plus_contract.names import DIR_ACCURACY, DIR_STATE
from r1plus_contract.suites.suite import load_suite
from r1plus_monitoring.store.state import StateStore
from r1plus_policies.watch.confirmation import Confirmation
told = pathlib.Path(DIR_ACCURACY)
suite = load_suite((told / "suite.json").read_text(), (told / "items.jsonl").read_text())
store = StateStore(pathlib.Path(DIR_STATE))
counted = Confirmation(seed=0, answers={item.id: "00" for item in suite.items})
at = "2026-01-01T00:00:00Z"
store.save(replace(store.state, watch=replace(store.state.watch, alarmed_at=at, confirmed=counted, confirmed_at=at)))
"""
"""As if the monitor had counted that every item is lost. Its prober stands still meanwhile, and then begins anew from there."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A pod of somebody's, allowed by Pod Security `restricted`, that tries to connect, again and again."""

    kube: Kube
    namespace: str
    image: str

    def start(self, host: str, port: int, *, control: tuple[str, int] | None = None) -> str:
        """Start trying; returns the pod's name. `control`: where the pod is let in, if it is to be shut out here."""
        name = f"caller-{uuid.uuid4().hex[:8]}"
        script = _CONNECT.format(let_in=LET_IN_SECONDS, shut_out=SHUT_OUT_SECONDS, attempt=ATTEMPT_SECONDS)
        command = ("python3", "-c", script, host, str(port), *map(str, control or ()))
        self.kube.apply(objects.ordinary_pod(name, self.namespace, self.image, command=command))
        return name

    def outcome(self, name: str) -> str:
        """`connected` or `shut out`, once it is known; the pod is then removed."""
        code = wait_for(lambda: self._exit_code(name), f"pod {self.namespace}/{name} ends")
        self.kube.delete("pods", self.namespace, name)
        return {"0": "connected", "3": "shut out"}.get(code, f"exit status {code}")

    def _exit_code(self, name: str) -> str | None:
        pod = self.kube.get("pods", self.namespace, name) or {}
        for status in pod.get("status", {}).get("containerStatuses", []):
            if ended := status["state"].get("terminated"):
                return str(ended["exitCode"])
        return None


def signal_prober(kube: Kube, namespace: str, pod: str, name: str) -> str:
    """Send SIGKILL or SIGSTOP to the prober of a pod's monitor; returns its pid."""
    return _in_monitor(kube, namespace, pod, _FIND_PROBER, name).strip()


def remember_a_fall(kube: Kube, namespace: str, pod: str) -> None:
    """The pod's monitor finds in its memory that the engine has fallen far below its threshold."""
    signal_prober(kube, namespace, pod, "SIGSTOP")
    _in_monitor(kube, namespace, pod, _REMEMBER_A_FALL)
    signal_prober(kube, namespace, pod, "SIGKILL")


def monitor_report(kube: Kube, namespace: str, pod: str) -> Json:
    """What the pod's monitor says at /verdict."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/verdict', timeout=60).read().decode())"
    return dict(json.loads(_in_monitor(kube, namespace, pod, ask)))


def _in_monitor(kube: Kube, namespace: str, pod: str, script: str, *arguments: str) -> str:
    return kube.kubectl(
        "exec", f"--namespace={namespace}", pod, "--container=monitor", "--", "python3", "-c", script, *arguments
    )
