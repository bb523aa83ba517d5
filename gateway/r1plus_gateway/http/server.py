"""Both servers with what they need, from start to drain. Called by `__main__` and by tests."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web

from r1plus_gateway.access.caller import Authenticator, Ledger
from r1plus_gateway.access.usage import UsageReader
from r1plus_gateway.http.accounting.admission import Holds, RefusalAllowance
from r1plus_gateway.http.accounting.left_requests import watch_left_requests
from r1plus_gateway.http.accounting.tasks import TaskKeeper
from r1plus_gateway.http.add_ons import AddOnRunner, GatewayHost, run_without_add_on
from r1plus_gateway.http.application import Api
from r1plus_gateway.http.listening.connections import (
    BACKLOG,
    MOST_INTERNAL_CONNECTIONS,
    GatewayRunner,
    TlsSite,
    adopt_listener,
    create_listener,
)
from r1plus_gateway.http.listening.tls import ServerCertificate
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.parts import GatewayParts
from r1plus_gateway.serving.evidence import FETCH_SECONDS, MonitorReader, open_session
from r1plus_gateway.serving.models import Models
from r1plus_gateway.serving.pods import Resolver, resolve_service
from r1plus_gateway.serving.running_requests import RunningRequests
from r1plus_gateway.settings import POLL_SECONDS, GatewaySettings, SettingsFile
from r1plus_gateway.store.administration.key_records import list_revoked
from r1plus_gateway.store.content.content_books import read_stored_bytes
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.ledger.usage_reader import read_key_budgets
from r1plus_gateway.store.tenant import TenantStore

log = logging.getLogger(__name__)
REVOCATION_SECONDS: Final = 10.0
"""Between two looks at which callers' keys another replica has revoked."""
SERIES_SECONDS: Final = 15.0
"""Between two looks at keys and budgets: the time between two scrapes. Each costs an idle device something."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway that serves."""

    api: Api
    models: Models
    port: int
    internal_port: int


@asynccontextmanager
async def run_gateway(
    file: SettingsFile,
    metrics: GatewayMetrics,
    authenticator: Authenticator,
    ledger: Ledger,
    usage: UsageReader,
    *,
    store: TenantStore | None = None,
    run_add_on: AddOnRunner = run_without_add_on,
    resolve: Resolver = resolve_service,
    report_seconds: float = FETCH_SECONDS,
    listener: socket.socket | None = None,
    internal_listener: socket.socket | None = None,
    most_connections: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[RunningGateway]:
    """Serve until the block ends; then drain: no new connections, running answers end, bills are settled.

    `listener`, `internal_listener`: sockets that listen already, for callers and at the internal port; None: they are
    made, as the settings say. `report_seconds`: longest wait for a monitor's report. `clock`: seconds by which callers
    are held and prompts are counted. `most_connections`: of clients, where fewer than the most have descriptors.
    """
    settings = file.current
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        models = Models(settings, MonitorReader(session, report_seconds), resolve=resolve, on_pods=metrics.set_pods)
        file.subscribe(models.update)
        stack.push_async_callback(models.close)
        await models.start()
        tasks = TaskKeeper()
        stack.push_async_callback(tasks.finish)
        refusals = RefusalAllowance(clock)
        parts = GatewayParts(
            lambda: file.current, models, authenticator, ledger, metrics, tasks, clock=clock, refusals=refusals
        )
        host = GatewayHost(parts, store, Holds(clock))
        api = Api(host, usage, await stack.enter_async_context(run_add_on(host)))
        certificate = ServerCertificate(settings.tls) if settings.tls else None
        internal_host = settings.internal_host or settings.host
        inner = _find_listener(internal_listener, internal_host, settings.internal_port)
        inner_options = {"shutdown_timeout": 1.0, "most_connections": MOST_INTERNAL_CONNECTIONS}
        internal = await _listen(stack, api.build_internal(internal_host), inner, None, inner_options)
        app = api.build(settings.limits, settings.hosts)
        options = {
            "read_drain_seconds": lambda: file.current.drain_seconds,
            "keepalive_timeout": settings.limits.idle_seconds,
            "slow_reader_seconds": settings.limits.slow_reader_seconds,
            "most_connections": most_connections,
        }
        front = _find_listener(listener, settings.host, settings.port)
        port = await _listen(stack, app, front, certificate, options)
        log.info("Gateway of %s listens on port %d, metrics on port %d", settings.namespace, port, internal)
        watches = [_watch_files(file, certificate), _watch_series(file, metrics, store)]
        if store is not None:
            watches += [_watch_revocations(store, models.requests), watch_left_requests(store, models)]
        async with _running(watches):
            try:
                yield RunningGateway(api, models, port, internal)
            finally:
                api.is_draining = True


@asynccontextmanager
async def _running(watches: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run these until the block ends."""
    tasks = [asyncio.create_task(watch) for watch in watches]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _find_listener(listener: socket.socket | None, host: str, port: int) -> socket.socket:
    """Return the socket that listens already, else a new one. Raises OSError."""
    return adopt_listener(listener) if listener else create_listener(host, port)


async def _listen(
    stack: AsyncExitStack,
    app: web.Application,
    listener: socket.socket,
    certificate: ServerCertificate | None,
    options: Mapping[str, Any],
) -> int:
    runner = GatewayRunner(app, **options)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if certificate is None:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
    else:
        await TlsSite(runner, listener, certificate.context).start()
    return int(runner.addresses[0][1])


async def _watch_files(file: SettingsFile, certificate: ServerCertificate | None) -> None:
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            file.refresh()
            if certificate is not None:
                certificate.refresh()
        except Exception:  # else the task ends, and nothing is followed any more
            log.exception("Settings or certificate could not be followed; trying again")


def _list_names(settings: GatewaySettings) -> set[str]:
    """Return what callers name as a model."""
    engines = {settings.embedding.name} if settings.embedding is not None else set()
    return {model.name for model in settings.models} | engines


async def _watch_series(file: SettingsFile, metrics: GatewayMetrics, store: TenantStore | None) -> None:
    """Follow budgets, and end the series of keys and models that are gone. While nothing can be read, all stay."""
    while True:
        try:
            if store is not None:
                with contextlib.suppress(StoreError):
                    asked = metrics.list_keys()
                    metrics.update_keys(await read_key_budgets(store, asked), asked)
                    metrics.set_content(
                        await store.read(read_stored_bytes), file.current.limits.content_bytes_per_tenant
                    )
            metrics.forget_idle(_list_names(file.current))
        except Exception:  # as above
            log.exception("Metrics of keys and models could not be followed; trying again")
        await asyncio.sleep(SERIES_SECONDS)


async def _watch_revocations(store: TenantStore, requests: RunningRequests) -> None:
    """End what runs for keys that were revoked: by another replica, or after the request was authenticated."""
    while True:
        try:
            with contextlib.suppress(StoreError):
                if callers := requests.list_callers():
                    for key_id in await store.read(partial(list_revoked, key_ids=callers)):
                        log.info("Key %s is revoked: %d requests of it end", key_id, requests.revoke(key_id))
        except Exception:  # as above
            log.exception("Revoked keys could not be followed; trying again")
        await asyncio.sleep(REVOCATION_SECONDS)
