"""The tenant's gateway: what the operator writes for it, and what both agree on.

The operator writes `GatewaySettings` into ConfigMap `r1plus-gateway` and mounts it beside the cluster's signing keys;
the gateway reads the files again when they change. Keys of the JSON are camelCase (`jsonable`).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from r1plus_contract import inference, names
from r1plus_contract.jsonable import to_jsonable

GATEWAY: Final = "r1plus-gateway"
"""In a tenant's namespace: the gateway's Deployment, account, settings and claim; also the audience of its tokens."""
GATEWAY_SERVICE: Final = "gateway"
"""The Service that applications call."""
GATEWAY_ADMIN: Final = "r1plus-gateway-admin"
"""Account in a tenant's namespace whose tokens reach the gateway's admin API."""
GATEWAY_KEY: Final = "r1plus-gateway-key"
"""Secret in a tenant's namespace with half of the tenant key, which `r1plus tenant init` makes."""
LABEL_GATEWAY: Final = f"{names.GROUP}/gateway"
"""On the gateway's pods, `true`: network policies and the Service select it."""
ANNOTATION_DIRECT_ACCESS: Final = f"{names.GROUP}/direct-access"
"""On the gateway's NetworkPolicy: `closed` since the gateway was first ready and only it may call the models."""

PORT_API: Final = 8080
"""Of the gateway's pods."""
PORT_INTERNAL: Final = 8081
"""Metrics and probes, without TLS and keys."""
PORT_SERVICE, PORT_SERVICE_TLS = 80, 443
"""Of the Service, without and with a certificate."""

DIR_SETTINGS: Final = "/etc/r1plus/gateway"
"""ConfigMap `r1plus-gateway`: `gateway.json` (`GatewaySettings`) and `jwks.json`."""
SETTINGS_FILE: Final = "gateway.json"
JWKS_FILE: Final = "jwks.json"
"""The API server's signing keys, which ServiceAccounts' tokens are verified with."""
DIR_KEY: Final = "/etc/r1plus/tenant-key"
"""Secret `r1plus-gateway-key`: files `half-...`."""
DIR_TLS: Final = "/etc/r1plus/tls"
"""The Secret of the certificate: `tls.crt` and `tls.key`."""
DIR_DATABASE: Final = "/etc/r1plus/database"
"""The Secret of the database: `url`."""
DATABASE_URL_FILE: Final = "url"
DIR_STORE: Final = "/var/lib/r1plus/gateway"
"""Claim `r1plus-gateway`: the tenant's data, unless PostgreSQL has them."""
ENV_SETTINGS: Final = "R1PLUS_GATEWAY_SETTINGS"
"""Path of `gateway.json`."""
ENV_HELPER_START_SECONDS: Final = "R1PLUS_GATEWAY_HELPER_START_SECONDS"
"""What a process beside the gateway may need to start, where the first request starts it. Unset: it runs already."""
ENV_CODE_INTERPRETER: Final = "R1PLUS_GATEWAY_CODE_INTERPRETER"
"""`true`: the calculator beside this gateway runs code, and requests may ask for it. Unset: none is run."""
ENV_LISTENER: Final = "R1PLUS_GATEWAY_LISTENER"
"""Number of a descriptor: a socket that listens for callers already, and outlives this process. Unset: it makes one."""
ENV_INTERNAL_LISTENER: Final = "R1PLUS_GATEWAY_INTERNAL_LISTENER"
"""The same for the internal port."""
DATA_PATH: Final = "/data"
"""On the internal port: `DataState`."""


def name_pods_service(deployment: str) -> str:
    """Return the name of a deployment's headless Service, which has an address for each serving pod."""
    return f"{deployment}-pods"


class DataReason(StrEnum):
    """Whether a gateway can use the tenant's data, and why not. Each is also a reason of condition GatewayReady."""

    READY = "Ready"
    STARTING = "Starting"
    KEY_LOST = "KeyLost"
    WRONG_KEY = "WrongKey"
    FOREIGN_TENANT = "ForeignTenant"
    CORRUPT = "DataCorrupt"
    FULL = "VolumeFull"
    READ_ONLY = "VolumeReadOnly"
    LOCKED = "Locked"
    SCHEMA_NEWER = "SchemaNewer"
    MIGRATION_FAILED = "MigrationFailed"
    CONFIG_INVALID = "ConfigInvalid"
    UNAVAILABLE = "DatabaseUnavailable"
    TOO_MANY_FILES = "TooManyFiles"
    CLOCK_AHEAD = "ClockAhead"


@dataclass(frozen=True, slots=True)
class DataState:
    """What a gateway reports of the tenant's data."""

    reason: DataReason
    message: str
    """Cause and remedy, without a secret."""
    can_serve: bool = False
    """Whether requests can be counted, so served. Also while the half of a key is lost that only a start needs."""
    remedy: str = ""
    """The remedy in the message, as a value of `remedies.Remedy`; empty: the message is all that is known."""
    values: dict[str, str] = field(default_factory=dict)
    """The values of the remedy's words."""
    consequence: str = ""
    """A sentence after the remedy."""

    @property
    def is_ready(self) -> bool:
        """Whether nothing is wrong."""
        return self.reason is DataReason.READY


class GatewayOutcome(StrEnum):
    """How a request to a gateway ended, in its metrics."""

    ANSWERED = "answered"
    CANCELLED = "cancelled"
    """The client left."""
    SLOW_READER = "slow_reader"
    """The client did not read, and was cut off."""
    REFUSED = "refused"
    """Something is wrong with the request or its credential, or its key was revoked meanwhile."""
    RATE_LIMITED = "rate_limited"
    BUDGET_EXHAUSTED = "budget_exhausted"
    OVERLOADED = "overloaded"
    """A queue was full."""
    UNAVAILABLE = "unavailable"
    """No pod, or the tenant's data could not be used."""
    FAILED = "failed"
    """The pod or the gateway failed."""


GATEWAY_ERRORS: Final = (GatewayOutcome.FAILED, GatewayOutcome.OVERLOADED, GatewayOutcome.UNAVAILABLE)
"""Outcomes that are not the caller's doing: the error rate counts these, against these and the answers."""


class Capability(StrEnum):
    """What a model's engine can do beyond `docs/calling.md`; the values are inputs of its Triton model."""

    MESSAGES = "messages"
    COUNT_ONLY = "count_only"
    RESPONSE_SCHEMA = "response_schema"


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """A revision that a model's pods may serve, so that a pod's report can be compared with it."""

    name: str
    identity: str
    """Digest of the serving identity."""
    engine_digest: str


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model, which is one R1PlusDeployment."""

    name: str
    host: str
    """Headless Service: one DNS address for each pod."""
    context_tokens: int
    batch: int
    """Requests that run at once in each pod; more wait in the gateway."""
    grpc_port: int = names.PORT_GRPC
    monitor_port: int = names.PORT_MONITOR
    max_new_tokens: int = inference.DEFAULT_MAX_NEW_TOKENS
    """For a request that sets none."""
    capabilities: tuple[Capability, ...] = ()
    namespaces: tuple[str, ...] = ()
    """Whose ServiceAccounts may call it, besides those of the tenant's own namespace."""
    measured_presets: tuple[str, ...] = ()
    """Presets for which a suite has run."""
    revisions: tuple[RevisionFacts, ...] = ()
    created_at: int = 0
    """Seconds since the epoch."""
    addresses: tuple[str, ...] | None = None
    """IP addresses of its ready pods, where no name service has them; None: `host` is resolved."""
    grpc_socket: str = ""
    """Unix socket of its one pod's gRPC, where it has no port, seen from the gateway's working directory."""

    def can(self, capability: Capability) -> bool:
        """Return whether the engine has this capability."""
        return capability in self.capabilities


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """What one client may cost the gateway."""

    body_bytes: int = 2 * 1024 * 1024
    bodies_bytes: int = 64 * 1024 * 1024
    """Of all bodies that are read at one time."""
    body_seconds: float = 30.0
    """Longest time for a client to send a body."""
    idle_seconds: float = 75.0
    """Longest time for a client to send the headers of a request, its first one or the next."""
    queue_per_key: int = 32
    queue_per_tenant: int = 512
    retry_after_seconds: int = 2
    """Sent with 503 when a queue is full or no pod is ready."""
    slow_reader_seconds: float = 30.0
    slow_reader_bytes: int = 1024 * 1024
    heartbeat_seconds: float = 10.0
    content_bytes_per_key: int = 64 * 1024 * 1024
    """Of stored conversations and responses, encrypted."""
    content_bytes_per_tenant: int = 512 * 1024 * 1024
    """Of all stored content. At most half of the volume: a full one stops the ledger, so all requests."""
    knowledge_bytes_per_key: int = 256 * 1024 * 1024
    """Of files and vector stores, encrypted."""
    chunks_per_tenant: int = 100_000
    """Of all vector stores."""
    chunks_per_key: int = 50_000
    """Of one key's vector stores, with those of its end users, while no other key has any: else this part of what the
    others leave."""
    file_bytes: int = 32 * 1024 * 1024
    """Of one uploaded file."""
    index_bytes: int = 320 * 1024 * 1024
    """Of memory, for indexes of vector stores; the least recently searched goes first. 100,000 chunks need 240 MiB."""
    queue_seconds: float = 30.0
    """Longest time that a request waits for a slot."""
    silence_seconds: float = 300.0
    """Longest time without a response of the engine; then the request fails."""


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """A certificate and its key, PEM, mounted from a Secret; read again when they change."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """How tokens of ServiceAccounts are verified. Without an issuer none is accepted."""

    issuer: str = ""
    """The cluster's: `iss` of its tokens."""
    jwks: str = f"{DIR_SETTINGS}/{JWKS_FILE}"
    """The cluster's public keys, beside the settings."""
    namespaces: tuple[str, ...] = ()
    """Whose ServiceAccounts may call, besides those of the tenant's own namespace."""
    not_before: int = 0
    """When the tenant's namespace was created, in seconds since the epoch. Older tokens of its accounts are of a
    namespace of the same name that was deleted: another tenant's."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where the tenant's data are: keys, budgets, usage and audit log. Read once, at the start."""

    tenant_uid: str = ""
    """UID of the tenant's namespace: data of another one are refused."""
    folder: str = DIR_STORE
    """The volume, with half of the tenant key. Empty: none, with PostgreSQL."""
    secret_folder: str = DIR_KEY
    """Where the Secret with the other half is mounted."""
    database_url_file: str = ""
    """File with the URL of the tenant's PostgreSQL database. Empty: encrypted SQLite on the volume."""
    audit_days: int = 400
    """How long records of the audit log are kept."""
    content_days: int = 0
    """How long conversations and responses are kept after their last use. 0: none is stored."""
    has_knowledge: bool = False
    """Whether callers may upload files and make vector stores."""


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """The engine of the embedder beside the gateway, which is one R1PlusEngine of kind embedding."""

    name: str
    """Callers name it as a model."""
    sha256: str
    """Digest of its files."""
    dimensions: int
    most_tokens: int
    """Tokens of the longest text that it reads whole."""
    created_at: int = 0
    """Seconds since the epoch."""

    @property
    def identity(self) -> str:
        """NAME@sha256:DIGEST, as the embedder names it."""
        return f"{self.name}@sha256:{self.sha256}"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """All settings of one gateway."""

    namespace: str
    """The tenant's."""
    tokens: TokenSettings = TokenSettings()
    data: DataSettings = DataSettings()
    models: tuple[ModelSettings, ...] = ()
    limits: GatewayLimits = GatewayLimits()
    tls: TlsPaths | None = None
    host: str = "0.0.0.0"
    port: int = PORT_API
    internal_port: int = PORT_INTERNAL
    """Metrics and probes, without TLS and keys: for Prometheus and the kubelet."""
    drain_seconds: float = 60.0
    """Longest time for running answers to end after SIGTERM."""
    embedding: EmbeddingSettings | None = None
    """None: this gateway has no embedder."""
    internal_host: str = ""
    """Address of the internal port; empty: `host`."""
    hosts: tuple[str, ...] = ()
    """Names and addresses, without a port, by which browsers and programs may call: requests with another `Host` or
    `Origin` are refused. Empty: any, since network policies say who may call."""

    def document(self) -> dict[str, Any]:
        """Return what `gateway.json` has. A gateway of an older release refuses fields that it does not know."""
        document: dict[str, Any] = to_jsonable(self)
        for name, unset in (("embedding", None), ("internalHost", ""), ("hosts", [])):
            if document[name] == unset:
                del document[name]
        for model in document["models"]:
            for name, unset in (("addresses", None), ("grpcSocket", "")):
                if model[name] == unset:
                    del model[name]
        return document
