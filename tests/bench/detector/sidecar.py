"""What the monitor takes beside an engine at the default rate: a real prober process on a scripted engine."""

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.jsonable import loads
from r1plus_contract.verdict import MonitorReport, Phase
from support.monitoring.scripted import Pod, prober_process
from support.ports import free_port
from support.waiting import wait_until

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
        pod, port = Pod.make(Path(folder)), free_port()
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
    def is_watching() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/verdict", timeout=10) as response:
            return loads(MonitorReport, response.read()).phase is Phase.WATCHING

    unreachable = (urllib.error.URLError, ConnectionError, TimeoutError)
    wait_until(is_watching, "the prober has decided its gate", 600.0, period_s=0.2, retry_on=unreachable)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
