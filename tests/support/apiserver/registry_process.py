"""The real registry process beside the real API server: who asks it is who the API server says."""

from pathlib import Path
from typing import Any

import httpx

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import rbac
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import service_account
from support.apiserver.process import PythonProcess
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE, grant, token
from support.waiting import DEADLINE_SECONDS

WRITER, SERVICE, READER = "r1plus-operator", "r1plus-registry", "r1plus-registry-reader"


class RegistryProcess(PythonProcess):
    """`python -m r1plus_registry serve`, with a file in `folder`, as its own service account."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        super().__init__(folder / "registry.log", "r1plus_registry", "serve")
        self._server = server
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """As the chart would set it."""
        return {
            **super().environment,
            "R1PLUS_API_SERVER": self._server.url,
            "R1PLUS_API_SERVER_CA": str(self._server.ca),
            "R1PLUS_API_SERVER_TOKEN": str(self._folder / "token"),
            "R1PLUS_REGISTRY_DSN": f"sqlite:///{self._folder / 'registry.db'}",
            "R1PLUS_REGISTRY_WRITER": OPERATOR,
            "R1PLUS_REGISTRY_PORT": str(self.port),
        }

    async def prepare(self, client: ApiClient) -> None:
        """Make its account, with the chart's rights, and its token."""
        (self._folder / "token").write_text(await token(client, SERVICE))
        # Under a name that no chart uses: the server is shared with tests that install the chart.
        await grant(
            client, f"test-{SERVICE}", rbac.list_registry_grants(), service_account(SERVICE, OPERATOR_NAMESPACE)
        )

    async def get(self, path: str, bearer: str) -> tuple[int, Any]:
        """Return status and document."""
        async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
            answer = await http.get(self.url + path, headers={"Authorization": f"Bearer {bearer}"})
            return answer.status_code, answer.json()
