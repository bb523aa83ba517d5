"""R1PlusTenant: what the platform team allows a tenant, the one object `tenant` of its namespace.

Like `types` the single source of the CRD, its defaults and its validation. References have no namespace: a service
account is of this one.
"""

import ipaddress
import re
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from r1plus_model_repo.catalog.types import Cores, EngineName, Quantity
from r1plus_model_repo.catalog.wire import (
    DNS_SUBDOMAIN,
    WHOLE,
    ApiModel,
    JsonInteger,
    Rule,
    build_rules_config,
    drop_nulls,
)
from r1plus_operator.api.types import (
    NOT_OBSERVED,
    TIME,
    Condition,
    Count,
    DnsLabel,
    Flag,
    LabelKey,
    LabelValue,
    ObservedGeneration,
    Toleration,
)

CIDR = r"^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-f:]{2,39})/(0|[1-9][0-9]{0,2})$"
SUBJECT_NAME = r"^[^\x00-\x20\x7f]+$"
NEVER_OPENED = (
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fe80::/10",
    "fd00:ec2::/32",  # AWS
    "fd20:ce::254/128",  # Google
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure
)
"""A node's own addresses, and those at which clouds issue credentials: no egress rule allows them."""
Port = Annotated[int, Field(ge=1, le=65535), WHOLE]
User = Annotated[int, Field(ge=1000, le=2147483631), WHOLE]
"""Of a pod's processes; some numbers above it are left for a gateway's helpers."""
SecretName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]


class SubjectKind(StrEnum):
    """As in a RoleBinding."""

    USER = "User"
    GROUP = "Group"
    SERVICE_ACCOUNT = "ServiceAccount"


_NOT_RESERVED = Rule(
    "!self.name.startsWith('system:')",
    "name must not start with system:, which is reserved for Kubernetes: system:authenticated is everybody",
)
_OF_THIS_NAMESPACE = Rule(
    "self.kind != 'ServiceAccount' || self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    "name of a ServiceAccount must be one of this namespace, without a namespace in front",
)


class Subject(ApiModel):
    """A person, a group or a service account of this namespace."""

    model_config = build_rules_config(_NOT_RESERVED, _OF_THIS_NAMESPACE)

    kind: SubjectKind = Field(description="User, Group or ServiceAccount.")
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=SUBJECT_NAME)] = Field(
        description="As the API server's authenticator says it; a ServiceAccount is one of this namespace."
    )

    @model_validator(mode="after")
    def _check_name(self) -> "Subject":
        if self.name.startswith("system:"):
            raise ValueError(f"{_NOT_RESERVED.message}: {self.name}")
        if self.kind is SubjectKind.SERVICE_ACCOUNT and not re.match(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z", self.name):
            raise ValueError(f"{_OF_THIS_NAMESPACE.message}: {self.name}")
        return self


class Callers(ApiModel):
    """Callers of this tenant's models, in addition to its own pods."""

    namespaces: tuple[DnsLabel, ...] = Field(
        (), max_length=64, description="Namespaces that a deployment of this tenant may name in spec.access.namespaces."
    )


_ONE_WAY = Rule("has(self.cidr) != has(self.namespace)", "exactly one of cidr and namespace is needed")
_A_NETWORK = Rule("!has(self.cidr) || isCIDR(self.cidr)", "cidr must be a network, e.g. 10.20.0.0/16")
_NOT_ONES_OWN = Rule(
    "!has(self.cidr) || !isCIDR(self.cidr) || ["
    + ", ".join(f"'{net}'" for net in NEVER_OPENED)
    + "].all(net, !cidr(net).containsCIDR(self.cidr))",
    "cidr must not be a loopback, link-local or metadata address, where credentials are given out",
)


class Egress(ApiModel):
    """One destination for the tenant's own pods. Pods that serve models may not connect to it."""

    model_config = build_rules_config(_ONE_WAY, _A_NETWORK, _NOT_ONES_OWN)

    cidr: Annotated[str, Field(max_length=43, pattern=CIDR)] | None = Field(
        None,
        description="A network. Loopback, link-local and node addresses in it stay blocked.",
    )
    namespace: DnsLabel | None = Field(None, description="All pods of another namespace.")
    ports: tuple[Port, ...] = Field(min_length=1, max_length=16, description="TCP ports.")

    @model_validator(mode="after")
    def _check_destination(self) -> "Egress":
        if (self.cidr is None) == (self.namespace is None):
            raise ValueError(_ONE_WAY.message)
        if self.cidr is None:
            return self
        try:
            network = ipaddress.ip_network(self.cidr, strict=False)
            ipv4_address = getattr(ipaddress.ip_interface(self.cidr).ip, "ipv4_mapped", None)
        except ValueError as error:
            raise ValueError(f"{_A_NETWORK.message}: {self.cidr}") from error
        if ipv4_address is not None:
            raise ValueError(f"{_A_NETWORK.message}, and {ipv4_address} is written as such: {self.cidr}")
        if any(is_within(network, ipaddress.ip_network(net)) for net in NEVER_OPENED):
            raise ValueError(f"{_NOT_ONES_OWN.message}: {self.cidr}")
        return self


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_within(inner: Network, outer: Network) -> bool:
    """Return whether one network lies in another; False for two address families."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
"""Labels and taints of nodes that run the control plane, where no tenant's pods are placed."""
_OF_ONE_TAINT = Rule(
    "!has(self.tolerations) || self.tolerations.all(one, has(one.key) && !(one.key in ["
    + ", ".join(f"'{key}'" for key in CONTROL_PLANE)
    + "]))",
    "tolerations need a key, and not that of the control plane's nodes: no tenant's pods run there",
)
NodeSelector = Annotated[dict[LabelKey, LabelValue], Field(min_length=1, max_length=8), BeforeValidator(drop_nulls)]


class TenantPlacement(ApiModel):
    """On which nodes the tenant's models may run."""

    model_config = build_rules_config(_OF_ONE_TAINT)

    node_selectors: tuple[NodeSelector, ...] = Field(
        (),
        max_length=8,
        description=(
            "A deployment's spec.placement.nodeSelector must hold all labels of one of these, and may hold more. With"
            " one, all models of the tenant stay on its nodes. Empty: any but the control plane's."
        ),
    )
    tolerations: tuple[Toleration, ...] = Field(
        (), max_length=32, description="Tolerations that a deployment may have; nvidia.com/gpu is always allowed."
    )

    @model_validator(mode="after")
    def _check_tolerations(self) -> "TenantPlacement":
        for one in self.tolerations:
            if one.key is None or one.key in CONTROL_PLANE:
                raise ValueError(f"{_OF_ONE_TAINT.message}: {one.key}")
        return self


class Quota(ApiModel):
    """How much the tenant may have.

    What is absent is not limited, but for ConfigMaps, NetworkPolicies, Services and Secrets.
    """

    deployments: Count | None = Field(None, description="R1PlusDeployments.")
    pods: Count | None = Field(None, description="Pods, of models and of the tenant's own.")
    cpu: Cores | None = Field(None, description="CPU that all pods together request, e.g. `16`.")
    memory: Quantity | None = Field(None, description="Memory that all pods together request, e.g. `64Gi`.")
    gpus: Count | None = Field(None, description="GPUs (nvidia.com/gpu).")
    storage: Quantity | None = Field(None, description="Storage that all claims together request.")
    ephemeral_storage: Quantity | None = Field(
        None, description="Node disk that all pods together request; a pod without a request is not counted."
    )
    config_maps: Count = Field(
        500,
        description="ConfigMaps: golden suites, which the operator watches, the tenant's own and the operator's, some"
        " ten for each deployment.",
    )
    network_policies: Count | None = Field(
        None,
        description="NetworkPolicies: nodes write them all before a new pod has any. Some five are the operator's, and"
        " one for each deployment. Default: 100, or 60 more than `deployments`.",
    )
    services: Count | None = Field(
        None,
        description="Services: nodes write them all before a new one leads anywhere. One is the operator's, and two for"
        " each deployment. Default: 100, or 60 more than `deployments` need.",
    )
    secrets: Count = Field(
        100,
        description="Secrets, each of up to 1 MiB of etcd: the tenant's own. The operator makes none.",
    )


class GatewaySource(ApiModel):
    """Who may connect to the gateway, in addition to the tenant's own pods."""

    model_config = build_rules_config(_ONE_WAY, _A_NETWORK)

    cidr: Annotated[str, Field(max_length=43, pattern=CIDR)] | None = Field(None, description="A network.")
    namespace: DnsLabel | None = Field(
        None, description="All pods of another namespace, e.g. that of an Ingress controller."
    )

    @model_validator(mode="after")
    def _leads_somewhere(self) -> "GatewaySource":
        if (self.cidr is None) == (self.namespace is None):
            raise ValueError(_ONE_WAY.message)
        try:
            address = ipaddress.ip_interface(self.cidr).ip if self.cidr else None
        except ValueError as error:
            raise ValueError(f"{_A_NETWORK.message}: {self.cidr}") from error
        if mapped := getattr(address, "ipv4_mapped", None):
            raise ValueError(f"{_A_NETWORK.message}, and {mapped} is written as such: {self.cidr}")
        return self


class GatewayTls(ApiModel):
    """The gateway's certificate."""

    secret_name: SecretName = Field(
        description="Secret of this namespace with `tls.crt` and `tls.key`; the gateway reads it again when it changes."
    )


class GatewayDatabase(ApiModel):
    """PostgreSQL for the tenant's data, instead of a volume."""

    secret_name: SecretName = Field(
        description="Secret of this namespace whose key `url` is postgresql://USER:PASSWORD@HOST/DATABASE."
    )
    egress: Egress = Field(description="Where PostgreSQL is: only the gateway may connect to it.")


class GatewayCaps(ApiModel):
    """What one client may cost the gateway."""

    body_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024), WHOLE] = Field(
        2 * 1024 * 1024,
        description="Largest body of a request; at most a fourth of what the gateway holds of all bodies.",
    )
    queue_per_key: Annotated[int, Field(ge=1, le=10_000), WHOLE] = Field(
        32, description="Requests of one key that wait for a model; more are refused with 503."
    )
    queue_per_tenant: Annotated[int, Field(ge=1, le=100_000), WHOLE] = Field(
        512, description="Requests of all keys together that wait; more are refused with 503."
    )
    queue_seconds: Annotated[int, Field(ge=1, le=3600), WHOLE] = Field(
        30, description="Longest time that a request waits for a slot; then it is refused with 503 and Retry-After."
    )
    silence_seconds: Annotated[int, Field(ge=1, le=3600), WHOLE] = Field(
        300, description="Longest time without a response of the engine; then the request fails."
    )
    chunks_per_key: Annotated[int, Field(ge=1, le=100_000), WHOLE] = Field(
        50_000,
        description=(
            "Chunks of documents that one key may have with all its end users, of the tenant's 100,000, while no other"
            " key has any; else the same part of what the others leave, so that keys never take all. 100000 lets a"
            " single key have all, and sets no share."
        ),
    )


_REPLICAS_SHARE = Rule(
    "has(self.replicas) && self.replicas > 1 ? has(self.database) : true",
    "replicas: more than 1 need database, since a volume has one writer; set database.secretName, or replicas: 1",
)


_CODE_NEEDS_CALCULATOR = Rule(
    "has(self.codeInterpreter) && self.codeInterpreter ? has(self.calculator) && self.calculator : true",
    "codeInterpreter: the calculator runs the code, and there is none; set calculator: true, or codeInterpreter: false",
)


class GatewayEmbedding(ApiModel):
    """An embedder in the gateway's pods, in a container of its own."""

    engine: EngineName = Field(
        description="R1PlusEngine of kind embedding, e.g. `all-minilm-l6-v2`, which the chart brings."
    )


class Gateway(ApiModel):
    """The tenant's HTTP entry to its models. Nothing of it exists unless `enabled` is true."""

    model_config = build_rules_config(_REPLICAS_SHARE, _CODE_NEEDS_CALCULATOR)

    enabled: Flag = Field(
        False, description="Whether there is one. Switched off, its volume and its Secrets stay, and all else goes."
    )
    replicas: Annotated[JsonInteger, Field(ge=1, le=5)] = Field(
        1, description="Pods of the gateway; more than one need `database`."
    )
    direct_access: Flag = Field(
        True,
        description=(
            "Whether others than the gateway may call the models, as `spec.access` of each allows. False closes that as"
            " soon as the gateway is ready, and keeps it closed."
        ),
    )
    from_: tuple[GatewaySource, ...] = Field(
        (),
        alias="from",
        max_length=32,
        description="Who may connect, in addition to this namespace's pods: Ingress controllers, namespaces, networks.",
    )
    tls: GatewayTls | None = Field(None, description="Serve TLS with this certificate. Default: plain HTTP.")
    limits: GatewayCaps = Field(default_factory=GatewayCaps, description="What one client may cost the gateway.")
    database: GatewayDatabase | None = Field(
        None, description="PostgreSQL for keys, usage and audit log. Default: an encrypted file on a volume."
    )
    calculator: Flag = Field(
        False,
        description=(
            "Whether a calculator runs in the gateway's pods, in a container of its own, for `math_mode` and"
            " `POST /v1/calculate`. It requests 50m CPU and 128Mi memory. A change restarts the gateway."
        ),
    )
    code_interpreter: Flag = Field(
        False,
        description=(
            "Whether the calculator also runs Python code that a model writes, for the tool `code_interpreter` of"
            " `POST /v1/responses`: each program in a process without files and network. It needs `calculator`. A"
            " change restarts the gateway."
        ),
    )
    knowledge: Flag = Field(
        False,
        description=(
            "Whether callers may keep documents, for `/v1/files`, `/v1/vector_stores` and `file_search`. A container of"
            " its own reads them; it requests 50m CPU and 128Mi memory, and the gateway may use 1Gi. False deletes"
            " nothing that is stored. A change restarts the gateway."
        ),
    )
    embedding: GatewayEmbedding | None = Field(
        None,
        description=(
            "Vectors of texts, for `POST /v1/embeddings`. Default: none. A change restarts the gateway, and vectors of"
            " one engine are not comparable with those of another."
        ),
    )

    @model_validator(mode="after")
    def _have_a_calculator(self) -> "Gateway":
        if self.code_interpreter and not self.calculator:
            raise ValueError(_CODE_NEEDS_CALCULATOR.message)
        return self

    @model_validator(mode="after")
    def _share_a_database(self) -> "Gateway":
        if self.replicas > 1 and self.database is None:
            raise ValueError(_REPLICAS_SHARE.message)
        return self


class DeletionPolicy(StrEnum):
    """What happens to the gateway's volume when the R1PlusTenant is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class TenantData(ApiModel):
    """What the tenant's gateway stores of what callers and models say."""

    retention_days: Annotated[int, Field(ge=1, le=3650), WHOLE] | None = Field(
        None,
        description=(
            "How long conversations and responses are kept after their last use, each end user's under a key of its"
            " own. Absent: none is stored; what is stored already goes as the value before said."
        ),
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description=(
            "What happens to the gateway's volume, with keys, usage and content, when the R1PlusTenant is deleted."
            " Retain: it stays until the namespace is deleted. Delete: it goes first. A database of your own stays."
        ),
    )


class R1PlusTenantSpec(ApiModel):
    """Everything is optional. By default there are no callers from outside, no egress and no administrators."""

    admins: tuple[Subject, ...] = Field(
        (),
        max_length=32,
        description="Who makes, changes and deletes its deployments and suites (ClusterRole r1plus-tenant-admin).",
    )
    viewers: tuple[Subject, ...] = Field(
        (), max_length=32, description="Who reads them (ClusterRole r1plus-tenant-viewer)."
    )
    callers: Callers = Field(default_factory=Callers, description="Who may call the models; this tenant's pods may.")
    egress: tuple[Egress, ...] = Field(
        (), max_length=32, description="Where the tenant's own pods may connect, in addition to its models and DNS."
    )
    quota: Quota = Field(default_factory=Quota, description="How much the tenant may have.")
    placement: TenantPlacement = Field(
        default_factory=TenantPlacement, description="On which nodes the tenant's models may run."
    )
    run_as_user: User | None = Field(
        None,
        description=(
            "User of the tenant's pods instead of the chart's podSecurity.runAsUser; the gateway's helpers take the"
            " three that follow. Give tenants numbers of their own, four apart: the kernel counts limits such as"
            " inotify, epoll and pipes by user, so pods of one user can use up those of others on their node. Set it"
            " with the tenant: what already serves keeps its user until its next revision, and a gateway's volume must"
            " let its group in."
        ),
    )
    gateway: Gateway = Field(default_factory=Gateway, description="The tenant's HTTP entry to its models.")
    data: TenantData = Field(
        default_factory=TenantData, description="What the gateway stores of what callers and models say."
    )


class Isolation(ApiModel):
    """Result of the newest isolation test."""

    deployment: Annotated[str, Field(max_length=63)] = Field("", description="Deployment whose policies were tested.")
    finished: Annotated[str, Field(max_length=20, pattern=TIME)] = Field(description="When it ended.")
    tries: Count = Field(0, description="Forbidden connections and API requests that were tried.")
    held: Count = Field(0, description="Blocked, while the control succeeded: proven.")
    open: tuple[Annotated[str, Field(max_length=128)], ...] = Field(
        (), max_length=64, description="What was not blocked."
    )
    unseen: tuple[Annotated[str, Field(max_length=128)], ...] = Field(
        (), max_length=64, description="Blocked, but the control failed as well: not proven."
    )
    late: Count = Field(
        0,
        description="Longest time in ms for which a new pod could connect, before its network policies applied.",
    )


class R1PlusTenantStatus(ApiModel):
    """Derived from the cluster in every pass; never read back as truth."""

    observed_generation: ObservedGeneration = Field(
        NOT_OBSERVED, description="The generation last acted on; -1: none yet, so that GitOps tools wait."
    )
    isolation: Isolation | None = Field(None, description="The newest isolation test.")
    conditions: tuple[Condition, ...] = Field(
        (), max_length=16, description="What holds and what does not, why, and what to do."
    )

    @model_validator(mode="after")
    def _check_condition_types(self) -> "R1PlusTenantStatus":
        """`x-kubernetes-list-type: map`, keyed by type."""
        types = [condition.type for condition in self.conditions]
        if len(types) != len(set(types)):
            raise ValueError("conditions: one type twice")
        return self
