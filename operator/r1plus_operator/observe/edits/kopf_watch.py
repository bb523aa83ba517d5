"""kopf's part: it watches the CRs and feeds our queue. No I/O, no patch, no result.

kopf's change handlers, timers and indexes are not used: they write to the CR, or hold state that a lost event corrupts.
"""

import dataclasses
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import kopf

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.observe.edits.edit_filter import EditFilter, build_response_class
from r1plus_operator.observe.observer import CRS_PER_PAGE, Observer
from r1plus_operator.runtime.connection import FileTrust, autodetect


def build_registry(observer: Observer, edits: EditFilter) -> kopf.OperatorRegistry:
    """Build a registry of our own, so that importing a module registers nothing."""
    registry = kopf.OperatorRegistry()

    @kopf.on.event(names.GROUP, names.VERSION, kinds.DEPLOYMENTS_PLURAL, registry=registry)
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        # A list passes no filter.
        observer.ingest(event["type"], dict(event["object"]), has_turn=event["type"] is not None)

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        info = find_connection(**kwargs)
        return open_session(info, edits) if info else None

    return registry


def find_connection(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Return how kopf reaches the API server; None if neither a service account nor a kubeconfig says it."""
    if (info := kopf.login_with_service_account(**kwargs)) is not None:
        return InClusterConnection(**{f.name: getattr(info, f.name) for f in dataclasses.fields(info)})
    info = kopf.login_with_kubeconfig(**kwargs)
    # kopf ignores a kubeconfig's tokenFile; without the token it would watch anonymously.
    return dataclasses.replace(info, token=info.token or autodetect(os.environ).token()) if info else None


def open_session(info: kopf.ConnectionInfo, edits: EditFilter) -> kopf.AiohttpSession:
    """Open the session that kopf would open itself, with the filter in its responses. kopf closes it."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=build_response_class(edits),
    )
    return kopf.AiohttpSession(
        server=info.server,
        priority=info.priority,
        default_namespace=info.default_namespace,
        expiration=info.expiration,
        aiohttp_session=session,
    )


class InClusterConnection(kopf.ConnectionInfo):
    """A service account's connection. kopf reads the CA once, and after its rotation would silently watch nothing."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Trust what the file holds when a connection begins."""
        return FileTrust(Path(str(self.ca_path))) if self.ca_path else super().as_ssl_context()


class NoDiffBase(kopf.DiffBaseStorage):
    """An object's state when it was last handled. It is not used here, and storing it would cost half of each event.

    kopf copies every object and compares the copy with the last one, with or without change handlers.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty copy."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return None: nothing is stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """How far an object's change handlers have got. There is none, and kopf would look for it at each event."""

    def fetch(self, **_: Any) -> kopf.ProgressRecord | None:
        """Return None: nothing is stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""

    def purge(self, **_: Any) -> None:
        """Remove nothing."""

    def touch(self, **_: Any) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return it as it is: there is nothing to leave out."""
        return essence


def build_settings() -> kopf.OperatorSettings:
    """Build settings that make kopf a watcher only."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 0.2
    settings.queueing.worker_limit = None
    settings.watching.chunk_size = CRS_PER_PAGE
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    # No object can have it: kopf removes its finalizer from objects, by a write that the operator has no right to.
    settings.persistence.finalizer = "r1plus.ai/no finalizer"
    return settings
