"""What the HTTP handlers get from the tenant's data: who calls, the ledger, usage, and what administrators do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_gateway.access.authenticator import CredentialAuthenticator
from r1plus_gateway.access.service_accounts import Grant, JwksFile, TokenVerifier
from r1plus_gateway.settings import DataSettings, SettingsError, SettingsFile
from r1plus_gateway.store.database.opening import StoreConfig
from r1plus_gateway.store.ledger.usage_reader import StoreUsage
from r1plus_gateway.store.tenant import Periods, TenantStore

FIRST_TRY_SECONDS: Final = 15.0
"""Longest wait for the tenant's data before the gateway listens without them."""
LEFT_SECONDS: Final = 60.0
"""For so long pods are asked what requests have used whose gateway is gone."""


@dataclass(frozen=True, slots=True)
class AccessService:
    """The implementations of the protocols in `access`, over one store."""

    store: TenantStore
    authenticator: CredentialAuthenticator
    usage: StoreUsage


@asynccontextmanager
async def run_access(file: SettingsFile) -> AsyncIterator[AccessService]:
    """Open the tenant's data and watch over them until the block ends.

    Data that cannot be opened are no reason to end: requests are answered 503 and opening is tried again.

    Raises:
        SettingsError: the file with the database's URL cannot be read.
    """
    settings = file.current
    store = TenantStore(build_store_config(settings.data), periods=Periods(left=LEFT_SECONDS))
    tokens = settings.tokens

    def find_grant(namespace: str) -> Grant | None:
        current = file.current
        may_call = namespace == current.namespace or namespace in current.tokens.namespaces
        return Grant() if may_call else None

    verifier = TokenVerifier(
        JwksFile(Path(tokens.jwks)), tokens.issuer, settings.namespace, find_grant, tokens.not_before
    )
    watch = asyncio.create_task(store.run())
    try:
        await _await_first_try(store, watch)
        store.is_watched = True
        yield AccessService(store, CredentialAuthenticator(store, verifier, store.clock.read), StoreUsage(store))
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await store.close()


async def _await_first_try(store: TenantStore, watch: asyncio.Task[None]) -> None:
    """Wait for the first try before the servers listen: usually no caller ever meets a gateway without its data.

    A try that takes long (a volume or a database that does not answer) may not keep the probes from an answer.
    """
    first = asyncio.create_task(store.first_try.wait())
    await asyncio.wait({first, watch}, timeout=FIRST_TRY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    first.cancel()
    if watch.done():
        watch.result()  # raises what opening failed with that is no StoreError


def build_store_config(data: DataSettings) -> StoreConfig:
    """Return where the tenant's data are. Raises SettingsError."""
    url = ""
    if data.database_url_file:
        try:
            url = Path(data.database_url_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"data.databaseUrlFile: {data.database_url_file}: {error.strerror}; mount the Secret that holds the URL"
            ) from error
    folder = Path(data.folder) if data.folder else None
    return StoreConfig(
        data.tenant_uid,
        Path(data.secret_folder),
        folder,
        url,
        audit_days=data.audit_days,
        content_days=data.content_days,
        has_knowledge=data.has_knowledge,
    )
