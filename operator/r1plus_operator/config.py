"""The operator's settings, from the environment that the chart writes. Read once, by main."""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.settings import ITEMS_FILE, SUITE_FILE
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.inputs import OperatorConfig, SuiteSource
from r1plus_operator.projections import suite_source


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
    identity: str
    """This pod among all that ever were; the Lease names it."""


def from_environment(env: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings; raises ConfigError."""
    secrets = tuple(name for name in env.get("R1PLUS_IMAGE_PULL_SECRETS", "").split(",") if name)
    operator = OperatorConfig(
        monitor_image=_required(env, "R1PLUS_MONITOR_IMAGE", "images.monitor"),
        triton_image=_required(env, "R1PLUS_TRITON_IMAGE", "images.triton"),
        default_family=env.get("R1PLUS_DEFAULT_FAMILY", "r1plus"),
        operator_namespace=_required(env, "R1PLUS_OPERATOR_NAMESPACE", "the pod's own namespace"),
        monitoring_namespace=env.get("R1PLUS_MONITORING_NAMESPACE", "monitoring"),
        scrape_interval=env.get("R1PLUS_SCRAPE_INTERVAL", "15s"),
        prometheus_url=env.get("R1PLUS_PROMETHEUS_URL", ""),
        image_pull_secrets=secrets,
    )
    return Settings(
        operator=operator,
        catalog=load_catalog(Path(_required(env, "R1PLUS_CATALOG_DIR", "catalog"))),
        suites=shipped_suites(Path(_required(env, "R1PLUS_SUITES_DIR", "suites"))),
        verdict_interval=float(env.get("R1PLUS_VERDICT_INTERVAL_SECONDS", "10")),
        workers=int(env.get("R1PLUS_WORKERS", "16")),
        health_port=int(env.get("R1PLUS_HEALTH_PORT", "8080")),
        identity=_identity(env),
    )


def shipped_suites(folder: Path) -> dict[str, SuiteSource]:
    """The golden suites below `folder`, one sub-folder each."""
    found = {}
    for header in sorted(folder.glob(f"*/{SUITE_FILE}")):
        name, items = header.parent.name, header.parent / ITEMS_FILE
        found[name] = suite_source(name, header.read_text("utf-8"), items.read_text("utf-8"))
    return found


def _identity(env: Mapping[str, str]) -> str:
    """Pod and uid, which outlive the container and tell a namesake apart; outside of a pod, one of this process."""
    return f"{env.get('R1PLUS_POD_NAME') or socket.gethostname()}_{env.get('R1PLUS_POD_UID') or uuid.uuid4()}"


def _required(env: Mapping[str, str], name: str, value: str) -> str:
    if not env.get(name):
        raise ConfigError(f"{name} is not set; the chart sets it from {value}")
    return env[name]
