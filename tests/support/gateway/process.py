"""The gateway as a process of its own, with a real store on a volume, before fake pods."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from cryptography.hazmat.primitives.asymmetric import rsa

from r1plus_client import AsyncClient
from r1plus_contract import calculator as calculator_contract
from r1plus_contract import documents as documents_contract
from r1plus_contract import embedder as embedder_contract
from r1plus_contract.atomic_files import replace_text
from r1plus_contract.gateway import ENV_CODE_INTERPRETER
from r1plus_gateway.settings import ENV_SETTINGS
from r1plus_gateway.store.keys.tenant_keys import make_half
from support.apiserver.process import PythonProcess
from support.embedding.process import EmbedderProcess
from support.gateway.rig import REVISION, FakeMonitor
from support.gateway.tokens import ISSUER, PrivateKey, make_account, make_claims, make_jwk, sign
from support.ports import free_port
from support.waiting import eventually

TENANT_UID = "0b5e6a2c-0000-4000-8000-00000000000a"


class Listener(Protocol):
    """What listens on a port of loopback."""

    @property
    def port(self) -> int:
        """The port."""


class GatewayProcess(PythonProcess):
    """`python -m r1plus_gateway` of tenant `team-credit`, with model `credit` at one pod."""

    def __init__(
        self, folder: Path, pod: Listener, monitor: Listener, *, beside: "GatewayProcess | None" = None, **model: Any
    ) -> None:
        """`beside`: another gateway of the tenant, whose data, tenant key and token issuer this one has too.

        `model`: settings of the model that differ from the usual ones.
        """
        super().__init__(folder / "gateway.log", "r1plus_gateway")
        self.folder = folder
        self.sockets: dict[str, str] = {}
        """Variable -> path of the socket of a process beside it."""
        self.internal_port = free_port()
        self.signers: dict[str, PrivateKey] = (
            beside.signers if beside else {"k1": rsa.generate_private_key(65537, 2048)}
        )
        """By key id: what the cluster signs tokens with; the last one signs."""
        if beside is None:
            for name in ("data", "secret"):
                (folder / name).mkdir()
            (folder / "secret" / "half-1").write_text(make_half())
            self.write_jwks()
        entry = {
            "name": "credit",
            "host": "127.0.0.1",
            "grpcPort": pod.port,
            "monitorPort": monitor.port,
            "contextTokens": 1024,
            "batch": 8,
            "capabilities": ["messages", "count_only"],
            "revisions": [REVISION],
            **model,
        }
        self.settings: dict[str, Any] = {
            "namespace": "team-credit",
            "host": "127.0.0.1",
            "port": self.port,
            "internalPort": self.internal_port,
            "drainSeconds": 5,
            "tokens": {"issuer": ISSUER, "jwks": str(folder / "jwks.json"), "namespaces": ["team-app"]},
            "data": {
                "tenantUid": TENANT_UID,
                "folder": str(folder / "data"),
                "secretFolder": str(folder / "secret"),
            },
            "models": [entry],
        }
        if beside is not None:
            self.settings |= {name: beside.settings[name] for name in ("tokens", "data")}
        self.write_settings()

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, ENV_SETTINGS: str(self.folder / "settings.json"), **self.sockets}

    def write_settings(self) -> None:
        """Replace the settings' file."""
        (self.folder / "settings.json").write_text(json.dumps(self.settings))

    def write_jwks(self) -> None:
        """Publish the keys of all signers, as the kubelet replaces a mounted file."""
        keys = [make_jwk(key, key_id) for key_id, key in self.signers.items()]
        replace_text(self.folder / "jwks.json", json.dumps({"keys": keys}))

    def make_token(self, namespace: str, name: str) -> str:
        """Return a token of a ServiceAccount, as the cluster signs it now."""
        key_id, signer = list(self.signers.items())[-1]
        claims = make_claims(**make_account(namespace, name), jti=secrets.token_hex(4))
        return sign(signer, claims, key_id)

    @property
    def admin_headers(self) -> dict[str, str]:
        """Return what authenticates the tenant's admin."""
        return {"Authorization": f"Bearer {self.make_token('team-credit', 'r1plus-gateway-admin')}"}

    def make_client(self, key: str) -> AsyncClient:
        """Return a client that does not try again."""
        return AsyncClient(self.url, key, max_retries=0)

    async def read_data_state(self) -> dict[str, str]:
        """Return what the gateway says of its data."""
        url = f"http://127.0.0.1:{self.internal_port}/data"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            state: dict[str, str] = await response.json()
            return state

    async def read_probe(self, path: str) -> tuple[int, str]:
        """Return status and text of a probe, as the kubelet sees it."""
        url = f"http://127.0.0.1:{self.internal_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def until_unready(self, reason: str) -> str:
        """Wait until it is not ready for this reason, while it is alive; return what it says."""

        async def find() -> str:
            assert self.returncode is None, self.log
            status, text = await self.read_probe("/readyz")
            return text if status == 503 and text.startswith(f"{reason}: ") else ""

        text: str = await eventually(find, f"not ready: {reason}", retry_on=(aiohttp.ClientError,))
        assert (await self.read_probe("/healthz"))[0] == 200
        # Callers are told the reason, and nothing of paths and hosts.
        assert await self._ask("readyz") == (503, f"{reason}\n")
        assert (await self.read_data_state())["reason"] == reason
        return text

    async def call_admin(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Call the admin API; return status and answer."""
        own = {**self.admin_headers, **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}/v1/admin{path}", json=body, headers=own) as response,
        ):
            return response.status, await response.json()

    async def create_key(self, **spec: Any) -> str:
        """Return a new key."""
        status, answer = await self.call_admin("POST", "/keys", {"name": "app", **spec})
        assert status == 201, answer
        return str(answer["key"])

    async def add_model(self, name: str, pod: Listener) -> None:
        """Add a model at this pod, which is otherwise as the first one is, and wait until it can be called."""
        self.settings["models"].append({**self.settings["models"][0], "name": name, "grpcPort": pod.port})
        self.write_settings()
        client = self.make_client(await self.create_key())

        async def is_listed() -> bool:
            return name in {model.id for model in await client.list_models()}

        async with client:
            await eventually(is_listed, f"the model {name} is listed")

    async def until_ready(self) -> None:
        """Wait until it takes requests."""

        async def answers() -> bool:
            try:
                async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                assert self.returncode is None, self.log
                return False

        await eventually(answers, "the gateway is ready")


@asynccontextmanager
async def running_process(
    folder: Path,
    pod: Listener,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    calculator: Path | None = None,
    runs_code: bool = False,
    documents: Path | None = None,
    embedder: EmbedderProcess | None = None,
    **model: Any,
) -> AsyncIterator[GatewayProcess]:
    """Run a gateway before this pod; `model` as for `GatewayProcess`, `settings`: other settings, by their section.

    `calculator`, `documents`, `embedder`: the socket of one; `runs_code`: whether programs of models are run.
    """
    async with FakeMonitor().listen() as monitor:
        gateway = GatewayProcess(folder, pod, monitor, **model)
        sockets = {calculator_contract.ENV_SOCKET: calculator, documents_contract.ENV_SOCKET: documents}
        if embedder is not None:
            sockets[embedder_contract.ENV_SOCKET] = embedder.socket
            gateway.settings["embedding"] = embedder.settings
        gateway.sockets = {name: str(path) for name, path in sockets.items() if path is not None}
        if runs_code:
            gateway.sockets[ENV_CODE_INTERPRETER] = "true"
        for section, values in (settings or {}).items():
            gateway.settings[section] = {**gateway.settings.get(section, {}), **values}
        gateway.write_settings()
        async with started(gateway):
            yield gateway


@asynccontextmanager
async def started(gateway: GatewayProcess, *, unready: str = "") -> AsyncIterator[GatewayProcess]:
    """Start this gateway for the block; `unready`: it cannot use its data, for this reason."""
    gateway.start()
    try:
        await (gateway.until_unready(unready) if unready else gateway.until_ready())
        yield gateway
    finally:
        gateway.kill()
