"""The operator's process: build the parts, fill the caches, reconcile while the Lease is held.

`python -m r1plus_operator`. Everything that acts is created here and passed on; no module holds state.

Every replica watches; the one that holds the Lease plans and writes, and polls the monitors. All writes go through one
client, whose fence is the Lease: no write is sent without it, and none is under way when it ends. A process that loses
the Lease exits, and so does each that notices that etcd was set back.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf
import uvloop

from r1plus_contract import names
from r1plus_operator import health
from r1plus_operator.config import OperatorConfigError, OperatorSettings, load_settings
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.controllers.deployment import DeploymentReconciler
from r1plus_operator.controllers.router import CatalogReconciler, PassRouter
from r1plus_operator.controllers.tenant import TenantReconciler
from r1plus_operator.controllers.volumes import VolumesReconciler
from r1plus_operator.metrics.instruments import OperatorMetrics
from r1plus_operator.observe import prometheus_poller
from r1plus_operator.observe.edits.edit_filter import EditFilter
from r1plus_operator.observe.edits.kopf_watch import build_registry
from r1plus_operator.observe.edits.kopf_watch import build_settings as kopf_settings
from r1plus_operator.observe.keys import CATALOG, CatalogKey, DeploymentKey, PassKey, TenantKey
from r1plus_operator.observe.monitors import monitor_poller
from r1plus_operator.observe.monitors.monitor_poller import MonitorPoller
from r1plus_operator.observe.monitors.pooled_detectors import Pools
from r1plus_operator.observe.observer import Observer
from r1plus_operator.observe.paced_enqueue import PacedEnqueue
from r1plus_operator.observe.prometheus_poller import PrometheusPoller
from r1plus_operator.observe.token_issuer import TokenIssuerPoller
from r1plus_operator.registry.client import RegistryClient
from r1plus_operator.registry.recorder import FactRecorder
from r1plus_operator.runtime.client import ApiClient, RequestLimits
from r1plus_operator.runtime.connection import FileToken
from r1plus_operator.runtime.fairness import Contention, Lane, Pace, Priority
from r1plus_operator.runtime.lease import Elector, LeaseLostError, LeaseTerms, SetBackError, read_boot_clock
from r1plus_operator.runtime.queue import WorkQueue, run_workers

log = logging.getLogger(__name__)
Poller = MonitorPoller | PrometheusPoller | TokenIssuerPoller
RESYNC_SECONDS = 900.0
FIRST_ANSWERS_SECONDS = 15.0
PROMETHEUS_SECONDS = 20.0
DRAIN_SECONDS = 10.0
"""For the passes under way at a signal. The pod has 20 s; a pass is a few writes of milliseconds."""
EXIT_SECONDS = 5.0
"""For tasks that are cancelled because the Lease is lost, or etcd set back; then the process exits whatever they do."""
LOST_STATUS = 3
MOST_LOGGED = 2000
"""Characters of a message in the log."""
SHARES = 4
"""A namespace gets one such share of the workers at most, so that its thousand changes leave others their turn."""
COLLECT_AFTER = 2_000
"""New objects until Python collects cycles: there are few, and a collection delays passes. But kopf and aiohttp leave
whole objects of the API server in cycles, of up to 256 KiB each."""


class OneLineFormatter(logging.Formatter):
    """Formatter that writes each message as one bounded line: some contain text of pods, people and servers.

    Only stack traces, which follow a message, have several lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line, whatever the message holds."""
        record.message = "".join(map(_printable, record.message[:MOST_LOGGED]))
        return super().formatMessage(record)


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def main() -> None:
    """Run until a signal, or until a part fails (then exit non-zero, so that Kubernetes restarts the pod)."""
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = load_settings()
    except (OperatorConfigError, ValueError, OSError) as error:
        log.error("Configuration is invalid: %s", error)
        sys.exit(2)
    collect_seldom()
    status = 0
    try:
        uvloop.run(run(settings))
    except* (LeaseLostError, SetBackError):
        status = LOST_STATUS
    sys.exit(status)


def collect_seldom() -> None:
    """Exclude what is loaded by now from garbage collection: it stays until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


@dataclass(frozen=True, slots=True)
class OperatorParts:
    """What `run` has built."""

    observer: Observer
    edits: EditFilter
    queue: WorkQueue[PassKey]
    router: PassRouter
    pollers: tuple[Poller, ...]
    elector: Elector
    instruments: OperatorMetrics
    workers: int
    rand: random.Random
    """Jitter."""
    recorder: tuple[FactRecorder, RegistryClient] | None
    """What records facts in the registry, and its client; None without a registry."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the parts read the time from, each in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    """Since the epoch."""
    lease: Callable[[], float] = read_boot_clock


@dataclass(frozen=True, slots=True)
class Sessions:
    """What opens the HTTP sessions of the pollers."""

    monitors: Callable[[], aiohttp.ClientSession] = monitor_poller.open_session
    prometheus: Callable[[], aiohttp.ClientSession] = prometheus_poller.open_session


async def run(settings: OperatorSettings) -> None:
    """Run the whole operator; return on SIGTERM or SIGINT.

    Raises:
        LeaseLostError: in a group, when another process may hold the Lease.
        SetBackError: in a group, when etcd was set back.
    """
    agent = f"{names.FIELD_MANAGER} ({settings.identity})"
    # Two clients: a renewal never waits behind writes, and only renewals pass without the fence.
    async with (
        ApiClient.autodetect(user_agent=agent) as client,
        ApiClient.autodetect(limits=RequestLimits(request=LeaseTerms().call, retries=0), user_agent=agent) as election,
    ):
        parts = build(settings, client, election)
        pulse = health.Pulse()
        runner = await health.serve(
            settings.health_port,
            lambda: parts.observer.is_synced,
            lambda: health.find_problem(parts.observer.list_reflectors(), pulse.late),
            parts.instruments.registry,
        )
        try:
            async with asyncio.TaskGroup() as group:
                pulse_task = group.create_task(pulse.run())
                stop = asyncio.Event()
                stop_at_signals(stop)
                await operate(parts, stop)
                pulse_task.cancel()
        finally:
            await runner.cleanup()


def build(
    settings: OperatorSettings,
    client: ApiClient,
    election: ApiClient,
    clocks: Clocks | None = None,
    rand: random.Random | None = None,
    sessions: Sessions | None = None,
) -> OperatorParts:
    """Build the parts and connect them."""
    clocks, sessions = clocks or Clocks(), sessions or Sessions()
    rand = rand or random.Random()  # noqa: S311 - jitter only
    contention = Contention()
    queue: WorkQueue[PassKey] = WorkQueue(
        lane=select_lane, most_of_group=max(1, settings.workers // SHARES), contention=contention, rand=rand
    )
    pace: Pace[tuple[str, ...]] = Pace(lambda key: key[0], contention)
    observer = Observer(
        client,
        PacedEnqueue(queue, pace),
        settings.suites,
        decoy_namespace=settings.operator.isolation.decoy_namespace,
        slots=settings.operator.max_concurrent,
        has_train_jobs=settings.operator.has_train_jobs,
        rand=rand,
        clock=clocks.monotonic,
    )
    elector = Elector(
        election,
        settings.operator.operator_namespace,
        names.LEASE,
        settings.identity,
        terms=LeaseTerms.for_duration(settings.lease_seconds),
        clock=clocks.lease,
        read_time=clocks.wall,
        rand=rand,
    )
    instruments = OperatorMetrics(clocks.monotonic, clocks.wall)
    instruments.watch(queue, elector)
    client.on_write = instruments.count_write
    client.fence = elector.count_remaining_seconds
    pools = Pools(clocks.monotonic, instruments.deployments.record_pool)
    recorder = build_recorder(settings, observer, instruments, clocks, rand)
    on_reconciled = recorder[0].mark_dirty if recorder else None
    return OperatorParts(
        observer=observer,
        edits=EditFilter(observer, pace),
        queue=queue,
        router=build_router(
            settings, Applier(client, observer), observer, queue, pools, instruments, clocks, on_reconciled
        ),
        pollers=build_pollers(settings, client, observer, pools, clocks, rand, sessions),
        elector=elector,
        instruments=instruments,
        workers=settings.workers,
        rand=rand,
        recorder=recorder,
    )


def build_router(
    settings: OperatorSettings,
    applier: Applier,
    observer: Observer,
    queue: WorkQueue[PassKey],
    pools: Pools,
    instruments: OperatorMetrics,
    clocks: Clocks,
    on_reconciled: Callable[[DeploymentKey | CatalogKey], None] | None,
) -> PassRouter:
    """Build the four reconcilers and what sends them their keys."""
    config, metrics = settings.operator, instruments.deployments
    tenants = TenantReconciler(
        observer, applier, queue, config, instruments.isolation, instruments.gateways, clocks.wall
    )
    return PassRouter(
        DeploymentReconciler(
            observer, applier, queue, config, pools, metrics, tenants, clocks.wall, on_reconciled=on_reconciled
        ),
        tenants,
        VolumesReconciler(observer, applier, queue, config, clocks.wall),
        CatalogReconciler(observer, applier, settings.catalog, on_reconciled),
        queue,
    )


def select_lane(key: PassKey) -> Lane:
    """Return the lane of a key: network policies come first, and a tenant waits for its own keys only."""
    return Lane(is_urgent=isinstance(key, TenantKey), group=key.namespace)


def build_recorder(
    settings: OperatorSettings,
    observer: Observer,
    instruments: OperatorMetrics,
    clocks: Clocks,
    rand: random.Random,
) -> tuple[FactRecorder, RegistryClient] | None:
    """Build what records facts in the registry; None if this installation has no registry."""
    if not settings.registry_url:
        return None
    recorder = FactRecorder(
        observer, settings.operator.suite_trust.shipped_digests, instruments, rand, clocks.monotonic
    )
    return recorder, RegistryClient(settings.registry_url, FileToken(settings.registry_token))


def build_pollers(
    settings: OperatorSettings,
    client: ApiClient,
    observer: Observer,
    pools: Pools,
    clocks: Clocks,
    rand: random.Random,
    sessions: Sessions,
) -> tuple[Poller, ...]:
    """Build a leader's pollers: of monitors, of the token issuer, and of Prometheus if its address is known."""
    monitors = MonitorPoller(
        observer, pools, settings.verdict_interval, rand, clock=clocks.monotonic, open_session=sessions.monitors
    )
    pollers = (
        monitors,
        TokenIssuerPoller(client, observer, rand),
    )
    url = settings.operator.prometheus_url
    if not url:
        return pollers
    prometheus = PrometheusPoller(
        observer, url, PROMETHEUS_SECONDS, rand, clocks.monotonic, open_session=sessions.prometheus
    )
    return (*pollers, prometheus)


async def operate(
    parts: OperatorParts,
    stop: asyncio.Event,
    watch: Callable[[OperatorParts, asyncio.Event], Coroutine[Any, Any, None]] | None = None,
    exit_process: Callable[[int], object] = os._exit,
) -> None:
    """Watch, lead when it is this process's turn, until `stop` is set; then release the Lease.

    `watch` brings the CRs, by default with kopf. `exit_process` ends a process that has lost the Lease and hangs.
    """
    # A process that leads before its first list has caches that are as new as its Lease.
    await parts.elector.attempt()
    async with asyncio.TaskGroup() as group:
        parts.observer.start(group)
        watch_task = group.create_task((watch or watch_crs)(parts, stop))
        lead_task = group.create_task(lead(parts, exit_process))
        await stop.wait()
        parts.queue.shut_down()
        if parts.elector.is_leader:
            await asyncio.wait([lead_task], timeout=DRAIN_SECONDS)
        lead_task.cancel()
        watch_task.cancel()
        parts.observer.stop()


async def lead(parts: OperatorParts, exit_process: Callable[[int], object]) -> None:
    """Wait for the Lease, work while it is held, release it when the queue is shut down.

    A standby's watch may have been dead for minutes unnoticed, and a plan from before its predecessor's last writes
    could undo them, for example move traffic back to a revision that is gone. So a new leader lists everything again.
    A lost leader's last writes are drift like any other, which the next pass repairs: an apply makes the object what
    the plan says, a deletion names a uid.
    """
    observer, elector = parts.observer, parts.elector
    is_fresh = elector.is_leader
    if not is_fresh:
        log.info("Another replica is the leader, this one watches until it gets the Lease")
        with exit_at_loss(exit_process):
            await elector.acquire()
    async with asyncio.TaskGroup() as group:
        hold_task = group.create_task(hold(elector, exit_process))
        # In both cases with the CRs: kopf does not say when it has delivered them all, and an R1PlusTenant that is
        # being deleted waits for those that exist.
        await (observer.catch_up() if is_fresh else observer.relist())
        log.info("Caches are synced: %d engines in the cluster", len(observer.engines.store))
        await work(parts)
        hold_task.cancel()
    # Every pass has ended and every answer has come: none of our writes can follow the next leader's.
    await elector.release()


async def hold(elector: Elector, exit_process: Callable[[int], object]) -> None:
    """Renew until the Lease is lost: then everything else is cancelled, and if that hangs, the process exits."""
    with exit_at_loss(exit_process):
        await elector.hold()


@contextlib.contextmanager
def exit_at_loss(exit_process: Callable[[int], object]) -> Iterator[None]:
    """Log why this process has to end, and make sure that it does."""
    try:
        yield
    except (LeaseLostError, SetBackError) as error:
        reason = "etcd was set back" if isinstance(error, SetBackError) else "this replica lost the Lease"
        log.error("Exiting, because %s: %s", reason, error)
        asyncio.get_running_loop().call_later(EXIT_SECONDS, exit_process, LOST_STATUS)
        raise


async def work(parts: OperatorParts) -> None:
    """Run the pollers, and reconcile until the queue is shut down."""
    queue, router = parts.queue, parts.router
    queue.add(CATALOG, Priority.LOW)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(poller.run()) for poller in parts.pollers]
        tasks.append(group.create_task(resync(parts.observer, queue, parts.rand)))
        if parts.recorder is not None:
            tasks.append(group.create_task(record_facts(*parts.recorder)))
        with contextlib.suppress(TimeoutError):
            # A pass before the first answers of monitors and Prometheus would change every status.
            async with asyncio.timeout(FIRST_ANSWERS_SECONDS):
                await asyncio.gather(*(poller.first_round.wait() for poller in parts.pollers))
        handle = parts.instruments.time_pass(router.reconcile)
        await run_workers(queue, parts.workers, handle, on_error=router.on_error)
        for task in tasks:
            task.cancel()


async def record_facts(recorder: FactRecorder, client: RegistryClient) -> None:
    """Deliver facts to the registry until cancelled."""
    async with client:
        await recorder.run(client)


async def watch_crs(parts: OperatorParts, stop: asyncio.Event) -> None:
    """Let kopf watch the CRs until cancelled; raise if its watch fails.

    Not by `kopf.operator`: at a signal that cancels every task that began after it, including passes under way.
    """
    registry = build_registry(parts.observer, parts.edits)
    tasks = await kopf.spawn_tasks(registry=registry, settings=kopf_settings(), standalone=True, clusterwide=True)
    stop_at_signals(stop)
    try:
        ended_tasks, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended_tasks:
            task.result()
        stop.set()  # Only a signal that came before our handlers were set ends kopf without an error.
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stop_at_signals(stop: asyncio.Event) -> None:
    """Set `stop` at SIGTERM and SIGINT, replacing earlier handlers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def resync(observer: Observer, queue: WorkQueue[PassKey], rand: random.Random) -> None:
    """Enqueue everything at intervals, in case an event was lost; jittered, to spread the load."""
    while True:
        await asyncio.sleep(RESYNC_SECONDS * rand.uniform(0.8, 1.2))
        queue.add(CATALOG, Priority.LOW)
        keys: list[PassKey] = [*observer.list_tenant_keys(), *observer.crs]
        for key in keys:
            queue.add_after(key, rand.uniform(0, 60))
