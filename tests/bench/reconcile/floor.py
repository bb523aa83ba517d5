"""The floor: a client that knows beforehand what to write and does nothing but write it, 16 requests in flight.

Its bodies are rendered and encoded before the clock starts, its answers are read and not looked at.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.observation import Json, Observation
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.runtime.connection import ApiConnection

IN_FLIGHT = 16
NOW = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Write:
    """One request, ready to be sent."""

    method: str
    path: str
    content_type: str
    body: bytes


def created(cr: Json) -> Write:
    """A user makes an R1PlusDeployment."""
    path = kinds.R1PLUS_DEPLOYMENT.path(cr["metadata"]["namespace"])
    return Write("POST", path, "application/json", orjson.dumps(cr))


def removed(namespace: str) -> Write:
    """All R1PlusDeployments of a namespace go, so that no operator takes them up."""
    return Write("DELETE", kinds.R1PLUS_DEPLOYMENT.path(namespace), "application/json", b"{}")


def applied(obj: Json, subresource: str = "") -> Write:
    """Server-side apply, as the operator does it."""
    meta, resource = obj["metadata"], kinds.BY_KIND[obj["kind"]]
    path = resource.path(meta["namespace"], meta["name"], subresource)
    query = f"?fieldManager={names.FIELD_MANAGER}&force=true"
    return Write("PATCH", path + query, "application/apply-patch+yaml", orjson.dumps(obj))


def answer_to(observed: Observation, config: OperatorConfig) -> list[Write]:
    """Everything that the operator's own plan writes for a new CR: its status and its children."""
    planned = plan(observed, config, NOW)
    meta = {key: observed.cr["metadata"][key] for key in ("name", "namespace")}
    status = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_DEPLOYMENT,
        "metadata": meta,
        "status": planned.status,
    }
    return [applied(status, "status"), *(applied(obj) for obj in itertools.chain.from_iterable(planned.apply))]


class BareClient:
    """One aiohttp session; TLS and credentials as given."""

    def __init__(self, connection: ApiConnection) -> None:
        self._connection = connection
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._connection.tls or True)
        self._session = aiohttp.ClientSession(connector=connector, headers={"Accept-Encoding": "identity"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, writes: Iterable[Write]) -> float:
        """Send all, IN_FLIGHT at a time; the seconds it took. RuntimeError where one is refused."""
        waiting = iter(writes)

        async def worker() -> None:
            for write in waiting:
                await self._one(write)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
        return time.perf_counter() - began

    async def _one(self, write: Write) -> None:
        assert self._session is not None, "used outside of its context"
        url, headers = self._connection.server + write.path, {"Content-Type": write.content_type}
        async with self._session.request(write.method, url, data=write.body, headers=headers) as response:
            body = await response.read()
            if response.status >= 400:
                raise RuntimeError(f"{write.method} {write.path}: {response.status} {body.decode(errors='replace')}")
