"""The operator's settings, from the environment that the chart writes. Read once, by main."""

import contextlib
import ipaddress
import json
import math
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from r1plus_contract.settings import SUITE_FILE
from r1plus_contract.suite_files import MAX_BYTES, PUBLIC_KEY_BYTES, SuiteFiles, decode_base64
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.engine_fetch.download import create_tls_context
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.signature import load_public_key
from r1plus_operator.observe.suite_projection import read_suite_source
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.engine.feasibility import SERVABLE
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import (
    AccessMode,
    AlertTerms,
    DnsPods,
    DnsTerms,
    GpuRuntime,
    IsolationTerms,
    OperatorConfig,
    PodUser,
    ProxyTerms,
    RuntimeUpdate,
    SuiteTrust,
    VolumeTerms,
)
from r1plus_operator.runtime.lease import LeaseTerms
from r1plus_policies.rollback.response import BAKE_SECONDS, COOLDOWN_SECONDS

T = TypeVar("T")
_PROXY_URL = re.compile(r"http://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[1-9][0-9]{0,4}")


class ConfigError(Exception):
    """A setting is absent or unreadable; names the variable and the chart value behind it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything main needs."""

    operator: OperatorConfig
    catalog: tuple[Engine, ...]
    suites: Mapping[str, SuiteSource]
    verdict_interval: float
    workers: int
    health_port: int
    registry_url: str
    """Where facts are delivered to; empty: nowhere."""
    registry_token: Path
    """File with the service account's token for the registry."""
    identity: str
    """This pod among all that ever were; the Lease names it."""
    lease_seconds: float
    """How long the Lease outlasts the last sign of its holder."""


def from_environment(env: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings; raises ConfigError."""
    secrets = tuple(name for name in env.get("R1PLUS_IMAGE_PULL_SECRETS", "").split(",") if name)
    operator = OperatorConfig(
        monitor_image=_required(env, "R1PLUS_MONITOR_IMAGE", "images.monitor"),
        triton_image=_required(env, "R1PLUS_TRITON_IMAGE", "images.triton"),
        gpu_runtimes=_gpu_runtimes(env.get("R1PLUS_GPU_RUNTIMES", "")),
        default_family=env.get("R1PLUS_DEFAULT_FAMILY", "r1plus"),
        operator_namespace=_required(env, "R1PLUS_OPERATOR_NAMESPACE", "the pod's own namespace"),
        monitoring_namespace=env.get("R1PLUS_MONITORING_NAMESPACE", "monitoring"),
        scrape_interval=env.get("R1PLUS_SCRAPE_INTERVAL", "15s"),
        prometheus_url=env.get("R1PLUS_PROMETHEUS_URL", ""),
        has_registry=bool(env.get("R1PLUS_REGISTRY_URL")),
        gateway_image=env.get("R1PLUS_GATEWAY_IMAGE", ""),
        image_pull_secrets=secrets,
        suite_trust=_suite_trust(env),
        volumes=_volume_terms(env),
        bake_seconds=float(env.get("R1PLUS_BAKE_SECONDS", BAKE_SECONDS)),
        cooldown_seconds=float(env.get("R1PLUS_COOLDOWN_SECONDS", COOLDOWN_SECONDS)),
        isolation=_isolation_terms(env),
        alerts=_alert_terms(env.get("R1PLUS_ALERTS", "")),
        dns=_dns_terms(env.get("R1PLUS_DNS", "")),
        pod_user=_pod_user(env.get("R1PLUS_POD_USER", "")),
        runtime_update=_runtime_update(env.get("R1PLUS_RUNTIME_UPDATE", RuntimeUpdate.MANUAL.value)),
        max_concurrent=int(env.get("R1PLUS_MAX_CONCURRENT", "2")),
        vulnerable_images=frozenset(_listed(env, "R1PLUS_VULNERABLE_IMAGES")),
    )
    _check_decoy(operator)
    return Settings(
        operator=operator,
        catalog=load_catalog(Path(_required(env, "R1PLUS_CATALOG_DIR", "catalog"))),
        suites=shipped_suites(Path(_required(env, "R1PLUS_SUITES_DIR", "suites"))),
        verdict_interval=float(env.get("R1PLUS_VERDICT_INTERVAL_SECONDS", "10")),
        workers=int(env.get("R1PLUS_WORKERS", "16")),
        health_port=int(env.get("R1PLUS_HEALTH_PORT", "8080")),
        registry_url=env.get("R1PLUS_REGISTRY_URL", ""),
        registry_token=Path(env.get("R1PLUS_REGISTRY_TOKEN_FILE", "/var/run/secrets/r1plus.ai/registry/token")),
        identity=_identity(env),
        lease_seconds=float(env.get("R1PLUS_LEASE_SECONDS", LeaseTerms().duration)),
    )


def shipped_suites(folder: Path) -> dict[str, SuiteSource]:
    """The golden suites below `folder`, one sub-folder each."""
    found = {}
    for header in sorted(folder.glob(f"*/{SUITE_FILE}")):
        name = header.parent.name
        found[name] = read_suite_source(name, read_suite_folder(header.parent))
    return found


def read_suite_folder(folder: Path) -> SuiteFiles:
    """The files of a suite as they lie in a folder; of one that is too large, no more than shows that it is."""
    texts = {}
    for name, limit in MAX_BYTES.items():
        path = folder / name
        if path.exists():
            with path.open("rb") as file:
                texts[name] = file.read(limit + 1).decode("utf-8", errors="replace")
    return SuiteFiles.of(texts)


def _gpu_runtimes(text: str) -> dict[str, GpuRuntime]:
    """Backend -> image and version, as the chart's images.gpu has them."""
    try:
        given = json.loads(text or "{}")
        found = {str(backend): GpuRuntime(str(one["image"]), str(one["version"])) for backend, one in given.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"R1PLUS_GPU_RUNTIMES: {text!r:.120}: {error!r}; the chart sets it from images.gpu, which names image and"
            " version by backend"
        ) from error
    if unknown := sorted(set(found) - {backend.value for backend in SERVABLE}):
        known = " and ".join(sorted(backend.value for backend in SERVABLE))
        raise ConfigError(f"R1PLUS_GPU_RUNTIMES: {unknown[0]!r:.60}: images.gpu is for {known}")
    return found


def _dns_terms(text: str) -> DnsTerms:
    """As the chart's networkPolicy.dns has them. An empty list of peers would let out to all addresses."""

    def read(given: Any) -> DnsTerms:
        pods = tuple(DnsPods(str(one["namespace"]), dict(one["labels"])) for one in given["pods"])
        terms = DnsTerms(pods, tuple(str(ipaddress.ip_network(cidr)) for cidr in given["cidrs"]))
        if not pods and not terms.cidrs:
            raise ValueError("neither pods nor cidrs are named")
        return terms

    source = "networkPolicy.dns, which has pods (namespace and labels) and cidrs"
    return _read_json("R1PLUS_DNS", text, read, source) or DnsTerms()


def _pod_user(text: str) -> PodUser:
    """As the chart's podSecurity has it, where a null or what is absent is left to the cluster."""

    def read(given: Any) -> PodUser:
        ids = [given.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")]
        return PodUser(*(None if found is None else int(found) for found in ids))

    source = "podSecurity, which has runAsUser, runAsGroup and fsGroup"
    return _read_json("R1PLUS_POD_USER", text, read, source) or PodUser()


def _alert_terms(text: str) -> AlertTerms:
    """As the chart's monitoring.alerts has them."""

    def read(given: Any) -> AlertTerms:
        labels, severities = (
            {str(key): str(value) for key, value in given[name].items()} for name in ("labels", "severities")
        )
        return AlertTerms(str(given["runbookURL"]), labels, severities)

    source = "monitoring.alerts, which has runbookURL, labels and severities"
    return _read_json("R1PLUS_ALERTS", text, read, source) or AlertTerms()


def _read_json(variable: str, text: str, read: Callable[[Any], T], source: str) -> T | None:
    """Read a variable of JSON; None where it is empty. `source`: the chart's value behind it, and what that has.

    Raises ConfigError with variable, value, cause and source.
    """
    if not text:
        return None
    try:
        return read(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{variable}: {text!r:.120}: {error!r}; the chart sets it from {source}") from error


def _suite_trust(env: Mapping[str, str]) -> SuiteTrust:
    keys = frozenset(key for key in env.get("R1PLUS_SUITE_KEYS", "").split(",") if key)
    for key in sorted(keys):
        if decode_base64(key, PUBLIC_KEY_BYTES) is None:
            raise ConfigError(
                f"R1PLUS_SUITE_KEYS: {key!r:.60} is no Ed25519 public key in base64; the chart sets it from "
                "suites.trustedKeys, and `r1plus suite keygen` prints such a key"
            )
    # Anything but the word `false` asks for signatures: a misspelt value must not let everybody in.
    required = env.get("R1PLUS_SUITES_REQUIRE_SIGNATURE", "true") != "false"
    return SuiteTrust(required, keys, frozenset(SHIPPED_SUITES.values()))


def _isolation_terms(env: Mapping[str, str]) -> IsolationTerms:
    """A word in them that means nothing would be refused as a wall of every tenant, in every pass."""
    beside = {"prometheus": env.get("R1PLUS_PROMETHEUS_URL", ""), "registry": env.get("R1PLUS_REGISTRY_URL", "")}
    return IsolationTerms(
        decoy_namespace=env.get("R1PLUS_DECOY_NAMESPACE", ""),
        interval=_interval(env.get("R1PLUS_PROBE_SECONDS") or "3600"),
        api_ports=tuple(map(_port, _listed(env, "R1PLUS_API_SERVER_PORTS"))) or IsolationTerms().api_ports,
        api_cidrs=_networks(
            _listed(env, "R1PLUS_API_SERVER_CIDRS"), "R1PLUS_API_SERVER_CIDRS", "networkPolicy.apiServerCIDRs"
        ),
        other_targets={name: url for name, url in beside.items() if url},
        reserved_namespaces=tuple(_listed(env, "R1PLUS_RESERVED_NAMESPACES")),
    )


def _check_decoy(operator: OperatorConfig) -> None:
    decoy = operator.isolation.decoy_namespace
    if decoy and operator.is_reserved(decoy):
        raise ConfigError(
            f"R1PLUS_DECOY_NAMESPACE: {decoy} is Kubernetes', the operator's or monitoring's own and never a tenant;"
            " the chart sets it from isolation.decoyNamespace"
        )


def _listed(env: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in env.get(name, "").split(",") if word.strip()]


def _runtime_update(text: str) -> RuntimeUpdate:
    if text not in set(RuntimeUpdate):
        raise ConfigError(
            f"R1PLUS_RUNTIME_UPDATE: {text!r:.60} is neither {' nor '.join(RuntimeUpdate)}; the chart sets it from"
            " runtime.update"
        )
    return RuntimeUpdate(text)


def _interval(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise ConfigError(
        f"R1PLUS_PROBE_SECONDS: {text!r:.60} is no number of seconds above 0; the chart sets it from"
        " isolation.everySeconds, e.g. 3600"
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(
            f"R1PLUS_API_SERVER_PORTS: {text!r:.60} is no port; the chart sets it from networkPolicy.apiServerPorts,"
            " e.g. 443 and 6443"
        )
    return int(text)


def _networks(words: Iterable[str], variable: str, value: str) -> tuple[str, ...]:
    """Read networks. `variable`: where they come from; `value`: the chart's value behind it."""
    found = []
    for word in words:
        try:
            found.append(str(ipaddress.ip_network(word, strict=False)))
        except ValueError as error:
            text = f"{variable}: {word!r:.60} is no network; the chart sets it from {value}, e.g. 10.0.0.1/32"
            raise ConfigError(text) from error
    return tuple(found)


def _volume_terms(env: Mapping[str, str]) -> VolumeTerms:
    mode = env.get("R1PLUS_DELIVERY_ACCESS_MODE", AccessMode.ONE_NODE.value)
    if mode not in set(AccessMode):
        known = " or ".join(AccessMode)
        raise ConfigError(
            f"R1PLUS_DELIVERY_ACCESS_MODE: {mode!r:.60} is neither {known}; the chart sets it from"
            " delivery.volume.accessMode"
        )
    return VolumeTerms(
        storage_class=env.get("R1PLUS_DELIVERY_STORAGE_CLASS", ""),
        access_mode=AccessMode(mode),
        cidrs=tuple(cidr for cidr in env.get("R1PLUS_DELIVERY_CIDRS", "").split(",") if cidr),
        # As with suites: a misspelt value must not let everybody in.
        require_signature=env.get("R1PLUS_DELIVERY_REQUIRE_SIGNATURE", "true") != "false",
        trusted_keys=_public_keys(env.get("R1PLUS_DELIVERY_KEYS", "")),
        ca_pem=_ca_pem(env.get("R1PLUS_DELIVERY_CA", "")),
        proxy=_proxy_terms(env),
    )


def _ca_pem(text: str) -> str:
    """Certificates, PEM. The operator copies them into tenants' namespaces."""
    if "PRIVATE KEY" in text:
        raise ConfigError(
            "R1PLUS_DELIVERY_CA: holds a private key, which every tenant could read; put certificates only into the"
            " chart's delivery.ca"
        )
    if text:
        try:
            create_tls_context(text)
        except FillError as error:
            raise ConfigError(f"R1PLUS_DELIVERY_CA: {error}") from error
    return text


def _proxy_terms(env: Mapping[str, str]) -> ProxyTerms | None:
    """As the chart's delivery.proxy has them; None where it names no proxy."""
    url = env.get("R1PLUS_DELIVERY_PROXY", "")
    if not url:
        return None
    if "@" in url:  # What is wrong is logged, so the address is not shown.
        raise ConfigError(
            "R1PLUS_DELIVERY_PROXY: carries a user or a password, which every tenant could read in its Job's ConfigMap;"
            " let the proxy admit the cluster's addresses without one, and set delivery.proxy.url to http://HOST:PORT"
        )
    if not _PROXY_URL.fullmatch(url) or int(url.rpartition(":")[2]) > 65535:
        raise ConfigError(
            f"R1PLUS_DELIVERY_PROXY: {url!r:.120} is not http://HOST:PORT; the chart sets it from delivery.proxy.url."
            " What passes through the proxy is TLS, whose other end is the archive's server"
        )
    variable = "R1PLUS_DELIVERY_PROXY_CIDRS"
    cidrs = _networks(_listed(env, variable), variable, "delivery.proxy.cidrs")
    if not cidrs:
        raise ConfigError(
            f"{variable}: empty, so that no Job could reach the proxy; the chart sets it from"
            " delivery.proxy.cidrs, e.g. 10.0.9.7/32"
        )
    no_proxy = tuple(_listed(env, "R1PLUS_DELIVERY_NO_PROXY"))
    _networks([entry for entry in no_proxy if "/" in entry], "R1PLUS_DELIVERY_NO_PROXY", "delivery.proxy.noProxy")
    return ProxyTerms(url, cidrs, no_proxy)


def _public_keys(text: str) -> tuple[str, ...]:
    """PEM blocks, one after another."""
    end = "-----END PUBLIC KEY-----"
    keys = tuple(f"{block.strip()}\n{end}\n" for block in text.split(end) if block.strip())
    for key in keys:
        try:
            load_public_key(key)
        except ValueError as error:
            raise ConfigError(
                f"R1PLUS_DELIVERY_KEYS: {key.splitlines()[0]!r:.60}: {error}; the chart sets it from"
                " delivery.trustedKeys, and `openssl ec -in signing.pem -pubout` prints such a key"
            ) from error
    return keys


def _identity(env: Mapping[str, str]) -> str:
    """Pod and uid, which outlive the container and tell a namesake apart; outside of a pod, one of this process."""
    return f"{env.get('R1PLUS_POD_NAME') or socket.gethostname()}_{env.get('R1PLUS_POD_UID') or uuid.uuid4()}"


def _required(env: Mapping[str, str], name: str, value: str) -> str:
    if not env.get(name):
        raise ConfigError(f"{name} is not set; the chart sets it from {value}")
    return env[name]
