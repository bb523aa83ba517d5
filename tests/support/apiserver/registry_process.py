"""The real registry process beside the real API server: who asks it is who the API server says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import rbac
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import service_account
from support.apiserver.operator_process import DIES_WITH_PARENT
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE, grant, token
from support.ports import free_port
from support.waiting import DEADLINE_SECONDS

WRITER, SERVICE, READER = "r1plus-operator", "r1plus-registry", "r1plus-registry-reader"


class RegistryProcess:
    """`python -m r1plus_model_repo.registry serve`, with a file in `folder`, as its own service account."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def prepare(self, client: ApiClient) -> None:
        """Make its account, with the chart's rights, and its token."""
        (self._folder / "token").write_text(await token(client, SERVICE))
        # Under a name that no chart uses: the server is shared with tests that install the chart.
        await grant(client, f"test-{SERVICE}", rbac.registry(), service_account(SERVICE, OPERATOR_NAMESPACE))

    def begin_test(self) -> None:
        """Start it if it does not run."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def start(self) -> None:
        """Start it; the same file again after a stop."""
        env = {
            **os.environ,
            "R1PLUS_API_SERVER": self._server.url,
            "R1PLUS_API_SERVER_CA": str(self._server.ca),
            "R1PLUS_API_SERVER_TOKEN": str(self._folder / "token"),
            "R1PLUS_REGISTRY_DSN": f"sqlite:///{self._folder / 'registry.db'}",
            "R1PLUS_REGISTRY_WRITER": OPERATOR,
            "R1PLUS_REGISTRY_PORT": str(self.port),
        }
        with (self._folder / "registry.log").open("ab") as log:
            words = [*DIES_WITH_PARENT, sys.executable, "-m", "r1plus_model_repo.registry", "serve"]
            self._process = subprocess.Popen(words, env=env, stdout=log, stderr=log)

    def stop(self) -> int:
        """Send SIGTERM and return its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL, if it was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)

    @property
    def log(self) -> str:
        """What it printed so far."""
        return (self._folder / "registry.log").read_text(errors="replace")

    async def ready(self) -> bool:
        """Return whether it records and tells."""
        async with httpx.AsyncClient() as http:
            try:
                return (await http.get(f"{self.url}/readyz")).status_code == 200
            except httpx.TransportError:
                return False

    async def get(self, path: str, bearer: str) -> tuple[int, Any]:
        """Return status and document."""
        async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
            answer = await http.get(self.url + path, headers={"Authorization": f"Bearer {bearer}"})
            return answer.status_code, answer.json()
