"""The service's settings from the environment that the chart writes. Read once, by `__main__`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.history import PORT
from r1plus_registry.database import FILE_VARIABLE, VARIABLE, RegistryDatabase
from r1plus_registry.errors import RegistryConfigError
from r1plus_registry.retention import Retention
from r1plus_registry.reviews import ApiServer

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """All settings of `__main__`."""

    database: RegistryDatabase
    api: ApiServer
    writer: str
    """The only user that may record: the full name of the operator's service account."""
    port: int
    retention: Retention


def read_database(env: Mapping[str, str] = os.environ) -> RegistryDatabase:
    """Return the database of the DSN. Raise ConfigError, also if the folder of a SQLite file does not exist."""
    file, dsn = env.get(FILE_VARIABLE, ""), env.get(VARIABLE, "").strip()
    if not file and not dsn:
        raise RegistryConfigError(f"{VARIABLE} is not set; the chart sets it from registry.database")
    database = RegistryDatabase(Path(file) if file else dsn)
    folder = Path(database.url.database or "").parent
    if database.is_sqlite and not folder.is_dir():
        raise RegistryConfigError(
            f"{VARIABLE}: {folder} is not a folder; the chart mounts the volume of registry.storage there"
        )
    return database


def read_settings(env: Mapping[str, str] = os.environ) -> RegistrySettings:
    """Read all settings. Raise ConfigError."""
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
    in_cluster_url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    url = env.get("R1PLUS_API_SERVER") or (in_cluster_url if host else "")
    if not url:
        raise RegistryConfigError(
            "KUBERNETES_SERVICE_HOST is not set, so this is not a pod; set R1PLUS_API_SERVER to the API server's URL"
        )
    writer = env.get("R1PLUS_REGISTRY_WRITER", "")
    if not writer:
        raise RegistryConfigError(
            "R1PLUS_REGISTRY_WRITER is not set; the chart sets it to the operator's service account"
        )
    api = ApiServer(
        url.rstrip("/"),
        Path(env.get("R1PLUS_API_SERVER_CA", str(SERVICE_ACCOUNT / "ca.crt"))),
        Path(env.get("R1PLUS_API_SERVER_TOKEN", str(SERVICE_ACCOUNT / "token"))),
    )
    if not api.token.is_file():
        raise RegistryConfigError(f"{api.token}: no such file; the pod needs automountServiceAccountToken: true")
    return RegistrySettings(read_database(env), api, writer, _read_port(env), _read_retention(env))


def _read_retention(env: Mapping[str, str]) -> Retention:
    default = Retention()
    return Retention(
        days=_read_number(env, "R1PLUS_REGISTRY_RETENTION_DAYS", "registry.retention", default.days, 0),
        entries=_read_number(env, "R1PLUS_REGISTRY_SHARE_ENTRIES", "registry.share.entries", default.entries, 100),
        items=_read_number(env, "R1PLUS_REGISTRY_SHARE_ITEMS", "registry.share.items", default.items, 10_000),
    )


def _read_number(env: Mapping[str, str], variable: str, value: str, default: int, minimum: int) -> int:
    text = env.get(variable) or str(default)
    if not text.isdecimal() or int(text) < minimum:
        raise RegistryConfigError(
            f"{variable}: {text!r:.20} is not a whole number from {minimum}; the chart sets it from {value}"
        )
    return int(text)


def _read_port(env: Mapping[str, str]) -> int:
    text = env.get("R1PLUS_REGISTRY_PORT", str(PORT))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise RegistryConfigError(f"R1PLUS_REGISTRY_PORT: {text!r:.20} is not a port; expected 1 to 65535")
    return int(text)
