"""The reflector against the real API server, through a network that breaks."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api.crd import CRD
from r1plus_operator.api.kinds import CONFIG_MAP
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.queue import WorkQueue, run_workers
from r1plus_operator.runtime.reflector import Reflector, ReflectorTiming
from r1plus_operator.runtime.resources import Resource
from support.apiserver.broken_network import broken_network
from support.apiserver.manifests import Json, manifest
from support.apiserver.reflected import FAST, MANAGED, PATIENT, Item, project, put
from support.apiserver.server import install_crd
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.apiserver


class Seen:
    """A running reflector of ConfigMaps with our label, and what it reported."""

    def __init__(
        self, client: ApiClient, namespace: str, timing: ReflectorTiming, resource: Resource, optional: bool
    ) -> None:
        self.log: list[tuple[str, str]] = []
        self.reflector = Reflector(
            client, resource, project=project, on_change=lambda event, item: self.log.append((event, item.name)),
            namespace=namespace, label_selector="app.kubernetes.io/managed-by=op", page_size=7, timing=timing,
            optional=optional,
        )  # fmt: skip

    @property
    def contents(self) -> dict[str, str]:
        return {item.name: item.data for item in self.reflector.store.items()}


@asynccontextmanager
async def reflecting(
    client: ApiClient,
    namespace: str,
    timing: ReflectorTiming = PATIENT,
    resource: Resource = CONFIG_MAP,
    optional: bool = False,
) -> AsyncIterator[Seen]:
    seen = Seen(client, namespace, timing, resource, optional)
    task = asyncio.create_task(seen.reflector.run())
    try:
        await asyncio.wait_for(seen.reflector.sync_event.wait(), DEADLINE_SECONDS)
        yield seen
        assert not task.done(), "the reflector ended, which only cancelling may do"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_was_there_and_what_comes_is_reported_once(client: ApiClient, namespace: str) -> None:
    await asyncio.gather(*(put(client, namespace, f"c{i}") for i in range(20)))
    await put(client, namespace, "foreign", labels={})
    async with reflecting(client, namespace) as seen:
        assert sorted(seen.log) == [("ADDED", name) for name in sorted(f"c{i}" for i in range(20))]
        seen.log.clear()
        await put(client, namespace, "new")
        await put(client, namespace, "new", "2")
        await put(client, namespace, "new", "2")
        await client.delete(CONFIG_MAP, "new", namespace)
        await eventually(lambda: len(seen.log) == 3, "three events are reported")
        assert seen.log == [("ADDED", "new"), ("MODIFIED", "new"), ("DELETED", "new")]


async def test_an_object_that_loses_our_label_is_as_good_as_deleted(client: ApiClient, namespace: str) -> None:
    await put(client, namespace, "a")
    async with reflecting(client, namespace) as seen:
        await put(client, namespace, "a", labels={})
        await eventually(lambda: seen.contents == {}, "it is gone from the store")
        await put(client, namespace, "a")
        await eventually(lambda: len(seen.log) == 3, "it is in the store again")
        assert seen.log == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]


@pytest.mark.parametrize("fault", ["cut", "refuse", "freeze"])
async def test_nothing_is_missed_while_the_network_is_down(
    apiserver: ApiServer, client: ApiClient, namespace: str, fault: str
) -> None:
    for name in ("kept", "deleted", "replaced"):
        await put(client, namespace, name, "1")
    async with broken_network(apiserver) as (proxy, far), reflecting(far, namespace, FAST) as seen:
        getattr(proxy, fault)()
        await put(client, namespace, "kept", "2")
        await put(client, namespace, "made", "1")
        await client.delete(CONFIG_MAP, "deleted", namespace)
        await client.delete(CONFIG_MAP, "replaced", namespace)
        await put(client, namespace, "replaced", "2")
        accepted = proxy.accepted
        if fault != "cut":
            await eventually(lambda: proxy.accepted > accepted, "the client has tried again")
        proxy.restore()
        await eventually(
            lambda: seen.contents == {"kept": "2", "made": "1", "replaced": "2"}, "the store is what the server has"
        )
        assert ("DELETED", "deleted") in seen.log
        assert ("DELETED", "replaced") in seen.log


async def test_after_any_changes_and_any_breaks_the_store_is_what_the_server_has(
    apiserver: ApiServer, client: ApiClient, namespace: str
) -> None:
    rand = random.Random(3)
    async with broken_network(apiserver) as (proxy, far), reflecting(far, namespace, FAST) as seen:
        for step in range(300):
            name = f"c{rand.randrange(12)}"
            if rand.random() < 0.3:
                await remove_if_there(client, namespace, name)
            else:
                await put(client, namespace, name, str(step))
            if rand.random() < 0.1:
                rand.choice([proxy.cut, proxy.refuse, proxy.freeze])()
            elif rand.random() < 0.2:
                proxy.restore()
        proxy.restore()
        items, _ = await client.list(CONFIG_MAP, namespace, label_selector="app.kubernetes.io/managed-by=op")
        truth = {item["metadata"]["name"]: item["data"]["x"] for item in items}
        await eventually(lambda: seen.contents == truth, "the store is what the server has")


async def remove_if_there(client: ApiClient, namespace: str, name: str) -> None:
    items, _ = await client.list(CONFIG_MAP, namespace)
    if any(item["metadata"]["name"] == name for item in items):
        await client.delete(CONFIG_MAP, name, namespace)


async def test_a_kind_may_come_and_go(client: ApiClient, namespace: str) -> None:
    group = f"g{uuid.uuid4().hex[:8]}.example"
    widgets = Resource(group, "v1", "widgets", "Widget")
    widget = manifest(widgets, "w", namespace, labels=MANAGED, spec={"x": "1"})
    async with reflecting(client, namespace, FAST, widgets, optional=True) as seen:
        assert seen.reflector.is_available is False
        await install_crd(client, widget_crd(group))
        await eventually(lambda: seen.reflector.is_available, "the kind is seen")
        await client.apply(widgets, widget, field_manager="test")
        await eventually(lambda: seen.contents == {"w": "1"}, "its object is seen")
        await client.delete(CRD, f"widgets.{group}")
        await eventually(lambda: seen.contents == {} and not seen.reflector.is_available, "the kind is gone")
        assert seen.log == [("ADDED", "w"), ("DELETED", "w")]


def widget_crd(group: str) -> Json:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    known = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": group, "scope": "Namespaced", "names": known, "versions": [version]}
    return manifest(CRD, f"widgets.{group}", spec=spec)


async def test_queue_reflector_and_client_repair_what_is_deleted(client: ApiClient, namespace: str) -> None:
    """A whole controller in few lines: for each `want-N` there shall be a `have-N`."""
    queue: WorkQueue[str] = WorkQueue()
    failures: list[Exception] = []

    def enqueue(_: str, item: Item) -> None:
        queue.add(item.name.split("-")[1])

    reflector = Reflector(client, CONFIG_MAP, project=project, on_change=enqueue, namespace=namespace, timing=PATIENT)

    async def reconcile(number: str) -> None:
        wanted, there = (reflector.store.get(namespace, f"{word}-{number}") for word in ("want", "have"))
        if wanted and not there:
            await put(client, namespace, f"have-{number}")
        elif there and not wanted:
            await client.delete(CONFIG_MAP, there.name, namespace, uid=there.uid)

    watching = asyncio.create_task(reflector.run())
    working = asyncio.create_task(run_workers(queue, 4, reconcile, on_error=lambda _, error: failures.append(error)))
    await asyncio.gather(*(put(client, namespace, f"want-{i}") for i in range(10)))
    await eventually(lambda: len(reflector.store) == 20, "every want has its have")
    deleted = {item.uid for item in reflector.store.items()}
    await asyncio.gather(*(client.delete(CONFIG_MAP, f"have-{i}", namespace) for i in range(10)))
    await eventually(
        lambda: len({item.uid for item in reflector.store.items()} - deleted) == 10, "every want has another have"
    )
    await asyncio.gather(*(client.delete(CONFIG_MAP, f"want-{i}", namespace) for i in range(10)))
    await eventually(lambda: len(reflector.store) == 0, "all are gone")
    queue.shut_down()
    await asyncio.wait_for(working, DEADLINE_SECONDS)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not failures
