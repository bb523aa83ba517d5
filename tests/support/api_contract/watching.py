"""Behaviours of watches: order, versions, selectors, ends."""

import asyncio
from contextlib import aclosing

from support.api_contract.cluster import CONFIG_MAP, FINALIZER, R1P, WATCH_SECONDS, Cluster
from support.apiserver import manifests


async def a_watch_goes_on_from_its_version(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map("before"))
    version = await cluster.read_version()
    made = await cluster.client.create(CONFIG_MAP, cluster.config_map("a", x="1"))
    changed = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "2"}})
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    events = await cluster.read_events(version, 3)
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [obj for _, obj in events[:2]] == [made, changed], "kind and apiVersion included"


async def a_deletion_has_a_version_of_its_own(cluster: Cluster) -> None:
    made = await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    ((kind, gone),) = await cluster.read_events(made["metadata"]["resourceVersion"], 1)
    assert (kind, gone["data"], gone["metadata"]["uid"]) == ("DELETED", {"x": "1"}, made["metadata"]["uid"])
    assert int(gone["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def a_watch_brings_what_happens_while_it_is_open(cluster: Cluster) -> None:
    version = await cluster.read_version()
    watching = asyncio.create_task(cluster.read_events(version, 2))
    await cluster.client.create(CONFIG_MAP, cluster.config_map("a"))
    await cluster.client.create(CONFIG_MAP, cluster.config_map("b"))
    assert [obj["metadata"]["name"] for _, obj in await watching] == ["a", "b"]


async def versions_rise_within_a_watch(cluster: Cluster) -> None:
    version = await cluster.read_version()
    await asyncio.gather(*(cluster.client.create(CONFIG_MAP, cluster.config_map(f"c{i}")) for i in range(8)))
    versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in await cluster.read_events(version, 8)]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)


async def a_write_that_changes_nothing_is_no_event(cluster: Cluster) -> None:
    made = await cluster.client.apply(CONFIG_MAP, cluster.config_map(x="1"), field_manager="op")
    await cluster.client.apply(CONFIG_MAP, cluster.config_map(x="1"), field_manager="op")
    await cluster.client.create(CONFIG_MAP, cluster.config_map("last"))
    ((_, obj),) = await cluster.read_events(made["metadata"]["resourceVersion"], 1)
    assert obj["metadata"]["name"] == "last"


async def an_object_that_loses_its_label_is_deleted_to_a_selector(cluster: Cluster) -> None:
    version = await cluster.read_version()
    await cluster.client.create(CONFIG_MAP, cluster.config_map("a", {"app": "x"}, x="1"))
    lost = await cluster.client.patch(
        CONFIG_MAP, "a", cluster.namespace, {"metadata": {"labels": {"app": None}}, "data": {"x": "2"}}
    )
    events = await cluster.read_events(version, 2, label_selector="app=x")
    assert [kind for kind, _ in events] == ["ADDED", "DELETED"]
    assert events[1][1]["data"] == {"x": "1"}, "as it was last selected"
    assert events[1][1]["metadata"]["resourceVersion"] == lost["metadata"]["resourceVersion"]


async def an_object_that_gets_a_label_is_added_to_a_selector(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    version = await cluster.read_version()
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"metadata": {"labels": {"app": "x"}}})
    ((kind, obj),) = await cluster.read_events(version, 1, label_selector="app=x")
    assert (kind, obj["metadata"]["labels"]) == ("ADDED", {"app": "x"})


async def what_a_selector_does_not_select_is_no_event(cluster: Cluster) -> None:
    version = await cluster.read_version()
    await cluster.client.create(CONFIG_MAP, cluster.config_map("a"))
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    await cluster.client.create(CONFIG_MAP, cluster.config_map("b", {"app": "x"}))
    ((_, obj),) = await cluster.read_events(version, 1, label_selector="app=x")
    assert obj["metadata"]["name"] == "b"


async def a_mark_for_deletion_is_a_modification(cluster: Cluster) -> None:
    made = await cluster.create(CONFIG_MAP, cluster.config_map(), finalizers=[FINALIZER])
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"metadata": {"finalizers": None}})
    events = await cluster.read_events(made["metadata"]["resourceVersion"], 2)
    assert [kind for kind, _ in events] == ["MODIFIED", "DELETED"]
    assert all("deletionTimestamp" in obj["metadata"] for _, obj in events)


async def a_status_is_a_modification(cluster: Cluster) -> None:
    made = await cluster.client.create(R1P, cluster.r1plus_deployment())
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    written = await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    events = await cluster.read_events(made["metadata"]["resourceVersion"], 1, R1P)
    assert events == [("MODIFIED", written)]


async def a_watch_of_metadata_has_nothing_else(cluster: Cluster) -> None:
    version = await cluster.read_version()
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    ((_, obj),) = await cluster.read_events(version, 1, metadata_only=True)
    assert (obj["kind"], obj["metadata"]["name"]) == ("PartialObjectMetadata", "a")
    assert "data" not in obj


async def a_watch_ends_at_its_time_without_an_error(cluster: Cluster) -> None:
    version = await cluster.read_version()
    assert await cluster.read_events(version, 1, lifetime_s=1.0) == []


async def a_watch_from_the_future_is_silent(cluster: Cluster) -> None:
    version = int(await cluster.read_version())
    watch = cluster.client.watch(CONFIG_MAP, str(version + 100_000), namespace=cluster.namespace, lifetime_s=2.0)
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    async with asyncio.timeout(WATCH_SECONDS), aclosing(watch) as stream:
        assert [kind async for kind, _ in stream] == []


async def each_change_has_the_version_of_its_answer(cluster: Cluster) -> None:
    version = await cluster.read_version()
    answers = [
        await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1")),
        await cluster.client.apply(CONFIG_MAP, cluster.config_map(y="1"), field_manager="op"),
        await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "3"}}),
    ]
    events = await cluster.read_events(version, 3)
    assert [obj["metadata"]["resourceVersion"] for _, obj in events] == [
        one["metadata"]["resourceVersion"] for one in answers
    ]
