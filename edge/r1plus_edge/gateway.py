"""The gateway of this machine with its helpers: its pod as the plan renders a tenant's, and the first API key.

The helpers are started when the gateway first asks them. The embedding engine is fetched when the first document comes;
until it is there, documents are searched by their words.

A cluster's API server signs the tokens of administrators; here `serve` does, with a key that only this process has.
"""

import asyncio
import base64
import json
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from r1plus_contract.addons import explain_missing_addon
from r1plus_contract.gateway import (
    DATA_PATH,
    GATEWAY,
    GATEWAY_ADMIN,
    GATEWAY_KEY,
    JWKS_FILE,
    PORT_API,
    PORT_INTERNAL,
    SETTINGS_FILE,
    DataState,
    GatewaySettings,
    ModelSettings,
    TlsPaths,
)
from r1plus_contract.jsonable import dumps, loads, to_jsonable
from r1plus_contract.metrics import GATEWAY_PODS
from r1plus_contract.process.streams import read_at_most
from r1plus_contract.timestamps import format_timestamp
from r1plus_edge.controller import run_pod
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.objects import write_synced
from r1plus_edge.pods.images import Images
from r1plus_edge.pods.on_demand import OnDemandContainer
from r1plus_edge.pods.places import LOOPBACK
from r1plus_edge.pods.pod import LocalPod, VolumeSources
from r1plus_edge.start.engines import find_embedding_files
from r1plus_edge.start.listening import Listening
from r1plus_edge.start.preparation import prepare_embedding
from r1plus_edge.start.tenant import TenantRequest
from r1plus_operator.plan.observation import NamespaceFacts, TokenIssuer
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy import gateway_objects
from r1plus_operator.plan.tenancy.gateway_helpers import DOCUMENTS, ENGINE_FILES, GatewayHelper, select_helpers
from r1plus_policies.backoff import double_delay

ISSUER: Final = "r1plus-edge"
_KEY_ID: Final = "serve"
_TOKEN_SECONDS: Final = 300
_METRICS_PATH: Final = "/metrics"
_MOST_ANSWER: Final = 4 * 2**20
"""Bytes of an answer of the gateway, several times what the series of all callers take."""
_HALF_FILE: Final = "half-1"
_HALF_BYTES: Final = 32
DRAIN_SECONDS: Final = 1.5
"""For running answers, so that `serve` ends within its five seconds."""
END_SECONDS: Final = 2.8
HANDOVER_SECONDS: Final = 60.0
"""For running answers, before other software takes the callers over; others wait meanwhile."""
FOLLOW_SECONDS: Final = 5.0
"""For the gateway to follow its settings: it looks every two seconds."""
REQUEST_SECONDS: Final = 10.0
FIRST_KEY_NAME: Final = "first"
LOOK_SECONDS: Final = 2.0
"""Between two looks for the embedding engine's files."""
FIRST_FETCH_PAUSE, LONGEST_FETCH_PAUSE = 60.0, 3600.0
"""Seconds between tries to fetch the embedding engine."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who this machine is to its gateway: the data are of this one alone."""

    uid: str
    created_at: str
    """RFC 3339."""


def load_tenant(folder: DataFolder) -> Tenant:
    """Return the tenant of the folder; a new folder becomes one.

    Raises:
        EdgeError: its file is damaged.
    """
    try:
        document = json.loads(folder.tenant.read_text(encoding="utf-8"))
        return Tenant(str(document["uid"]), str(document["createdAt"]))
    except FileNotFoundError:
        tenant = Tenant(secrets.token_hex(16), format_timestamp(time.time()))
        write_synced(folder.tenant, json.dumps({"uid": tenant.uid, "createdAt": tenant.created_at}))
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(f"{folder.tenant}: it is damaged; restore it, or move {folder.root} away") from error
    return tenant


def explain_missing_helpers(
    helpers: Iterable[GatewayHelper], is_installed: Callable[[str], bool] = lambda module: find_spec(module) is not None
) -> list[str]:
    """Return a line for each helper that cannot start, with what installs it. The gateway answers without them."""
    return [
        explain_missing_addon(f"The gateway's helper {one.name}", "helpers")
        for one in helpers
        if not is_installed(one.module)
    ]


class _UnavailableError(Exception):
    """The gateway cannot use its data now; another try may help."""


def _check_available(response: aiohttp.ClientResponse) -> None:
    if response.status >= 500:
        raise _UnavailableError


class TokenSigner:
    """Signs tokens of the gateway's administrator, as an API server would."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def issuer(self) -> TokenIssuer:
        """What the gateway verifies tokens by."""
        numbers = self._key.public_key().public_numbers()
        coordinates = {"x": _encode(numbers.x), "y": _encode(numbers.y)}
        jwk = {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": _KEY_ID, **coordinates}
        return TokenIssuer(ISSUER, json.dumps({"keys": [jwk]}))

    def sign(self) -> str:
        """Return a token of the administrator that lives for minutes."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": [GATEWAY],
            "sub": f"system:serviceaccount:{self._namespace}:{GATEWAY_ADMIN}",
            "iat": now,
            "nbf": now,
            "exp": now + _TOKEN_SECONDS,
            "kubernetes.io": {"namespace": self._namespace, "serviceaccount": {"name": GATEWAY_ADMIN}},
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": _KEY_ID})


def _encode(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


class EdgeGateway:
    """The gateway's pod and its settings."""

    def __init__(
        self,
        folder: DataFolder,
        namespace: str,
        listening: Listening,
        images: Images,
        config: OperatorConfig,
        on_change: Callable[[], None],
        request: TenantRequest,
        cache: Path,
        tell: Callable[[str], None],
        listener: socket.socket,
    ) -> None:
        """`cache`: where the embedding engine's files are, or come; `tell`: tells a person a line; `listener`: where
        callers connect, `listening`."""
        tenant = load_tenant(folder)
        make_half(folder)
        self._folder = folder
        self._listening = listening
        self._signer = TokenSigner(namespace)
        self._namespace = NamespaceFacts(namespace, tenant.uid, True, "", created_at=tenant.created_at)
        self._spec = request.spec
        self._embedding = request.embedding
        self._cache = cache
        self._tell = tell
        self._has_engine = self._find_engine()
        self._fetch_problem = ""
        self._drain_seconds = DRAIN_SECONDS
        self._model: ModelSettings | None = None
        self.has_key = False
        template = gateway_objects.build_deployment(
            self._spec, self._build_settings(), config, self._embedding, counts_storage=False
        )
        folders = {ENGINE_FILES: find_embedding_files(self._embedding.name, cache)} if self._embedding else {}
        self.pod = LocalPod(
            "gateway",
            template["spec"]["template"],
            folder,
            images,
            VolumeSources(self._read_config, {GATEWAY: folder.store}, {GATEWAY_KEY: folder.secret}, folders),
            on_change,
            sockets={one.name: one.socket for one in self._list_helpers()},
            listeners={PORT_API: listener},
        )

    async def run(self) -> None:
        """Run the gateway and its helpers until cancelled; fetch the embedding engine when the first document comes."""
        for line in explain_missing_helpers(self._list_helpers()):
            self._tell(line)
        async with asyncio.TaskGroup() as group:
            group.create_task(run_pod(self.pod))
            if self._embedding is not None and not self._has_engine:
                group.create_task(self._fetch_engine(self._embedding.name))

    async def drain(self) -> None:
        """End it when its running answers have ended. Who connects meanwhile waits at the socket for the next one."""
        self._drain_seconds = HANDOVER_SECONDS
        self.pod.refresh_configs()
        await asyncio.sleep(FOLLOW_SECONDS)
        # Its helpers after it: answers that run may need them.
        await self.pod.find_container(gateway_objects.CONTAINER).end(HANDOVER_SECONDS + END_SECONDS)

    @property
    def search(self) -> str:
        """By what documents are searched, and why not by more; empty: there are no documents."""
        if not self._spec.gateway.knowledge:
            return ""
        if self._embedding is None or self._has_engine:
            return "words and meaning" if self._embedding else "words"
        name = self._embedding.name
        return f"words alone; {self._fetch_problem or f'{name} is fetched when the first document is added'}"

    def _list_helpers(self) -> tuple[GatewayHelper, ...]:
        return select_helpers(self._spec.gateway, self._embedding)

    def _find_engine(self) -> bool:
        return self._embedding is not None and find_embedding_files(self._embedding.name, self._cache).is_dir()

    def _needs_engine(self) -> bool:
        """Whether a document has come; without documents, vectors are all that the engine is for."""
        if not self._spec.gateway.knowledge:
            return True
        documents = self.pod.find_container(DOCUMENTS.name)
        assert isinstance(documents, OnDemandContainer)
        return documents.was_used.is_set()

    async def _fetch_engine(self, name: str) -> None:
        """Bring the embedding engine's files; then the gateway makes the vectors of what it has read without."""
        failures, next_try = 0, time.monotonic()
        while not self._find_engine():
            if self._needs_engine() and time.monotonic() >= next_try:
                self._fetch_problem = f"{name} is being fetched"
                try:
                    await prepare_embedding(name, self._cache, self._folder.root, self._tell)
                except (EdgeError, OSError) as error:
                    failures += 1
                    pause = double_delay(failures, FIRST_FETCH_PAUSE, LONGEST_FETCH_PAUSE)
                    next_try = time.monotonic() + pause
                    self._fetch_problem = f"{error}; the next try is in {pause / 60:g} min"
                    self._tell(f"Documents are searched by {self.search}")
            # Somebody may put the files there, as from a bundle.
            await asyncio.sleep(LOOK_SECONDS)
        self._has_engine = True
        self.pod.refresh_configs()
        self._tell(f"Documents are searched by {self.search}")

    def set_model(self, model: ModelSettings | None) -> None:
        """Let the gateway serve this model, where its pod is ready."""
        if model != self._model:
            self._model = model
            self.pod.refresh_configs()

    async def count_pods(self, session: aiohttp.ClientSession) -> int:
        """Return how many pods the gateway sends requests to: it follows its settings, a moment later."""
        try:
            lines = (await self._ask(session, _METRICS_PATH)).decode().splitlines()
            return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(f"{GATEWAY_PODS}{{"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, OverflowError):
            return 0

    async def read_data_state(self, session: aiohttp.ClientSession) -> DataState | None:
        """Return what the gateway says of its data; None: it does not answer."""
        try:
            return loads(DataState, await self._ask(session, DATA_PATH), tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> bytes:
        """Return what the gateway answers at its internal port, cut off where it is too much.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: it does not run, or does not answer.
        """
        if self.pod.find_container(gateway_objects.CONTAINER).pid is None:
            raise ConnectionRefusedError  # It would wait at the socket for the next one.
        async with session.get(f"{self._internal_url}{path}") as response:
            return await read_at_most(response.content.iter_chunked(64 * 1024), _MOST_ANSWER)

    @property
    def metrics_url(self) -> str:
        """The gateway's endpoint for Prometheus."""
        return f"{self._internal_url}{_METRICS_PATH}"

    @property
    def _internal_url(self) -> str:
        return f"http://{LOOPBACK}:{self.pod.ports[PORT_INTERNAL]}"

    async def sign_token(self) -> str:
        """Return a token of the administrator, for verbs that call the gateway themselves."""
        return self._signer.sign()

    async def confirm_time(self) -> str:
        """Let the gateway go by this machine's clock, and return what came of it.

        Raises:
            EdgeError: the gateway refuses, or does not answer.
        """
        url = f"{self._listening.local_url}/v1/admin/time/confirm"
        headers, timeout = {"Authorization": f"Bearer {self._signer.sign()}"}, aiohttp.ClientTimeout(REQUEST_SECONDS)
        problem = f"see {self._folder.logs / 'gateway.log'}"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, headers=headers, ssl=self._trust) as response,
            ):
                if response.status != 200:
                    raise EdgeError(f"The gateway does not confirm the time: HTTP {response.status}; {problem}")
                now = float((await response.json())["now"])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EdgeError(f"The gateway does not answer: {error or type(error).__name__}; {problem}") from error
        return f"The gateway goes by {format_timestamp(now)}"

    async def ensure_key(self) -> None:
        """Let the key's file have a valid API key: the one that it has, else a new one. Call it until `has_key`.

        Raises:
            EdgeError: the gateway refuses to make one.
            OSError: the file cannot be written.
        """
        try:
            key = self._folder.key.read_text(encoding="utf-8").strip()
        except OSError:
            key = ""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                if not key or not await self._is_valid(session, key):
                    key = await self._create_key(session)
                    write_synced(self._folder.key, f"{key}\n")
        except (aiohttp.ClientError, TimeoutError, _UnavailableError):
            return
        self.has_key = True

    async def _is_valid(self, session: aiohttp.ClientSession, key: str) -> bool:
        url, headers = f"{self._listening.local_url}/v1/key", {"Authorization": f"Bearer {key}"}
        async with session.get(url, headers=headers, ssl=self._trust) as response:
            _check_available(response)
            return response.status == 200

    async def _create_key(self, session: aiohttp.ClientSession) -> str:
        url = f"{self._listening.local_url}/v1/admin/keys"
        headers = {"Authorization": f"Bearer {self._signer.sign()}"}
        async with session.post(url, json={"name": FIRST_KEY_NAME}, headers=headers, ssl=self._trust) as response:
            _check_available(response)
            if response.status != 201:
                raise EdgeError(
                    f"The gateway makes no API key: HTTP {response.status}; see {self._folder.logs / 'gateway.log'}"
                )
            return str((await response.json())["key"])

    @property
    def _trust(self) -> ssl.SSLContext | bool:
        """What is trusted as the gateway: the very certificate that it was given."""
        if self._listening.certificate is None:
            return True
        context = ssl.create_default_context(cafile=str(self._listening.certificate))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        return context

    def _build_settings(self) -> GatewaySettings:
        given = (self._model,) if self._model is not None else ()
        models = tuple(replace(one, grpc_socket=self._shorten(one.grpc_socket)) for one in given)
        listening = self._listening
        engine = self._embedding if self._has_engine else None
        settings = gateway_objects.build_settings(self._namespace, self._spec, models, self._signer.issuer, engine)
        return replace(
            settings,
            host=listening.host,
            hosts=listening.hosts,
            port=listening.port,
            internal_host=LOOPBACK,
            drain_seconds=self._drain_seconds,
        )

    def _shorten(self, path: str) -> str:
        """Return a socket's path from the gateway's working directory: the kernel takes 107 bytes."""
        folder = self.pod.find_container(gateway_objects.CONTAINER).program.folder
        return os.path.relpath(path, folder) if path else ""

    def _find_tls(self) -> TlsPaths | None:
        certificate, key = self._listening.certificate, self._listening.key
        if certificate is None or key is None:
            return None
        return TlsPaths(str(certificate.absolute()), str(key.absolute()))

    def _read_config(self, name: str) -> Mapping[str, str] | None:
        """Return the files of the gateway's ConfigMap, with this machine's places."""
        settings = replace(self._build_settings(), internal_port=self.pod.ports[PORT_INTERNAL])
        places = self.pod.places_of(self.pod.find_template(gateway_objects.CONTAINER))
        document = places.translate_document(settings.document())
        document["tls"] = to_jsonable(self._find_tls())  # Its paths are this machine's already.
        return {SETTINGS_FILE: dumps(document), JWKS_FILE: self._signer.issuer.jwks}


def make_half(folder: DataFolder) -> None:
    """Make half of the key of the gateway's data, unless there is one: a new one would not open them."""
    half: Path = folder.secret / _HALF_FILE
    # A file that begins with a dot is one whose writing was cut off.
    if all(path.name.startswith(".") for path in folder.secret.iterdir()):
        write_synced(half, secrets.token_hex(_HALF_BYTES))
