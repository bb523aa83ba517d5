"""The operator's settings, from the environment variables that the chart sets. Read once, by main."""

import contextlib
import ipaddress
import json
import math
import os
import re
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from r1plus_contract.monitor.settings import SUITE_FILE
from r1plus_contract.suites.suite_files import MAX_BYTES, PUBLIC_KEY_BYTES, SuiteFiles, decode_base64
from r1plus_model_repo.catalog.loader import AnyEngine, load_all_engines
from r1plus_model_repo.engine_fetch.download import create_tls_context
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.sigstore import load_public_key
from r1plus_operator.observe.suite_projection import read_suite_source
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.engine.feasibility import SERVABLE
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import (
    CPU_RUNTIMES,
    AccessMode,
    AlertTerms,
    DnsPods,
    DnsTerms,
    IsolationTerms,
    OperatorConfig,
    PodUser,
    ProxyTerms,
    RuntimeUpdate,
    SuiteTrust,
    TritonRuntime,
    VolumeTerms,
)
from r1plus_operator.runtime.lease import LeaseTerms
from r1plus_policies.rollback.response import BAKE_SECONDS, COOLDOWN_SECONDS

T = TypeVar("T")
_PROXY_URL = re.compile(r"http://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[1-9][0-9]{0,4}")


class OperatorConfigError(Exception):
    """A setting is absent or invalid; the message names the variable and the chart's value behind it."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Everything main needs."""

    operator: OperatorConfig
    catalog: tuple[AnyEngine, ...]
    suites: Mapping[str, SuiteSource]
    verdict_interval: float
    workers: int
    health_port: int
    registry_url: str
    """The registry's address; empty: facts are not delivered."""
    registry_token: Path
    """File with the service account's token for the registry."""
    identity: str
    """Unique name of this pod, which the Lease has as its holder."""
    lease_seconds: float
    """How long the Lease stays valid after its last renewal."""


def load_settings(env: Mapping[str, str] = os.environ) -> OperatorSettings:
    """Read all settings; raise ConfigError if one is absent or invalid."""
    secrets = tuple(name for name in env.get("R1PLUS_IMAGE_PULL_SECRETS", "").split(",") if name)
    operator = OperatorConfig(
        monitor_image=_read_required(env, "R1PLUS_MONITOR_IMAGE", "images.monitor"),
        triton_image=_read_required(env, "R1PLUS_TRITON_IMAGE", "images.triton"),
        gpu_runtimes=_read_runtimes(env, "R1PLUS_GPU_RUNTIMES", "images.gpu", {backend.value for backend in SERVABLE}),
        cpu_runtimes=_read_runtimes(env, "R1PLUS_CPU_RUNTIMES", "images.cpu", CPU_RUNTIMES),
        default_family=env.get("R1PLUS_DEFAULT_FAMILY", "r1plus"),
        operator_namespace=_read_required(env, "R1PLUS_OPERATOR_NAMESPACE", "the pod's own namespace"),
        monitoring_namespace=env.get("R1PLUS_MONITORING_NAMESPACE", "monitoring"),
        scrape_interval=env.get("R1PLUS_SCRAPE_INTERVAL", "15s"),
        prometheus_url=env.get("R1PLUS_PROMETHEUS_URL", ""),
        has_registry=bool(env.get("R1PLUS_REGISTRY_URL")),
        gateway_image=env.get("R1PLUS_GATEWAY_IMAGE", ""),
        trainer_image=env.get("R1PLUS_TRAINER_IMAGE", ""),
        has_train_jobs=env.get("R1PLUS_TRAIN_JOBS", "") == "true",
        image_pull_secrets=secrets,
        suite_trust=_read_suite_trust(env),
        volumes=_read_volume_terms(env),
        bake_seconds=float(env.get("R1PLUS_BAKE_SECONDS", BAKE_SECONDS)),
        cooldown_seconds=float(env.get("R1PLUS_COOLDOWN_SECONDS", COOLDOWN_SECONDS)),
        isolation=_read_isolation_terms(env),
        alerts=_read_alert_terms(env.get("R1PLUS_ALERTS", "")),
        dns=_read_dns_terms(env.get("R1PLUS_DNS", "")),
        pod_user=_read_pod_user(env.get("R1PLUS_POD_USER", "")),
        runtime_update=_read_runtime_update(env.get("R1PLUS_RUNTIME_UPDATE", RuntimeUpdate.MANUAL.value)),
        max_concurrent=int(env.get("R1PLUS_MAX_CONCURRENT", "2")),
        vulnerable_images=frozenset(_read_list(env, "R1PLUS_VULNERABLE_IMAGES")),
    )
    _check_decoy(operator)
    return OperatorSettings(
        operator=operator,
        catalog=load_all_engines(Path(_read_required(env, "R1PLUS_CATALOG_DIR", "catalog"))),
        suites=load_shipped_suites(Path(_read_required(env, "R1PLUS_SUITES_DIR", "suites"))),
        verdict_interval=float(env.get("R1PLUS_VERDICT_INTERVAL_SECONDS", "10")),
        workers=int(env.get("R1PLUS_WORKERS", "16")),
        health_port=int(env.get("R1PLUS_HEALTH_PORT", "8080")),
        registry_url=env.get("R1PLUS_REGISTRY_URL", ""),
        registry_token=Path(env.get("R1PLUS_REGISTRY_TOKEN_FILE", "/var/run/secrets/r1plus.ai/registry/token")),
        identity=_build_identity(env),
        lease_seconds=float(env.get("R1PLUS_LEASE_SECONDS", LeaseTerms().duration)),
    )


def load_shipped_suites(folder: Path) -> dict[str, SuiteSource]:
    """Read the golden suites below `folder`, one sub-folder each; return them by name."""
    suites = {}
    for header in sorted(folder.glob(f"*/{SUITE_FILE}")):
        name = header.parent.name
        suites[name] = read_suite_source(name, read_suite_folder(header.parent))
    return suites


def read_suite_folder(folder: Path) -> SuiteFiles:
    """Read the files of a suite from a folder; of a file that is too large, one byte more than its limit."""
    texts = {}
    for name, limit in MAX_BYTES.items():
        path = folder / name
        if path.exists():
            with path.open("rb") as file:
                texts[name] = file.read(limit + 1).decode("utf-8", errors="replace")
    return SuiteFiles.of(texts)


def _read_runtimes(
    env: Mapping[str, str], variable: str, value: str, backends: Collection[str]
) -> dict[str, TritonRuntime]:
    """Return backend -> image and version. `value`: the chart's value behind it, which may name these backends."""
    source = f"{value}, which names image and version by backend"
    return _read_json(variable, env.get(variable, ""), lambda read: parse_runtimes(read, value, backends), source) or {}


def parse_runtimes(document: Any, value: str, backends: Collection[str]) -> dict[str, TritonRuntime]:
    """Return backend -> image and version from the chart's `value`, images.gpu or images.cpu.

    Raises:
        ValueError: an image or a version is missing, or it is not for one of these backends.
    """
    try:
        runtimes = {str(name): TritonRuntime(one["image"], one["version"]) for name, one in document.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{value}: {document!r:.120}: {error!r}; it names image and version by backend") from error
    if unknown := sorted(set(runtimes) - set(backends)):
        raise ValueError(f"{unknown[0]!r:.60}: {value} is for {' and '.join(sorted(backends))}")
    fields = ((f"{name}.{key}", text) for name, one in runtimes.items() for key, text in asdict(one).items())
    # YAML reads 0.30 as the number 0.3.
    if other := next((f"{field}: {text!r:.60}" for field, text in fields if not isinstance(text, str)), None):
        raise ValueError(f"{value}.{other}: is no string; put it in quotes")
    return runtimes


def _read_dns_terms(text: str) -> DnsTerms:
    """Read the chart's networkPolicy.dns. An empty list of peers is refused: it would allow all addresses."""

    def read(document: Any) -> DnsTerms:
        pods = tuple(DnsPods(str(one["namespace"]), dict(one["labels"])) for one in document["pods"])
        terms = DnsTerms(pods, tuple(str(ipaddress.ip_network(cidr)) for cidr in document["cidrs"]))
        if not pods and not terms.cidrs:
            raise ValueError("neither pods nor cidrs are named")
        return terms

    source = "networkPolicy.dns, which has pods (namespace and labels) and cidrs"
    return _read_json("R1PLUS_DNS", text, read, source) or DnsTerms()


def _read_pod_user(text: str) -> PodUser:
    """Read the chart's podSecurity; what is null or absent is left to the cluster."""

    def read(document: Any) -> PodUser:
        ids = [document.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")]
        return PodUser(*(None if number is None else int(number) for number in ids))

    source = "podSecurity, which has runAsUser, runAsGroup and fsGroup"
    return _read_json("R1PLUS_POD_USER", text, read, source) or PodUser()


def _read_alert_terms(text: str) -> AlertTerms:
    """Read the chart's monitoring.alerts."""

    def read(document: Any) -> AlertTerms:
        labels, severities = (
            {str(key): str(value) for key, value in document[name].items()} for name in ("labels", "severities")
        )
        return AlertTerms(str(document["runbookURL"]), labels, severities)

    source = "monitoring.alerts, which has runbookURL, labels and severities"
    return _read_json("R1PLUS_ALERTS", text, read, source) or AlertTerms()


def _read_json(variable: str, text: str, read: Callable[[Any], T], source: str) -> T | None:
    """Read a variable of JSON; return None if it is empty. `source`: the chart's value behind it, and its fields.

    Raises:
        ConfigError: with variable, value, cause and source.
    """
    if not text:
        return None
    try:
        return read(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OperatorConfigError(f"{variable}: {text!r:.120}: {error!r}; the chart sets it from {source}") from error


def _read_suite_trust(env: Mapping[str, str]) -> SuiteTrust:
    keys = frozenset(key for key in env.get("R1PLUS_SUITE_KEYS", "").split(",") if key)
    for key in sorted(keys):
        if decode_base64(key, PUBLIC_KEY_BYTES) is None:
            raise OperatorConfigError(
                f"R1PLUS_SUITE_KEYS: {key!r:.60} is no Ed25519 public key in base64; the chart sets it from "
                "suites.trustedKeys, and `r1plus suite keygen` prints such a key"
            )
    # Anything but `false` requires signatures: a misspelt value must not disable them.
    is_required = env.get("R1PLUS_SUITES_REQUIRE_SIGNATURE", "true") != "false"
    return SuiteTrust(is_required, keys, frozenset(SHIPPED_SUITES.values()))


def _read_isolation_terms(env: Mapping[str, str]) -> IsolationTerms:
    """Read the isolation settings. An invalid value here would be refused in every tenant's policies, in every pass."""
    urls = {"prometheus": env.get("R1PLUS_PROMETHEUS_URL", ""), "registry": env.get("R1PLUS_REGISTRY_URL", "")}
    return IsolationTerms(
        decoy_namespace=env.get("R1PLUS_DECOY_NAMESPACE", ""),
        interval=_read_interval(env.get("R1PLUS_PROBE_SECONDS") or "3600"),
        api_ports=tuple(map(_parse_port, _read_list(env, "R1PLUS_API_SERVER_PORTS"))) or IsolationTerms().api_ports,
        api_cidrs=_parse_networks(
            _read_list(env, "R1PLUS_API_SERVER_CIDRS"), "R1PLUS_API_SERVER_CIDRS", "networkPolicy.apiServerCIDRs"
        ),
        other_targets={name: url for name, url in urls.items() if url},
        reserved_namespaces=tuple(_read_list(env, "R1PLUS_RESERVED_NAMESPACES")),
        # Absent in an installation of an older chart, whose policies refuse.
        has_enforced_policies=env.get("R1PLUS_POLICIES_ENFORCED", "true") == "true",
    )


def _check_decoy(operator: OperatorConfig) -> None:
    decoy = operator.isolation.decoy_namespace
    if decoy and operator.is_reserved(decoy):
        raise OperatorConfigError(
            f"R1PLUS_DECOY_NAMESPACE: {decoy} is reserved for Kubernetes, the operator or monitoring; use another;"
            " the chart sets it from isolation.decoyNamespace"
        )


def _read_list(env: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in env.get(name, "").split(",") if word.strip()]


def _read_runtime_update(text: str) -> RuntimeUpdate:
    if text not in set(RuntimeUpdate):
        raise OperatorConfigError(
            f"R1PLUS_RUNTIME_UPDATE: {text!r:.60} is neither {' nor '.join(RuntimeUpdate)}; the chart sets it from"
            " runtime.update"
        )
    return RuntimeUpdate(text)


def _read_interval(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise OperatorConfigError(
        f"R1PLUS_PROBE_SECONDS: {text!r:.60} is not a number of seconds above 0; the chart sets it from"
        " isolation.everySeconds, e.g. 3600"
    )


def _parse_port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise OperatorConfigError(
            f"R1PLUS_API_SERVER_PORTS: {text!r:.60} is not a port; the chart sets it from networkPolicy.apiServerPorts,"
            " e.g. 443 and 6443"
        )
    return int(text)


def _parse_networks(words: Iterable[str], variable: str, value: str) -> tuple[str, ...]:
    """Return networks, normalised. `variable`: where they come from; `value`: the chart's value behind it."""
    networks = []
    for word in words:
        try:
            networks.append(str(ipaddress.ip_network(word, strict=False)))
        except ValueError as error:
            text = f"{variable}: {word!r:.60} is not a network; the chart sets it from {value}, e.g. 10.0.0.1/32"
            raise OperatorConfigError(text) from error
    return tuple(networks)


def _read_volume_terms(env: Mapping[str, str]) -> VolumeTerms:
    mode = env.get("R1PLUS_DELIVERY_ACCESS_MODE", AccessMode.ONE_NODE.value)
    if mode not in set(AccessMode):
        access_modes = " or ".join(AccessMode)
        raise OperatorConfigError(
            f"R1PLUS_DELIVERY_ACCESS_MODE: {mode!r:.60} is neither {access_modes}; the chart sets it from"
            " delivery.volume.accessMode"
        )
    return VolumeTerms(
        storage_class=env.get("R1PLUS_DELIVERY_STORAGE_CLASS", ""),
        access_mode=AccessMode(mode),
        cidrs=tuple(cidr for cidr in env.get("R1PLUS_DELIVERY_CIDRS", "").split(",") if cidr),
        # As with suites: a misspelt value must not disable signatures.
        require_signature=env.get("R1PLUS_DELIVERY_REQUIRE_SIGNATURE", "true") != "false",
        trusted_keys=_read_public_keys(env.get("R1PLUS_DELIVERY_KEYS", "")),
        ca_pem=_check_ca_pem(env.get("R1PLUS_DELIVERY_CA", "")),
        proxy=_read_proxy_terms(env),
    )


def _check_ca_pem(text: str) -> str:
    """Return certificates in PEM after checking them. The operator copies them into tenants' namespaces."""
    if "PRIVATE KEY" in text:
        raise OperatorConfigError(
            "R1PLUS_DELIVERY_CA: holds a private key, which every tenant could read; put certificates only into the"
            " chart's delivery.ca"
        )
    if text:
        try:
            create_tls_context(text)
        except FillError as error:
            raise OperatorConfigError(f"R1PLUS_DELIVERY_CA: {error}") from error
    return text


def _read_proxy_terms(env: Mapping[str, str]) -> ProxyTerms | None:
    """Read the chart's delivery.proxy; return None if it names no proxy."""
    url = env.get("R1PLUS_DELIVERY_PROXY", "")
    if not url:
        return None
    if "@" in url:  # The error is logged, so it does not show the address.
        raise OperatorConfigError(
            "R1PLUS_DELIVERY_PROXY: carries a user or a password, which every tenant could read in its Job's ConfigMap;"
            " let the proxy admit the cluster's addresses without one, and set delivery.proxy.url to http://HOST:PORT"
        )
    if not _PROXY_URL.fullmatch(url) or int(url.rpartition(":")[2]) > 65535:
        raise OperatorConfigError(
            f"R1PLUS_DELIVERY_PROXY: {url!r:.120} is not http://HOST:PORT; the chart sets it from delivery.proxy.url."
            " What passes through the proxy is TLS, whose other end is the archive's server"
        )
    variable = "R1PLUS_DELIVERY_PROXY_CIDRS"
    cidrs = _parse_networks(_read_list(env, variable), variable, "delivery.proxy.cidrs")
    if not cidrs:
        raise OperatorConfigError(
            f"{variable}: empty, so that no Job could reach the proxy; the chart sets it from"
            " delivery.proxy.cidrs, e.g. 10.0.9.7/32"
        )
    no_proxy = tuple(_read_list(env, "R1PLUS_DELIVERY_NO_PROXY"))
    _parse_networks([entry for entry in no_proxy if "/" in entry], "R1PLUS_DELIVERY_NO_PROXY", "delivery.proxy.noProxy")
    return ProxyTerms(url, cidrs, no_proxy)


def _read_public_keys(text: str) -> tuple[str, ...]:
    """Read PEM blocks that follow each other."""
    end = "-----END PUBLIC KEY-----"
    keys = tuple(f"{block.strip()}\n{end}\n" for block in text.split(end) if block.strip())
    for key in keys:
        try:
            load_public_key(key)
        except ValueError as error:
            raise OperatorConfigError(
                f"R1PLUS_DELIVERY_KEYS: {key.splitlines()[0]!r:.60}: {error}; the chart sets it from"
                " delivery.trustedKeys, and `openssl ec -in signing.pem -pubout` prints such a key"
            ) from error
    return keys


def _build_identity(env: Mapping[str, str]) -> str:
    """Return pod name and uid, which outlive the container and differ for a namesake; outside a pod a random one."""
    return f"{env.get('R1PLUS_POD_NAME') or socket.gethostname()}_{env.get('R1PLUS_POD_UID') or uuid.uuid4()}"


def _read_required(env: Mapping[str, str], name: str, value: str) -> str:
    if not env.get(name):
        raise OperatorConfigError(f"{name} is not set; the chart sets it from {value}")
    return env[name]
