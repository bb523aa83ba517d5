"""The operator's process: build the parts, keep the caches warm, work while the Lease is held.

`python -m r1plus_operator`. Everything that acts is created here and passed on; no module holds state.

Every replica watches; the one that holds the Lease plans and writes, and asks the monitors. All writes go through one
client, whose fence is the Lease: none is sent without it, none may be under way when it ends. Who loses it exits.
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
from dataclasses import dataclass
from functools import partial

import kopf
import uvloop

from r1plus_contract import names
from r1plus_operator import health
from r1plus_operator.config import ConfigError, Settings, from_environment
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.controllers.deployment import DeploymentReconciler
from r1plus_operator.controllers.tenant import TenantReconciler
from r1plus_operator.metrics.instruments import OperatorMetrics
from r1plus_operator.observe.caches import CATALOG_KEY, TENANT_NAME, Key
from r1plus_operator.observe.kopf_watch import build_registry
from r1plus_operator.observe.kopf_watch import build_settings as kopf_settings
from r1plus_operator.observe.monitor_poller import MonitorPoller
from r1plus_operator.observe.observer import Observer
from r1plus_operator.observe.pooled_detectors import Pools
from r1plus_operator.observe.prometheus_poller import PrometheusPoller
from r1plus_operator.observe.token_issuer import TokenIssuerPoller
from r1plus_operator.registry.client import RegistryClient
from r1plus_operator.registry.recorder import FactRecorder
from r1plus_operator.runtime.client import ApiClient, RequestLimits
from r1plus_operator.runtime.connection import FileToken
from r1plus_operator.runtime.lanes import Lane
from r1plus_operator.runtime.lease import Elector, LeaseLostError, LeaseTerms
from r1plus_operator.runtime.pace import GroupRateLimiter
from r1plus_operator.runtime.queue import WorkQueue, run_workers

log = logging.getLogger(__name__)
Source = MonitorPoller | PrometheusPoller | TokenIssuerPoller
RESYNC_SECONDS = 900.0
FIRST_ANSWERS_SECONDS = 15.0
PROMETHEUS_SECONDS = 20.0
DRAIN_SECONDS = 10.0
"""For the passes under way at a signal. The pod has 20 s; a pass is a few writes of milliseconds."""
EXIT_SECONDS = 5.0
"""For tasks that are cancelled because the Lease is lost; then the process ends whatever they do."""
LOST_STATUS = 3
MOST_LOGGED = 2000
"""Characters of a message in the log."""
SHARES = 4
"""A namespace has this part of the workers at most, so that its thousand changes leave others their turn."""
EDITS_AT_ONCE, EDITS_PER_SECOND = 50, 0.5
"""Of a namespace. Whoever edits a thousand CRs in a loop waits for it, and nobody else does.

A pass slows another's down while both are under way: at two per second that would be every eighth pass of the others,
at one every two seconds it is every twentieth.
"""
COLLECT_AFTER = 2_000
"""New objects until Python looks for cycles: there are few, and a look takes its time from passes. But what kopf and
aiohttp leave in cycles are whole objects of the API server, of which 2,000 may be as many times 256 KiB."""


class OneLineFormatter(logging.Formatter):
    """Writes each message as one bounded line: what pods, people and servers say is in some of them.

    Only traces, which follow a message, have several lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line, whatever the message holds."""
        record.message = "".join(map(_printable, record.message[:MOST_LOGGED]))
        return super().formatMessage(record)


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def main() -> None:
    """Run until a signal or until a part fails (then exit non-zero, for Kubernetes to start afresh)."""
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        chosen = from_environment()
    except (ConfigError, ValueError, OSError) as error:
        log.error("Configuration is not usable: %s", error)
        sys.exit(2)
    collect_seldom()
    status = 0
    try:
        uvloop.run(run(chosen))
    except* LeaseLostError:
        status = LOST_STATUS
    sys.exit(status)


def collect_seldom() -> None:
    """What is loaded by now stays until the end: the garbage collector need not look at it ever again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


@dataclass(frozen=True, slots=True)
class Parts:
    """What `run` has built."""

    observer: Observer
    queue: WorkQueue[Key]
    reconciler: DeploymentReconciler
    sources: tuple[Source, ...]
    elector: Elector
    instruments: OperatorMetrics
    workers: int
    history: tuple[FactRecorder, RegistryClient] | None
    """Who tells the registry, and how; None where there is none."""


async def run(chosen: Settings) -> None:
    """The whole operator; returns on SIGTERM or SIGINT. Raises LeaseLostError (in a group) when it is fenced off."""
    agent = f"{names.FIELD_MANAGER} ({chosen.identity})"
    # Two connections: a renewal never waits behind writes, and it alone passes without the fence.
    async with (
        ApiClient.autodetect(user_agent=agent) as client,
        ApiClient.autodetect(limits=RequestLimits(request=LeaseTerms().call, retries=0), user_agent=agent) as election,
    ):
        parts = build(chosen, client, election)
        pulse = health.Pulse()
        runner = await health.serve(
            chosen.health_port,
            lambda: parts.observer.is_synced,
            lambda: health.problem(parts.observer.list_reflectors(), pulse.late),
            parts.instruments.registry,
        )
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(pulse.run())
                await operate(parts)
                beating.cancel()
        finally:
            await runner.cleanup()


def build(chosen: Settings, client: ApiClient, election: ApiClient) -> Parts:
    """Make the parts and tie them to each other."""
    queue: WorkQueue[Key] = WorkQueue(lane=lane, most_of_group=max(1, chosen.workers // SHARES))
    pace = GroupRateLimiter(queue.add_after, lambda key: key[0], rate=EDITS_PER_SECOND, burst=EDITS_AT_ONCE)
    observer = Observer(
        client,
        queue.add,
        chosen.suites,
        decoy_namespace=chosen.operator.isolation.decoy_namespace,
        enqueue_urgent=partial(queue.add, urgent=True),
        enqueue_edited=pace.add,
        slots=chosen.operator.max_concurrent,
    )
    terms = LeaseTerms.for_duration(chosen.lease_seconds)
    elector = Elector(election, chosen.operator.operator_namespace, names.LEASE, chosen.identity, terms=terms)
    instruments = OperatorMetrics()
    instruments.watch(queue, elector)
    client.on_write = instruments.count_write
    client.fence = elector.count_remaining_seconds
    told = instruments.deployments
    pools = Pools(time.monotonic, told.record_pool)
    executor = Applier(client, observer)
    history = history_of(chosen, observer, instruments)
    noticed = history[0].mark_dirty if history else None
    return Parts(
        observer=observer,
        queue=queue,
        reconciler=DeploymentReconciler(
            observer,
            executor,
            queue,
            chosen.operator,
            chosen.catalog,
            pools,
            told,
            TenantReconciler(observer, executor, queue, chosen.operator, instruments.isolation),
            on_reconciled=noticed,
        ),
        sources=sources_of(chosen, client, observer, pools),
        elector=elector,
        instruments=instruments,
        workers=chosen.workers,
        history=history,
    )


def lane(key: Key) -> Lane:
    """Walls before what stands within them; and a tenant waits for its own keys only."""
    return Lane(is_urgent=key[1] == TENANT_NAME, group=key[0])


def history_of(
    chosen: Settings, observer: Observer, instruments: OperatorMetrics
) -> tuple[FactRecorder, RegistryClient] | None:
    """Who tells the registry of what was observed, where this installation has one."""
    if not chosen.registry_url:
        return None
    rand = random.Random()  # noqa: S311 - jitter only
    historian = FactRecorder(observer, chosen.operator.suite_trust.shipped_digests, instruments, rand)
    return historian, RegistryClient(chosen.registry_url, FileToken(chosen.registry_token))


def sources_of(chosen: Settings, client: ApiClient, observer: Observer, pools: Pools) -> tuple[Source, ...]:
    """Whom a leader asks: the monitors, the API server for its token issuer, and Prometheus if its address is known."""
    rand = random.Random()  # noqa: S311 - jitter only
    sources = (
        MonitorPoller(observer, pools, chosen.verdict_interval, rand),
        TokenIssuerPoller(client, observer, rand),
    )
    url = chosen.operator.prometheus_url
    return (*sources, PrometheusPoller(observer, url, PROMETHEUS_SECONDS, rand)) if url else sources


async def operate(parts: Parts) -> None:
    """Watch, and lead when it is this process's turn, until a signal; then give the Lease back."""
    stop = asyncio.Event()
    stop_at_signals(stop)
    # Who leads before its first list has caches that are as new as its Lease.
    await parts.elector.attempt()
    async with asyncio.TaskGroup() as group:
        parts.observer.start(group)
        watching = group.create_task(watch_crs(parts.observer, stop))
        leading = group.create_task(lead(parts))
        await stop.wait()
        parts.queue.shut_down()
        if parts.elector.is_leader:
            await asyncio.wait([leading], timeout=DRAIN_SECONDS)
        leading.cancel()
        watching.cancel()
        parts.observer.stop()


async def lead(parts: Parts) -> None:
    """Wait for the Lease, work while it is held, give it back when the queue is shut down.

    A standby's watch may have been dead for minutes without anybody knowing, and a plan from before its predecessor's
    last writes could undo them: move traffic back to a revision that is gone, say. So whoever takes over lists once
    more. What a lost leader sent and nobody saw answered is drift like any other, which the next pass repairs: an apply
    makes the object what the plan says, a deletion names a uid.
    """
    observer, elector = parts.observer, parts.elector
    fresh = elector.is_leader
    if not fresh:
        log.info("Another process leads, watching until it is this one's turn")
        await elector.acquire()
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(hold(elector))
        # With the CRs in either case: kopf does not say when it has delivered them all, and an R1PlusTenant that is
        # being deleted waits for those that there are.
        await (observer.catch_up() if fresh else observer.relist())
        log.info("Caches are synced: %d engines in the cluster", len(observer.engines.store))
        await work(parts)
        holding.cancel()
    # Every pass has ended and every answer has come: nothing of ours can follow the next leader's writes.
    await elector.release()


async def hold(elector: Elector) -> None:
    """Renew until the Lease is lost: then everything else is cancelled, and if that hangs, the process ends."""
    try:
        await elector.hold()
    except LeaseLostError as error:
        log.error("Exiting, since this process leads no more: %s", error)
        asyncio.get_running_loop().call_later(EXIT_SECONDS, os._exit, LOST_STATUS)
        raise


async def work(parts: Parts) -> None:
    """Ask whom there is to ask, and make passes until the queue is shut down."""
    queue, reconciler = parts.queue, parts.reconciler
    queue.add(CATALOG_KEY)
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(source.run()) for source in parts.sources]
        beside.append(group.create_task(resync(parts.observer, queue)))
        if parts.history is not None:
            beside.append(group.create_task(tell(*parts.history)))
        with contextlib.suppress(TimeoutError):
            # A pass without what monitors and Prometheus say would change every status until they are heard.
            async with asyncio.timeout(FIRST_ANSWERS_SECONDS):
                await asyncio.gather(*(source.first_round.wait() for source in parts.sources))
        handle = parts.instruments.time_pass(reconciler.reconcile)
        await run_workers(queue, parts.workers, handle, on_error=reconciler.on_error)
        for task in beside:
            task.cancel()


async def tell(historian: FactRecorder, client: RegistryClient) -> None:
    """Deliver facts to the registry until cancelled."""
    async with client:
        await historian.run(client)


async def watch_crs(observer: Observer, stop: asyncio.Event) -> None:
    """Let kopf watch the CRs until cancelled; raises if its watching fails.

    Not by `kopf.operator`: that one ends, at a signal, every task that began after it, passes under way included.
    """
    tasks = await kopf.spawn_tasks(
        registry=build_registry(observer), settings=kopf_settings(), standalone=True, clusterwide=True
    )
    stop_at_signals(stop)
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        stop.set()  # only a signal that came before ours were set ends kopf without an error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stop_at_signals(stop: asyncio.Event) -> None:
    """Set `stop` at SIGTERM and SIGINT, whoever took them before."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def resync(observer: Observer, queue: WorkQueue[Key]) -> None:
    """Look at everything now and then, in case an event was lost; jittered, so that it is no wave."""
    rand = random.Random()  # noqa: S311 - jitter only
    while True:
        await asyncio.sleep(RESYNC_SECONDS * rand.uniform(0.8, 1.2))
        queue.add(CATALOG_KEY)
        for key in [*observer.list_tenant_keys(), *observer.crs]:
            queue.add_after(key, rand.uniform(0, 60))
