"""The operator's process: build the parts, start the caches, then let kopf watch and the workers work.

`python -m r1plus_operator`. Everything that acts is created here and passed on; no module holds state.
"""

import asyncio
import contextlib
import logging
import random
import sys
import time

import kopf
import uvloop

from r1plus_operator.config import ConfigError, Settings, from_environment
from r1plus_operator.executor import Executor
from r1plus_operator.handlers import registry_for
from r1plus_operator.handlers import settings as kopf_settings
from r1plus_operator.health import serve
from r1plus_operator.instruments import Instruments
from r1plus_operator.observe import CATALOG_KEY, Key, Observer
from r1plus_operator.prometheus import PrometheusSource
from r1plus_operator.reconciler import Reconciler
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.queue import WorkQueue, run_workers
from r1plus_operator.verdicts import VerdictSource

log = logging.getLogger(__name__)
STUCK_SECONDS = 200.0
"""A watch brings a bookmark every two minutes at the latest and is cut after 150 silent seconds: then it is stuck."""
RESYNC_SECONDS = 900.0
FIRST_ANSWERS_SECONDS = 15.0
PROMETHEUS_SECONDS = 20.0


def main() -> None:
    """Run until a signal or until a part fails (then exit non-zero, for Kubernetes to start afresh)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        chosen = from_environment()
    except (ConfigError, ValueError, OSError) as error:
        log.error("Configuration is not usable: %s", error)
        sys.exit(2)
    uvloop.run(run(chosen))


async def run(chosen: Settings) -> None:
    """The whole operator; returns on SIGTERM or SIGINT."""
    client = ApiClient.autodetect()
    queue: WorkQueue[Key] = WorkQueue()
    observer = Observer(client, queue.add, chosen.suites)
    reconciler = Reconciler(observer, Executor(client, observer), queue, chosen.operator, chosen.catalog)
    instruments = Instruments()
    instruments.watch(queue)
    client.on_write = instruments.wrote
    verdicts = VerdictSource(observer, chosen.verdict_interval, random.Random())  # noqa: S311 - jitter only
    runner = await serve(chosen.health_port, lambda: observer.is_synced, lambda: stuck(observer), instruments.registry)
    try:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(reflector.run()) for reflector in observer.reflectors()]
            await observer.synced()
            log.info("Caches are synced: %d engines in the cluster", len(observer.engines.store))
            queue.add(CATALOG_KEY)
            parts.append(group.create_task(verdicts.run()))
            asked = [verdicts.asked.wait()]
            if url := chosen.operator.prometheus_url:
                source = PrometheusSource(observer, url, PROMETHEUS_SECONDS, random.Random())  # noqa: S311 - jitter only
                parts.append(group.create_task(source.run()))
                asked.append(source.asked.wait())
            with contextlib.suppress(TimeoutError):
                # A pass without what monitors and Prometheus say would change every status until they are heard.
                await asyncio.wait_for(asyncio.gather(*asked), FIRST_ANSWERS_SECONDS)
            handle = instruments.timed(reconciler.reconcile)
            parts.append(group.create_task(run_workers(queue, chosen.workers, handle, on_error=reconciler.on_error)))
            parts.append(group.create_task(resync(observer, queue)))
            await watch_crs(observer)
            for part in parts:
                part.cancel()
    finally:
        queue.shut_down()
        await runner.cleanup()
        await client.close()


async def watch_crs(observer: Observer) -> None:
    """Let kopf watch the CRs until a signal, which kopf takes; raises if its watching fails."""
    await kopf.operator(registry=registry_for(observer), settings=kopf_settings(), standalone=True, clusterwide=True)


async def resync(observer: Observer, queue: WorkQueue[Key]) -> None:
    """Look at everything now and then, in case an event was lost; jittered, so that it is no wave."""
    rand = random.Random()  # noqa: S311 - jitter only
    while True:
        await asyncio.sleep(RESYNC_SECONDS * rand.uniform(0.8, 1.2))
        queue.add(CATALOG_KEY)
        for key in list(observer.crs):
            queue.add_after(key, rand.uniform(0, 60))


def stuck(observer: Observer) -> str:
    """What has not been heard of for too long; empty when all is well."""
    now = time.monotonic()
    silent = [r.resource.name for r in observer.reflectors() if now - r.last_activity > STUCK_SECONDS]
    return f"no sign of life from the watches of {', '.join(silent)}" if silent else ""
