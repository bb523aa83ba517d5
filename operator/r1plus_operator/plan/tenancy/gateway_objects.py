"""Builders of the tenant's gateway, one pure function per kind. `gateway` decides which of them should exist."""

import hashlib
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import Final

from r1plus_contract import names
from r1plus_contract.gateway import (
    ANNOTATION_DIRECT_ACCESS,
    DATABASE_URL_FILE,
    DIR_DATABASE,
    DIR_KEY,
    DIR_SETTINGS,
    DIR_STORE,
    DIR_TLS,
    ENV_SETTINGS,
    GATEWAY,
    GATEWAY_ADMIN,
    GATEWAY_KEY,
    GATEWAY_SERVICE,
    JWKS_FILE,
    LABEL_GATEWAY,
    PORT_API,
    PORT_INTERNAL,
    PORT_SERVICE,
    PORT_SERVICE_TLS,
    SETTINGS_FILE,
    DataSettings,
    EmbeddingSettings,
    GatewayLimits,
    GatewaySettings,
    ModelSettings,
    TlsPaths,
    TokenSettings,
)
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.isolation import IsolationPart
from r1plus_contract.timestamps import parse_timestamp
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes
from r1plus_operator.api.tenants import Gateway, GatewaySource, R1PlusTenantSpec
from r1plus_operator.plan.manifests.alerts import ENDPOINT_TERMS, GROUP_VERSION, SCRAPE_LIMITS, keep_series
from r1plus_operator.plan.manifests.children import (
    GATEWAY_PODS,
    build_dns_rule,
    build_namespace_peer,
    build_tcp_ports,
)
from r1plus_operator.plan.observation import Json, NamespaceFacts, TokenIssuer
from r1plus_operator.plan.podspec.pod import (
    HOSTNAME,
    LOGS,
    LOGS_LIMIT,
    PLATFORM,
    build_container_security_context,
    build_mount,
    build_pod_security_context,
)
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.gateway_helpers import (
    PRESTOP,
    PRESTOP_SECONDS,
    GatewayHelper,
    build_helper_container,
    build_helper_volumes,
    build_init_containers,
    build_socket_mounts,
    list_gateway_variables,
    select_helpers,
)
from r1plus_operator.plan.tenancy.network_policies import build_egress_rule, build_metadata, build_policy

CONTAINER: Final = "gateway"
ANNOTATION_START: Final = f"{names.GROUP}/gateway-start"
"""On the pods: digest of the settings that a gateway reads only when it starts."""
CLOSED: Final = "closed"
STORE_SIZE: Final = "1Gi"
TMP: Final = "16Mi"
DRAIN_SECONDS, ROLLING_DRAIN_SECONDS = 60, 600
"""Time for running answers to end. With a volume the next gateway waits for it; with a database it runs already."""
EXIT_SECONDS: Final = 25
"""For what follows the drain: cancelled answers end (3 s), their usage is read (5 s) and settled (2 s), the writer
commits (10 s)."""
SECRET_MODE: Final = 0o440
MEMORY: Final = ("192Mi", "512Mi")
KNOWLEDGE_MEMORY: Final = ("256Mi", "1Gi")
"""Request and limit; with knowledge also for indexes, of which there are 320 MiB at most."""
GATEWAY_SERIES: Final = "r1plus_gateway_.+"
"""Names that a gateway may export (`ENGINE_SERIES` says why)."""
SERIES_LIMITS: Final = MappingProxyType({**SCRAPE_LIMITS, "sampleLimit": 20_000, "bodySizeLimit": "4MiB"})
"""Limits of one scrape: a gateway has series for each API key and model."""


def build_settings(
    namespace: NamespaceFacts,
    spec: R1PlusTenantSpec,
    models: tuple[ModelSettings, ...],
    issuer: TokenIssuer,
    engine: EmbeddingEngine | None = None,
) -> GatewaySettings:
    """Return what the gateway reads from `gateway.json`. `engine`: the one that it embeds with."""
    gateway, limits = spec.gateway, spec.gateway.limits
    sources = {source.namespace for source in gateway.from_ if source.namespace is not None}
    database = f"{DIR_DATABASE}/{DATABASE_URL_FILE}" if gateway.database else ""
    return GatewaySettings(
        namespace=namespace.name,
        # Each model names those of them that may call it.
        tokens=TokenSettings(
            issuer.issuer,
            namespaces=tuple(sorted(sources | set(spec.callers.namespaces))),
            not_before=int(parse_timestamp(namespace.created_at)),
        ),
        data=DataSettings(
            namespace.uid,
            folder="" if database else DIR_STORE,
            database_url_file=database,
            content_days=spec.data.retention_days or 0,
            has_knowledge=gateway.knowledge,
        ),
        models=models,
        drain_seconds=float(_select_drain_seconds(gateway)),
        limits=GatewayLimits(
            body_bytes=limits.body_bytes,
            queue_per_key=limits.queue_per_key,
            queue_per_tenant=limits.queue_per_tenant,
            queue_seconds=float(limits.queue_seconds),
            silence_seconds=float(limits.silence_seconds),
            chunks_per_key=limits.chunks_per_key,
        ),
        tls=TlsPaths(f"{DIR_TLS}/tls.crt", f"{DIR_TLS}/tls.key") if gateway.tls else None,
        embedding=_describe_engine(engine) if engine is not None else None,
    )


def _describe_engine(engine: EmbeddingEngine) -> EmbeddingSettings:
    shape = engine.spec.embedding
    return EmbeddingSettings(engine.name, engine.spec.artifact.sha256, shape.dimensions, shape.most_tokens)


def _select_drain_seconds(gateway: Gateway) -> int:
    return ROLLING_DRAIN_SECONDS if gateway.database else DRAIN_SECONDS


def build_service_accounts(namespace: str) -> list[Json]:
    """Return the gateway's account, and the one whose tokens reach its admin API: neither has rights or a token."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _build_metadata(namespace, name),
            "automountServiceAccountToken": False,
        }
        for name in (GATEWAY, GATEWAY_ADMIN)
    ]


def build_config(settings: GatewaySettings, issuer: TokenIssuer) -> Json:
    """Return the ConfigMap: the gateway's settings, and whose tokens it believes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _build_metadata(settings.namespace),
        "data": {SETTINGS_FILE: dumps(settings.document()), JWKS_FILE: issuer.jwks},
    }


def build_claim(namespace: str) -> Json:
    """Return the claim for the tenant's data, of the cluster's default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _build_metadata(namespace),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": STORE_SIZE}}},
    }


def build_network_policy(
    namespace: str, gateway: Gateway, config: OperatorConfig, nodes: Collection[str], *, is_exclusive: bool
) -> Json:
    """Return the gateway's NetworkPolicy.

    In: the tenant's own pods and `from` at the API, Prometheus at the metrics, the operator at the data's state. Out:
    DNS, models and their monitors, PostgreSQL. `nodes`: addresses of nodes, to which no egress leads.
    """
    models = {"podSelector": {"matchExpressions": [{"key": names.LABEL_DEPLOYMENT, "operator": "Exists"}]}}
    egress = [
        build_dns_rule(config.dns),
        {"to": [models], "ports": build_tcp_ports(names.PORT_GRPC, names.PORT_MONITOR)},
    ]
    if gateway.database is not None:
        egress.append(build_egress_rule(gateway.database.egress, nodes))
    clients = [{"podSelector": {}}, *map(_build_source_peer, gateway.from_)]
    platform = [build_namespace_peer(config.monitoring_namespace), build_namespace_peer(config.operator_namespace)]
    ingress = [
        {"from": clients, "ports": build_tcp_ports(PORT_API)},
        {"from": platform, "ports": build_tcp_ports(PORT_INTERNAL)},
    ]
    annotations = {ANNOTATION_DIRECT_ACCESS: CLOSED} if is_exclusive else {}
    return build_policy(_build_metadata(namespace, **annotations), GATEWAY_PODS, ingress, egress)


def _build_source_peer(source: GatewaySource) -> Json:
    if source.namespace is not None:
        return build_namespace_peer(source.namespace)
    return {"ipBlock": {"cidr": source.cidr}}


def build_deployment(
    spec: R1PlusTenantSpec,
    settings: GatewaySettings,
    config: OperatorConfig,
    engine: EmbeddingEngine | None = None,
    *,
    counts_storage: bool,
) -> Json:
    """Return the gateway's Deployment. One pod with a volume is stopped before the next starts, as both write it."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_NAME: GATEWAY, **GATEWAY_PODS["matchLabels"]}
    annotations = {ANNOTATION_START: _hash_start_settings(settings)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _build_metadata(settings.namespace),
        "spec": {
            "replicas": spec.gateway.replicas,
            "revisionHistoryLimit": 1,
            "strategy": rolling if spec.gateway.database else {"type": "Recreate"},
            "selector": GATEWAY_PODS,
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": _build_pod(spec, config, engine, counts_storage=counts_storage),
            },
        },
    }


def _hash_start_settings(settings: GatewaySettings) -> str:
    """Return a digest of what is read only at the start, in 16 hex digits: a change needs new pods."""
    return hashlib.sha256(
        dumps([settings.limits, settings.tls, settings.tokens.issuer, settings.data]).encode()
    ).hexdigest()[:16]


def _build_pod(
    spec: R1PlusTenantSpec, config: OperatorConfig, engine: EmbeddingEngine | None, *, counts_storage: bool
) -> Json:
    placement, helpers = spec.placement, select_helpers(spec.gateway, engine)
    # A tenant with nodes of its own has its prompts on those nodes only.
    selector = placement.node_selectors[0] if placement.node_selectors else {}
    tolerations = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in placement.tolerations]
    pod: Json = {
        "serviceAccountName": GATEWAY,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": PRESTOP_SECONDS + _select_drain_seconds(spec.gateway) + EXIT_SECONDS,
        "securityContext": build_pod_security_context(config.pod_user),
        **({"initContainers": copies} if (copies := build_init_containers(helpers)) else {}),
        "containers": [
            _build_container(spec.gateway, helpers, config, counts_storage=counts_storage),
            *(build_helper_container(helper, config, counts_storage=counts_storage) for helper in helpers),
        ],
        "volumes": [*_build_volumes(spec.gateway), *build_helper_volumes(helpers)],
        "nodeSelector": {**selector, **PLATFORM},
    }
    if tolerations:
        pod["tolerations"] = tolerations
    if spec.gateway.replicas > 1:
        term = {"labelSelector": GATEWAY_PODS, "topologyKey": HOSTNAME}
        preferred = [{"weight": 100, "podAffinityTerm": term}]
        pod["affinity"] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    return pod


def _build_container(
    gateway: Gateway, helpers: Sequence[GatewayHelper], config: OperatorConfig, *, counts_storage: bool
) -> Json:
    """Return the container. It runs the image's own entry point: a policy allows no other program beside Secrets."""
    memory, memory_limit = KNOWLEDGE_MEMORY if gateway.knowledge else MEMORY
    requests, limits = {"cpu": "100m", "memory": memory}, {"memory": memory_limit}
    if counts_storage:
        requests["ephemeral-storage"] = mebibytes(LOGS + bytes_of(TMP))
        limits["ephemeral-storage"] = mebibytes(LOGS_LIMIT + bytes_of(TMP))
    return {
        "name": CONTAINER,
        "image": config.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": ENV_SETTINGS, "value": f"{DIR_SETTINGS}/{SETTINGS_FILE}"},
            *list_gateway_variables(helpers),
        ],
        "ports": [
            {"name": "api", "containerPort": PORT_API, "protocol": "TCP"},
            {"name": "internal", "containerPort": PORT_INTERNAL, "protocol": "TCP"},
        ],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": build_container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": _build_probe("/healthz", periodSeconds=2, failureThreshold=60),
        "livenessProbe": _build_probe("/healthz", periodSeconds=20, timeoutSeconds=10, failureThreshold=3),
        "readinessProbe": _build_probe("/readyz", periodSeconds=3, timeoutSeconds=5),
        "lifecycle": PRESTOP,
        "volumeMounts": [*_build_mounts(gateway), *build_socket_mounts(helpers)],
    }


def _build_probe(path: str, **fields: int) -> Json:
    return {"httpGet": {"path": path, "port": "internal"}, **fields}


def _build_mounts(gateway: Gateway) -> list[Json]:
    return [
        build_mount("settings", DIR_SETTINGS, read_only=True),
        build_mount("key", DIR_KEY, read_only=True),
        *([build_mount("tls", DIR_TLS, read_only=True)] if gateway.tls else []),
        build_mount("database", DIR_DATABASE, read_only=True) if gateway.database else build_mount("store", DIR_STORE),
        build_mount("tmp", "/tmp"),
    ]


def _build_volumes(gateway: Gateway) -> list[Json]:
    return [
        {"name": "settings", "configMap": {"name": GATEWAY}},
        _build_secret_volume("key", GATEWAY_KEY),
        *([_build_secret_volume("tls", gateway.tls.secret_name)] if gateway.tls else []),
        _build_secret_volume("database", gateway.database.secret_name)
        if gateway.database
        else {"name": "store", "persistentVolumeClaim": {"claimName": GATEWAY}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP}},
    ]


def _build_secret_volume(name: str, secret: str) -> Json:
    """Return the volume of a Secret that must exist: a gateway without its keys would start and serve no request."""
    return {"name": name, "secret": {"secretName": secret, "defaultMode": SECRET_MODE}}


def build_service(namespace: str, gateway: Gateway, *, publishes_unready: bool = False) -> Json:
    """Return the Service that applications call; `publishes_unready`: it leads to pods that are not ready as well."""
    name, port = ("https", PORT_SERVICE_TLS) if gateway.tls else ("http", PORT_SERVICE)
    # Written only where it is true: the API server leaves a false one out.
    published: Json = {"publishNotReadyAddresses": True} if publishes_unready else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _build_metadata(namespace, GATEWAY_SERVICE),
        "spec": {
            "type": "ClusterIP",
            "selector": {LABEL_GATEWAY: "true"},
            "ports": [{"name": name, "port": port, "targetPort": "api", "protocol": "TCP"}],
            **published,
        },
    }


def build_disruption_budget(namespace: str) -> Json:
    """Return the PodDisruptionBudget: a drain evicts one pod at a time, and unhealthy pods at once."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _build_metadata(namespace),
        "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": GATEWAY_PODS},
    }


def build_pod_monitor(namespace: str, config: OperatorConfig) -> Json:
    """Return the PodMonitor, which scrapes the internal port."""
    endpoint = {
        "port": "internal",
        "path": "/metrics",
        "interval": config.scrape_interval,
        **ENDPOINT_TERMS,
        "metricRelabelings": [keep_series(GATEWAY_SERIES)],
    }
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PodMonitor",
        "metadata": _build_metadata(namespace),
        "spec": {"selector": GATEWAY_PODS, **SERIES_LIMITS, "podMetricsEndpoints": [endpoint]},
    }


def _build_metadata(namespace: str, name: str = GATEWAY, **annotations: str) -> Json:
    return build_metadata(namespace, name, IsolationPart.GATEWAY, **annotations)
