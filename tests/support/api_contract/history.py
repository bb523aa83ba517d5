"""Behaviours of an API server that was restarted, or whose etcd was set back to a backup."""

from typing import Protocol

from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import GoneError
from support.api_contract.cluster import CONFIG_MAP, Cluster, refusal


class Keeper(Protocol):
    """Who restarts a server, backs its etcd up and sets it back. Each time its clients change."""

    namespace: str

    def open_client(self) -> ApiClient:
        """Return a client of the server as it runs now."""

    async def restart(self) -> None:
        """Restart the API server; etcd goes on."""

    async def save(self) -> None:
        """Back etcd up."""

    async def restore(self) -> None:
        """Set etcd back to the backup, and restart everything."""


async def a_watch_from_before_a_restart_is_gone(keeper: Keeper) -> None:
    async with keeper.open_client() as client:
        cluster = Cluster(client, keeper.namespace)
        made = await client.create(CONFIG_MAP, cluster.config_map("restart-a"))
        await client.create(CONFIG_MAP, cluster.config_map("restart-b"))
    await keeper.restart()
    async with keeper.open_client() as client:
        cluster = Cluster(client, keeper.namespace)
        request = cluster.read_events(made["metadata"]["resourceVersion"], 1)
        assert await refusal(request) == (GoneError, "Expired", [])


async def a_restore_gives_versions_a_second_time(keeper: Keeper) -> None:
    await keeper.save()
    async with keeper.open_client() as client:
        cluster = Cluster(client, keeper.namespace)
        forgotten = [await client.create(CONFIG_MAP, cluster.config_map(f"forgotten-{i}")) for i in range(30)]
        newest = int(forgotten[-1]["metadata"]["resourceVersion"])
    await keeper.restore()
    async with keeper.open_client() as client:
        cluster = Cluster(client, keeper.namespace)
        items, version = await client.list(CONFIG_MAP, cluster.namespace)
        assert not [item for item in items if item["metadata"]["name"].startswith("forgotten")]
        assert int(version) < newest
        again = await client.create(CONFIG_MAP, cluster.config_map("forgotten-0"))
        assert again["metadata"]["uid"] != forgotten[0]["metadata"]["uid"]
        assert int(again["metadata"]["resourceVersion"]) <= newest


async def a_watch_from_after_the_backup_misses_what_is_written_below_its_version(keeper: Keeper) -> None:
    await keeper.save()
    async with keeper.open_client() as client:
        cluster = Cluster(client, keeper.namespace)
        lost = [await client.create(CONFIG_MAP, cluster.config_map(f"lost-{i}")) for i in range(30)]
        version = lost[-1]["metadata"]["resourceVersion"]
    await keeper.restore()
    async with keeper.open_client() as client:
        cluster = Cluster(client, keeper.namespace)
        for i in range(60):
            await client.create(CONFIG_MAP, cluster.config_map(f"new-{i:02}"))
        ((_, obj),) = await cluster.read_events(version, 1)
        assert int(obj["metadata"]["resourceVersion"]) > int(version)
        assert obj["metadata"]["name"] != "new-00"
