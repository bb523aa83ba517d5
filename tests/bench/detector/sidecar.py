"""What the monitor takes beside an engine at the default rate: a real prober process on a scripted engine."""

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from devcluster.layout import free_ports
from r1plus_contract.jsonable import loads
from r1plus_contract.verdict import MonitorReport, Phase
from support.monitoring.scripted import Pod, prober_process

DEFAULT_PER_MINUTE = 6


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the prober's process."""

    mib: float
    cpu_percent: float
    """Of one core."""


def cost(seconds: float) -> Cost:
    """Gate a scripted engine, then watch it at the default rate for so long."""
    with tempfile.TemporaryDirectory() as folder:
        pod, port = Pod.make(Path(folder)), free_ports(1)[0]
        pod.mount(probes_per_minute=DEFAULT_PER_MINUTE)
        command, environment = prober_process(pod, port)
        process = subprocess.Popen([*command, "--poll-interval=2"], env=environment, stderr=subprocess.DEVNULL)
        try:
            _until_watching(port)
            before, began = _cpu(process.pid), time.monotonic()
            time.sleep(seconds)
            percent = 100 * (_cpu(process.pid) - before) / (time.monotonic() - began)
            return Cost(_resident(process.pid), percent)
        finally:
            process.terminate()
            process.wait()


def _until_watching(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/verdict", timeout=2) as response:
                if loads(MonitorReport, response.read()).phase is Phase.WATCHING:
                    return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.2)
    raise TimeoutError("the prober has not decided its gate within 60 s")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
