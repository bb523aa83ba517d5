"""What the simulated server adds to the contract: its history, backups, and the verbs of world actors."""

import asyncio
from typing import Any

import orjson
import pytest

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ConflictError, ForbiddenError, GoneError, InvalidError, NotFoundError
from support.api_contract.cluster import CONFIG_MAP, POD, R1P, Cluster
from support.api_contract.sequences import Sequence
from support.apiserver import manifests
from support.simulation.admission import Write
from support.simulation.collection import Collector
from support.simulation.server import Change, SimulatedApiServer

QUOTA = kinds.BY_KIND["ResourceQuota"]
POD_MONITOR = kinds.BY_KIND["PodMonitor"]


@pytest.mark.usefixtures("virtual_time")
async def test_history_is_forgotten_after_minutes(server: SimulatedApiServer, cluster: Cluster) -> None:
    version = await cluster.read_version()
    for _ in range(5):
        server.create(CONFIG_MAP, {**cluster.config_map(), "metadata": {"generateName": "c-", "namespace": "team-a"}})
        await asyncio.sleep(200.0)
    with pytest.raises(GoneError):
        await cluster.read_events(version, 1)


async def test_bookmarks_keep_a_quiet_watch_within_the_history(server: SimulatedApiServer, cluster: Cluster) -> None:
    version, bookmarks = await cluster.read_version(), []
    for _ in range(6):
        server.create(POD_MONITOR, manifests.manifest(POD_MONITOR, f"m{len(bookmarks)}", cluster.namespace))
        async for kind, obj in cluster.client.watch(CONFIG_MAP, version, lifetime_s=200.0):
            assert kind == "BOOKMARK"
            version = obj["metadata"]["resourceVersion"]
            bookmarks.append(version)
    assert len(set(bookmarks)) > 5


async def test_pages_of_forgotten_history_are_gone(server: SimulatedApiServer, cluster: Cluster) -> None:
    for name in ("a", "b"):
        server.create(CONFIG_MAP, cluster.config_map(name))
    pages = cluster.client.iter_pages(CONFIG_MAP, cluster.namespace, limit=1)
    await anext(pages)
    server.patch(CONFIG_MAP, cluster.namespace, "a", {"data": {"x": "1"}})
    server.store.compact()
    with pytest.raises(GoneError):
        await anext(pages)


async def test_a_backup_does_not_change_with_what_is_written_later(
    server: SimulatedApiServer, cluster: Cluster
) -> None:
    server.create(CONFIG_MAP, cluster.config_map(x="1"))
    backup, version = server.save(), server.version
    server.patch(CONFIG_MAP, cluster.namespace, "a", {"data": {"x": "2"}})
    server.create(CONFIG_MAP, cluster.config_map("b"))
    for _ in range(2):
        server.restore(backup)
        assert [obj["data"] for obj in server.list_objects(CONFIG_MAP)] == [{"x": "1"}]
        assert server.version == version
        server.delete(CONFIG_MAP, cluster.namespace, "a")


@pytest.mark.usefixtures("virtual_time")
async def test_a_restore_breaks_the_streams_that_are_open(server: SimulatedApiServer, cluster: Cluster) -> None:
    backup = server.save()
    watching = asyncio.create_task(cluster.read_events(await cluster.read_version(), 1))
    await asyncio.sleep(1.0)
    server.restore(backup)
    with pytest.raises(Exception, match="restarted"):
        await watching


async def test_an_apply_after_a_restore_is_not_taken_for_the_one_before(
    server: SimulatedApiServer, cluster: Cluster
) -> None:
    server.apply(CONFIG_MAP, cluster.config_map(x="1"), field_manager="op")
    backup = server.save()
    server.apply(CONFIG_MAP, cluster.config_map(x="2"), field_manager="op")
    server.restore(backup)
    server.patch(CONFIG_MAP, cluster.namespace, "a", {"data": {"x": "3"}})
    assert server.apply(CONFIG_MAP, cluster.config_map(x="2"), field_manager="op")["data"] == {"x": "2"}


async def test_children_of_a_restored_owner_are_collected(
    server: SimulatedApiServer, cluster: Cluster, collector: Collector
) -> None:
    owner = server.create(CONFIG_MAP, cluster.config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    child = cluster.config_map("child")
    child["metadata"]["ownerReferences"] = [reference]
    server.create(CONFIG_MAP, child)
    backup = server.save()
    for _ in range(2):
        server.delete(CONFIG_MAP, cluster.namespace, "owner")
        collector.collect()
        assert server.list_objects(CONFIG_MAP) == []
        server.restore(backup)


async def test_each_write_is_reported_once_with_who_made_it(server: SimulatedApiServer, cluster: Cluster) -> None:
    changes: list[Change] = []
    server.subscribe(changes.append)
    made = server.create(CONFIG_MAP, cluster.config_map(x="1"), user="anna")
    server.patch(CONFIG_MAP, cluster.namespace, "a", {"data": {"x": "1"}})
    changed = server.apply(CONFIG_MAP, cluster.config_map(x="2"), field_manager="op", user="operator")
    server.delete(CONFIG_MAP, cluster.namespace, "a", user="bert")
    assert [(change.verb, change.user, change.field_manager) for change in changes] == [
        ("created", "anna", ""),
        ("updated", "operator", "op"),
        ("deleted", "bert", ""),
    ]
    assert [(change.before, change.after) for change in changes] == [(None, made), (made, changed), (changed, None)]


async def test_a_replace_names_the_version_of_a_custom_resource(server: SimulatedApiServer, cluster: Cluster) -> None:
    made = server.create(R1P, cluster.r1plus_deployment())
    with pytest.raises(InvalidError):
        server.replace(R1P, cluster.r1plus_deployment(tier="lite"))
    version = made["metadata"]["resourceVersion"]
    edited = {**made, "spec": {"tier": "lite"}}
    assert server.replace(R1P, edited)["metadata"]["generation"] == 2
    with pytest.raises(ConflictError):
        server.replace(R1P, {**edited, "metadata": {**made["metadata"], "resourceVersion": version}})


async def test_a_policy_of_the_test_refuses(server: SimulatedApiServer, cluster: Cluster) -> None:
    def keep_revisions(write: Write) -> str | None:
        return "revisions stay" if write.operation == "DELETE" and write.user == "anna" else None

    server.policies.append(keep_revisions)
    server.create(CONFIG_MAP, cluster.config_map())
    with pytest.raises(ForbiddenError, match="revisions stay"):
        server.delete(CONFIG_MAP, cluster.namespace, "a", user="anna")
    server.delete(CONFIG_MAP, cluster.namespace, "a", user="operator")


async def test_a_quota_counts_what_pods_ask_for(server: SimulatedApiServer, cluster: Cluster) -> None:
    hard = {"requests.nvidia.com/gpu": "2", "pods": "10"}
    server.create(QUOTA, manifests.manifest(QUOTA, "q", cluster.namespace, spec={"hard": hard}))

    def pod(name: str) -> dict[str, Any]:
        obj = manifests.pod(name, cluster.namespace)
        obj["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        return obj

    server.create(POD, pod("a"))
    server.create(POD, pod("b"))
    with pytest.raises(ForbiddenError, match=r"exceeded quota: q, requested: requests.nvidia.com/gpu=1, used: .*=2"):
        server.create(POD, pod("c"))
    server.delete(POD, cluster.namespace, "a")
    server.create(POD, pod("c"))
    (quota,) = server.list_objects(QUOTA)
    assert quota["status"]["used"] == {"requests.nvidia.com/gpu": "2", "pods": "2"}


async def test_a_kind_that_is_not_served_is_not_found(server: SimulatedApiServer, cluster: Cluster) -> None:
    server.create(POD_MONITOR, manifests.manifest(POD_MONITOR, "m", cluster.namespace))
    server.serve(POD_MONITOR, is_served=False)
    with pytest.raises(NotFoundError):
        await cluster.client.list(POD_MONITOR)
    server.serve(POD_MONITOR)
    assert (await cluster.client.list(POD_MONITOR))[0] == []


@pytest.mark.parametrize("seed", range(4))
async def test_a_stored_object_never_changes(server: SimulatedApiServer, cluster: Cluster, seed: int) -> None:
    """What is read of the server is shared with it, with its history and with its backups."""
    stored: list[tuple[dict[str, Any], bytes]] = []
    server.subscribe(lambda change: stored.append((change.obj, orjson.dumps(change.obj))))
    async for _ in Sequence(seed, cluster).run(80):
        pass
    assert len(stored) > 20
    assert [orjson.dumps(obj) == text for obj, text in stored] == [True] * len(stored)
