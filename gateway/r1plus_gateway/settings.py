"""The gateway's settings: a JSON file that the operator writes, and that is read again when it changes.

Keys are camelCase. `read_settings` checks everything; `SettingsFile` keeps the last good settings.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from r1plus_contract.embedder import MOST_DIMENSIONS
from r1plus_contract.gateway import (
    ENV_SETTINGS,
    Capability,
    DataSettings,
    EmbeddingSettings,
    GatewayLimits,
    GatewaySettings,
    ModelSettings,
    RevisionFacts,
    TlsPaths,
    TokenSettings,
)
from r1plus_contract.jsonable import ContractError, loads, to_camel_case

__all__ = (
    "ENV_SETTINGS",
    "POLL_SECONDS",
    "Capability",
    "DataSettings",
    "EmbeddingSettings",
    "GatewayLimits",
    "GatewaySettings",
    "ModelSettings",
    "RevisionFacts",
    "SettingsError",
    "SettingsFile",
    "TlsPaths",
    "TokenSettings",
    "parse_settings",
    "read_settings",
)
log = logging.getLogger(__name__)

MOST_SETTINGS_BYTES: Final = 1024 * 1024
POLL_SECONDS: Final = 2.0
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ENGINE_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
MOST_EMBEDDING_TOKENS: Final = 8192


class SettingsError(ValueError):
    """Settings that cannot be used; the message lists every problem with field, value and remedy."""


def parse_settings(text: bytes) -> GatewaySettings:
    """Read settings from JSON.

    Raises:
        SettingsError: with every problem.
    """
    if len(text) > MOST_SETTINGS_BYTES:
        raise SettingsError(f"settings: {len(text)} bytes exceed {MOST_SETTINGS_BYTES}; name fewer models or revisions")
    try:
        settings = loads(GatewaySettings, text)
    except ContractError as error:
        raise SettingsError(f"{error}; write what docs/reference/gateway-settings.md lists") from error
    if problems := list(_find_problems(settings)):
        raise SettingsError("; ".join(problems))
    return settings


def _find_problems(settings: GatewaySettings) -> Iterator[str]:
    if not _NAME.fullmatch(settings.namespace):
        yield f"namespace: {settings.namespace!r:.80} is not a namespace's name; write the tenant's"
    for name in ("port", "internal_port"):
        yield from _check_range(to_camel_case(name), getattr(settings, name), 0, 65535)
    yield from _check_range("data.auditDays", settings.data.audit_days, 1, 36500)
    yield from _check_range("data.contentDays", settings.data.content_days, 0, 36500)
    seen: set[str] = set()
    for position, model in enumerate(settings.models):
        where = f"models[{position}]"
        if model.name in seen:
            yield f"{where}.name: {model.name} appears twice; name each model once"
        seen.add(model.name)
        yield from _find_model_problems(where, model)
    if settings.embedding is not None:
        yield from _find_embedding_problems(settings.embedding)
    for name in GatewayLimits.__dataclass_fields__:
        value = getattr(settings.limits, name)
        if value <= 0:
            yield f"limits.{to_camel_case(name)}: {value} must be greater than 0; leave it out for the default"


def _find_model_problems(where: str, model: ModelSettings) -> Iterator[str]:
    if not _NAME.fullmatch(model.name):
        yield f"{where}.name: {model.name!r:.80} is not a DNS label; write the R1PlusDeployment's name"
    if not model.host:
        yield f"{where}.host: is empty; write the headless Service's name"
    yield from _check_range(f"{where}.grpcPort", model.grpc_port, 1, 65535)
    yield from _check_range(f"{where}.monitorPort", model.monitor_port, 1, 65535)
    yield from _check_range(f"{where}.contextTokens", model.context_tokens, 1, 2**31 - 1)
    yield from _check_range(f"{where}.batch", model.batch, 1, 65536)
    yield from _check_range(f"{where}.maxNewTokens", model.max_new_tokens, 1, model.context_tokens)


def _find_embedding_problems(embedding: EmbeddingSettings) -> Iterator[str]:
    if not _ENGINE_NAME.fullmatch(embedding.name):
        yield f"embedding.name: {embedding.name!r:.80} is not an engine's name; write the R1PlusEngine's name"
    if not _SHA256.fullmatch(embedding.sha256):
        yield f"embedding.sha256: {embedding.sha256!r:.80} is not 64 hex digits; write the engine's digest"
    yield from _check_range("embedding.dimensions", embedding.dimensions, 1, MOST_DIMENSIONS)
    yield from _check_range("embedding.mostTokens", embedding.most_tokens, 1, MOST_EMBEDDING_TOKENS)


def _check_range(where: str, value: int, low: int, high: int) -> Iterator[str]:
    if not low <= value <= high:
        yield f"{where}: {value} is not between {low} and {high}; correct it"


def read_settings(path: Path) -> GatewaySettings:
    """Read the settings' file.

    Raises:
        SettingsError: it cannot be read, or its content cannot be used.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; mount the ConfigMap, or set {ENV_SETTINGS}") from error
    return parse_settings(text)


class SettingsFile:
    """The settings as last read. A file that becomes unusable is reported once, and the last good settings stay."""

    def __init__(self, path: Path, on_validity: Callable[[bool], None] = lambda is_valid: None) -> None:
        """Read the file for the first time.

        Raises:
            SettingsError: nothing to start with.
        """
        self._path = path
        self._on_validity = on_validity
        self._stamp = self._read_stamp()
        self.current = read_settings(path)
        self._listeners: list[Callable[[GatewaySettings], None]] = []
        on_validity(True)

    def subscribe(self, listener: Callable[[GatewaySettings], None]) -> None:
        """Call `listener` with each new version."""
        self._listeners.append(listener)

    def refresh(self) -> None:
        """Read the file again if it changed. A mounted ConfigMap changes by a new symbolic link: `stat` follows it."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            settings = read_settings(self._path)
        except SettingsError as error:
            self._on_validity(False)
            log.error("Settings are not usable, the last good ones stay: %.1000s", error)
            return
        self._on_validity(True)
        log.info("Settings read, %d models", len(settings.models))
        self.current = settings
        for listener in self._listeners:
            listener(settings)

    def _read_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - in one call, following links
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
