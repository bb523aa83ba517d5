"""The real registry process beside the real API server: who asks it is who the API server says."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from apiserver.operator_rig import NAMESPACE, RBAC, ROLES
from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import rbac
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource

ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
WRITER, SERVICE, READER = "r1plus-operator", "r1plus-registry", "r1plus-registry-reader"


async def token(client: ApiClient, account: str, namespace: str = NAMESPACE, *audiences: str) -> str:
    """A token of that account, which is made if it is not there; without audiences one for the API server itself."""
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}
    await client.apply(ACCOUNTS, body, field_manager="test")
    spec: dict[str, Any] = {"expirationSeconds": 3600} | ({"audiences": list(audiences)} if audiences else {})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    made = await client.create(ACCOUNTS, asked | {"metadata": body["metadata"]}, subresource="token")
    return str(made["status"]["token"])


async def allow(client: ApiClient, name: str, grants: tuple[rbac.Grant, ...], account: str, namespace: str, space: str = "") -> None:  # fmt: skip
    """A role with these rights for an account, in namespace `space` or in all.

    In all under a name that no chart uses: the server is shared with tests that install the chart.
    """
    prefix = "" if space else "Cluster"
    meta = {"name": name, "namespace": space} if space else {"name": f"test-{name}"}
    role = {"apiVersion": f"{RBAC}/v1", "kind": f"{prefix}Role", "metadata": meta, "rules": [g.rule() for g in grants]}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{prefix}RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": RBAC, "kind": f"{prefix}Role", "name": meta["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    await client.apply(ROLES[f"{prefix}Role"], role, field_manager="test")
    await client.apply(ROLES[f"{prefix}RoleBinding"], binding, field_manager="test")


class RegistryProcess:
    """`python -m r1plus_model_repo.registry serve`, with a file in `folder`, as its own service account."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def prepare(self, client: ApiClient) -> None:
        """Its account, with the chart's rights, and its token."""
        (self._folder / "token").write_text(await token(client, SERVICE))
        await allow(client, SERVICE, rbac.registry(), SERVICE, NAMESPACE)

    def start(self) -> None:
        """Start it; the same file again after a stop."""
        env = {
            **os.environ,
            "R1PLUS_API_SERVER": self._server.url,
            "R1PLUS_API_SERVER_CA": str(self._server.ca),
            "R1PLUS_API_SERVER_TOKEN": str(self._folder / "token"),
            "R1PLUS_REGISTRY_DSN": f"sqlite:///{self._folder / 'registry.db'}",
            "R1PLUS_REGISTRY_WRITER": f"system:serviceaccount:{NAMESPACE}:{WRITER}",
            "R1PLUS_REGISTRY_PORT": str(self.port),
        }
        with (self._folder / "registry.log").open("ab") as log:
            words = [sys.executable, "-m", "r1plus_model_repo.registry", "serve"]
            self._process = subprocess.Popen(words, env=env, stdout=log, stderr=log)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL, if it was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    @property
    def log(self) -> str:
        """What it printed so far."""
        return (self._folder / "registry.log").read_text(errors="replace")

    async def ready(self) -> bool:
        """Whether it records and tells."""
        async with httpx.AsyncClient() as http:
            try:
                return (await http.get(f"{self.url}/readyz")).status_code == 200
            except httpx.TransportError:
                return False

    async def get(self, path: str, bearer: str) -> tuple[int, Any]:
        """Status and document."""
        async with httpx.AsyncClient(timeout=30.0) as http:
            answer = await http.get(self.url + path, headers={"Authorization": f"Bearer {bearer}"})
            return answer.status_code, answer.json()
