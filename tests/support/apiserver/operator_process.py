"""The real operator process against the real API server, as its own ServiceAccount, with the chart's own ClusterRole.

There is no kubelet here: a test makes the pods a Deployment would get, and answers for their monitors over HTTP.
"""

import os
import re
from pathlib import Path

from devcluster.apiserver_only import ApiServer
from r1plus_contract import metrics
from support.apiserver.process import PythonProcess
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE
from support.apiserver.server import ROOT
from support.waiting import eventually

ABSENT = Path(__file__).parent / "absent"
"""Hides a package that the operator's image lacks. Each start is 0.4 s of processor time and 10 MiB cheaper without it."""


class OperatorProcess(PythonProcess):
    """`python -m r1plus_operator`, started and stopped.

    All are one pod whose container starts again, so that none waits for the Lease of one that was killed: a test with
    two at once gives them names of their own by `env`.
    """

    def __init__(self, server: ApiServer, log: Path, *, kubeconfig: Path | None = None, **env: str) -> None:
        super().__init__(log, "r1plus_operator")
        groups = ("system:serviceaccounts", "system:authenticated")
        self._kubeconfig = kubeconfig or server.kubeconfig_for(OPERATOR, groups)
        self._env = env

    @property
    def environment(self) -> dict[str, str]:
        """As the chart would set it."""
        return {
            **super().environment,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ABSENT), os.environ.get("PYTHONPATH")))),
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
            # So that on a busy machine none ends for want of the Lease, where that is not what a test is about.
            "R1PLUS_LEASE_SECONDS": "150",
            "R1PLUS_HEALTH_PORT": str(self.port),
            **self._env,
        }

    def upgrade(self, **env: str) -> None:
        """Start it again with other settings, as an upgrade of the chart does."""
        self._env |= env
        self.restart()

    def forbidden(self, namespace: str) -> list[str]:
        """Return what it was refused, in this namespace or in none. In those of other tests it may have been meant to be."""
        lines = [line for line in self.log.splitlines() if "Forbidden" in line]
        return [line for line in lines if "/namespaces/t-" not in line or f"/namespaces/{namespace}/" in line]

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
