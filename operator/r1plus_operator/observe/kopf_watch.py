"""kopf's side: it watches the CRs and feeds our queue. No I/O, no patch, nothing returned.

kopf's change handlers, timers and indexes are left alone: they write to the CR, or keep state that a lost event spoils.
"""

import dataclasses
import os
import ssl
from pathlib import Path
from typing import Any

import kopf

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.observe.observer import CRS_PER_PAGE, Observer
from r1plus_operator.runtime.connection import FileTrust, autodetect


def registry_for(observer: Observer) -> kopf.OperatorRegistry:
    """A registry of our own: nothing is registered by importing a module."""
    registry = kopf.OperatorRegistry()

    @kopf.on.event(names.GROUP, names.VERSION, kinds.DEPLOYMENTS_PLURAL, registry=registry)
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        observer.ingest(event["type"], dict(event["object"]))

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if (info := kopf.login_with_service_account(**kwargs)) is not None:
            return InCluster(**{f.name: getattr(info, f.name) for f in dataclasses.fields(info)})
        info = kopf.login_with_kubeconfig(**kwargs)
        # kopf passes over a kubeconfig's tokenFile; without its token it would watch as nobody.
        return dataclasses.replace(info, token=info.token or autodetect(os.environ).token()) if info else None

    return registry


class InCluster(kopf.ConnectionInfo):
    """A service account's connection. kopf reads the CA once: after its rotation it would watch nothing, in silence."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Trust what the file holds when a connection begins."""
        return FileTrust(Path(str(self.ca_path))) if self.ca_path else super().as_ssl_context()


class NoDiffBase(kopf.DiffBaseStorage):
    """What an object was like when it was last handled: nobody asks here, and keeping it would cost half of each event.

    kopf copies every object whole and compares the copy with the last one, change handlers or not.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """No copy."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """None is kept."""
        return None

    def store(self, **_: Any) -> None:
        """None is kept."""


def settings() -> kopf.OperatorSettings:
    """kopf as a watcher only."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.queueing.idle_timeout = 0.2
    chosen.queueing.worker_limit = None
    chosen.watching.chunk_size = CRS_PER_PAGE
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    # No object can bear it: kopf takes its finalizer off whatever does, by a write that the operator has no right to.
    chosen.persistence.finalizer = "r1plus.ai/no finalizer"
    return chosen
