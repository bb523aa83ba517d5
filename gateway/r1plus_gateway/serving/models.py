"""The models of the settings, each with its pods, and the one queue before them all."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.serving.evidence import ReportReader
from r1plus_gateway.serving.fair_queue import FairQueue
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.serving.pods import PodPool, Resolver, resolve_service
from r1plus_gateway.serving.running_requests import RunningRequest, RunningRequests
from r1plus_gateway.settings import GatewaySettings, ModelSettings


class Models:
    """What this gateway serves; follows the settings."""

    def __init__(
        self,
        settings: GatewaySettings,
        read_report: ReportReader,
        *,
        resolve: Resolver = resolve_service,
        clock: Callable[[], float] = time.monotonic,
        on_pods: Callable[[str, int], None] = lambda model, pods: None,
    ) -> None:
        """`on_pods` is called with a model's name and the number of its pods when that changes."""
        self._settings = settings
        self._read_report = read_report
        self._resolve = resolve
        self._clock = clock
        self._on_pods = on_pods
        self._pools: dict[str, PodPool] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.queue = FairQueue(self._read_bounds)
        self.requests = RunningRequests()

    async def start(self) -> None:
        """Resolve every model once, and go on in the background."""
        self.update(self._settings)
        await asyncio.gather(*(pool.refresh() for pool in self._pools.values()))

    def update(self, settings: GatewaySettings) -> None:
        """Follow new settings. Requests that run on a pool that goes are answered; those that wait are refused."""
        self._settings = settings
        new_models = {model.name: model for model in settings.models}
        for name, pool in list(self._pools.items()):
            new = new_models.get(name)
            if new is None or new.host != pool.model.host:
                self._stop(name)
            else:
                pool.model = new
                pool.wake()
                self._set_pods(new, len(pool))
        for name in new_models.keys() - self._pools.keys():
            pool = PodPool(
                new_models[name], self._read_report, resolve=self._resolve, clock=self._clock, on_change=self._set_pods
            )
            self._pools[name] = pool
            self._tasks[name] = asyncio.create_task(pool.run())

    def list_for(self, caller: Caller) -> list[ModelSettings]:
        """Return the models that this caller may call, in the order of the settings."""
        return [model for model in self._settings.models if self._is_allowed(model, caller)]

    def find(self, name: str, caller: Caller) -> PodPool | None:
        """Return a model's pods; None if there is no such model, or none for this caller."""
        pool = self._pools.get(name)
        return pool if pool is not None and self._is_allowed(pool.model, caller) else None

    def find_pool(self, name: str) -> PodPool | None:
        """Return a model's pods, whoever may call it; None if there is no such model."""
        return self._pools.get(name)

    def begin(
        self,
        pool: PodPool,
        request: RunningRequest,
        message: Any,
        arrived: float | None = None,
        counted_prompt_tokens: int = 0,
    ) -> Generation:
        """Begin to generate for a request, which `arrived` at some monotonic time; the caller of this ends it.

        Raises:
            CallerRevokedError: the request's caller has been revoked.
        """
        request.check_caller()
        limits = self._settings.limits
        generation = Generation(
            pool,
            self.queue,
            request.caller,
            message,
            queue_seconds=limits.queue_seconds,
            silence_seconds=limits.silence_seconds,
            most_waiting_bytes=limits.slow_reader_bytes,
            counted_prompt_tokens=counted_prompt_tokens,
            arrived=arrived,
            clock=self._clock,
        )
        request.add(generation)
        return generation

    async def close(self) -> None:
        """Close every connection."""
        for name in list(self._pools):
            self._stop(name)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _is_allowed(self, model: ModelSettings, caller: Caller) -> bool:
        if caller.models is not None and model.name not in caller.models:
            return False
        return not caller.namespace or caller.namespace in (self._settings.namespace, *model.namespaces)

    def _read_bounds(self) -> tuple[int, int]:
        limits = self._settings.limits
        return limits.queue_per_key, limits.queue_per_tenant

    def _set_pods(self, model: ModelSettings, pods: int) -> None:
        self.queue.set_capacity(model.name, pods * model.batch)
        self._on_pods(model.name, pods)

    def _stop(self, name: str) -> None:
        self._tasks.pop(name).cancel()
        pool = self._pools.pop(name)
        self._set_pods(pool.model, 0)
        self.queue.refuse_waiting(name)
        task = asyncio.create_task(pool.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
