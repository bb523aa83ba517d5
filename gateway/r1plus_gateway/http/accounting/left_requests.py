"""Requests that ran when a gateway was killed: pods are asked what they have used, and that is billed.

What no pod knows counts as used in full, at once; what none says in time, when the store gives up waiting.
"""

import asyncio
import contextlib
import logging
from typing import Final

from r1plus_gateway.http.schemas.code_tool import MOST_RUNS
from r1plus_gateway.serving.errors import ServingError
from r1plus_gateway.serving.left_usage import ask_usage
from r1plus_gateway.serving.models import Models
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.ledger.left_instances import LeftRequest
from r1plus_gateway.store.tenant import TenantStore

log = logging.getLogger(__name__)
LEFT_SECONDS: Final = 1.0
"""Between two tries."""
MOST_AT_ONCE: Final = 16
"""Requests for which pods are asked at one time: they serve others meanwhile."""


async def watch_left_requests(store: TenantStore, models: Models) -> None:
    """Settle what gateways leave that are gone, by the count of the pods, until cancelled."""
    while True:
        try:
            await settle_left_requests(store, models)
        except Exception:  # else the task ends, and what is left counts in full
            log.exception("Pods could not be asked for requests of a gateway that is gone; trying again")
        await asyncio.sleep(LEFT_SECONDS)


async def settle_left_requests(store: TenantStore, models: Models) -> None:
    """Try once to settle each request that is left."""
    turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def settle(request: LeftRequest) -> None:
        pool = models.find_pool(request.model)  # None: of the calculator or the embedder, which have no pods
        with contextlib.suppress(ServingError, StoreError):
            async with turns:
                usage = None if pool is None else await ask_usage(pool, request.id, MOST_RUNS + 1)
                if await store.settle_left(request.id, usage):
                    how = "as used in full" if usage is None else "by its pods' count"
                    log.warning("Request %s of a gateway that is gone was settled %s", request.id, how)

    with contextlib.suppress(StoreError):
        await asyncio.gather(*(settle(request) for request in await store.read_left()))
