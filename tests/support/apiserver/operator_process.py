"""The real operator process against the real API server, as its own ServiceAccount, with the chart's own ClusterRole.

There is no kubelet here: a test makes the pods a Deployment would get, and answers for their monitors over HTTP.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from devcluster.apiserver_only import ApiServer
from r1plus_contract import metrics
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE
from support.apiserver.server import ROOT
from support.ports import free_port
from support.waiting import DEADLINE_SECONDS, eventually

DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Words before a command: the kernel kills it when the test's process ends, however that ends."""


class OperatorProcess:
    """`python -m r1plus_operator`, started and stopped.

    All are one pod whose container starts again, so that none waits for the Lease of one that was killed: a test with
    two at once gives them names of their own by `env`.
    """

    def __init__(self, server: ApiServer, log: Path, *, kubeconfig: Path | None = None, **env: str) -> None:
        groups = ("system:serviceaccounts", "system:authenticated")
        self._kubeconfig = kubeconfig or server.kubeconfig_for(OPERATOR, groups)
        self._log = log
        self._log_begins = 0
        self._env = env
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """As the chart would set it."""
        return {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig),
            "R1PLUS_MONITOR_IMAGE": "registry.local/monitor:1",
            "R1PLUS_TRITON_IMAGE": "registry.local/triton:1",
            "R1PLUS_CATALOG_DIR": str(ROOT / "model_repo" / "r1plus_model_repo" / "catalog"),
            "R1PLUS_SUITES_DIR": str(ROOT / "monitoring" / "suites"),
            "R1PLUS_DEFAULT_FAMILY": "smollm2",
            "R1PLUS_OPERATOR_NAMESPACE": OPERATOR_NAMESPACE,
            "R1PLUS_POD_NAME": "r1plus-operator-0",
            "R1PLUS_POD_UID": "0",
            "R1PLUS_VERDICT_INTERVAL_SECONDS": "0.2",
            "R1PLUS_HEALTH_PORT": str(self.port),
            **self._env,
        }

    def begin_test(self) -> None:
        """Start it if it does not run, and let its log begin here."""
        self._log_begins = self._log.stat().st_size if self._log.exists() else 0
        if self._process is None or self._process.poll() is not None:
            self.start()

    def start(self) -> None:
        """Start it."""
        command = [*DIES_WITH_PARENT, sys.executable, "-m", "r1plus_operator"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        """Send a signal and go on."""
        self._running.send_signal(number)

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "the operator was not started"
        return self._process

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._running.poll()

    def stop(self) -> int:
        """Send SIGTERM and return its exit status."""
        self._running.send_signal(signal.SIGTERM)
        return self._running.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL, if it was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    @property
    def log(self) -> str:
        """What it printed since the test began."""
        return self._log.read_bytes()[self._log_begins :].decode(errors="replace")

    def forbidden(self, namespace: str) -> list[str]:
        """Return what it was refused, in this namespace or in none. In those of other tests it may have been meant to be."""
        lines = [line for line in self.log.splitlines() if "Forbidden" in line]
        return [line for line in lines if "/namespaces/t-" not in line or f"/namespaces/{namespace}/" in line]

    async def ready(self) -> bool:
        """Return whether its caches are synced."""
        return (await self._ask("readyz"))[0] == 200

    async def leads(self) -> bool:
        """Return whether it says that it holds the Lease."""
        status, text = await self._ask("metrics")
        return status == 200 and re.search(rf"^{metrics.LEADER} 1\.0$", text, re.MULTILINE) is not None

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over the series with these labels; 0 if there is none."""
        status, text = await self._ask("metrics")
        assert status == 200, f"the operator does not tell its metrics: {status}"
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.split()[-1]) for line in lines if all(f'{k}="{v}"' in line for k, v in labels.items()))

    async def shows(self, name: str, **labels: str) -> None:
        """Wait until the metric is 1: a pass counts once it is over, and its status is written first."""

        async def is_one() -> bool:
            return await self.metric(name, **labels) == 1

        await eventually(is_one, f"{name} is 1", retry_on=(AssertionError,))

    async def passes(self) -> float:
        """Return how many passes it has made."""
        return await self.metric("r1plus_reconcile_total")

    async def has_made_passes(self) -> None:
        """Wait until a process that was just started has looked at what there is."""

        async def has_looked() -> bool:
            return await self.ready() and await self.passes() >= 2

        await eventually(has_looked, "the operator has made passes", retry_on=(AssertionError,))

    async def _ask(self, path: str) -> tuple[int, str]:
        limit = aiohttp.ClientTimeout(total=DEADLINE_SECONDS / 10)
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}/{path}", timeout=limit) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""
