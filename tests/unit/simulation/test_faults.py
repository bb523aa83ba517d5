"""Each fault of the simulation does what it says, and nothing else."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.errors import (
    ApiError,
    ApiServerError,
    ConflictError,
    GoneError,
    NotFoundError,
    TransportError,
)
from support.api_contract.cluster import CONFIG_MAP, Cluster
from support.simulation.faults import FaultKind, Faults, FaultWindow
from support.simulation.server import SimulatedApiServer
from support.simulation.transport import SimulatedTransport
from support.virtual_time import read_loop_time


def open_window(faults: Faults, kind: FaultKind, lasting: float = 1.0, **more: Any) -> None:
    """Begin a fault now."""
    now = faults.read_time()
    faults.add(FaultWindow(kind, now, now + lasting, **more))


@pytest.mark.parametrize(
    ("kind", "error", "is_written"),
    [
        (FaultKind.CONFLICT, ConflictError, False),
        (FaultKind.SERVER_ERROR, ApiServerError, False),
        (FaultKind.ERROR_AFTER_WRITE, ApiServerError, True),
        (FaultKind.TIMEOUT_BEFORE_WRITE, TransportError, False),
        (FaultKind.TIMEOUT_AFTER_WRITE, TransportError, True),
        (FaultKind.BROKEN_AFTER_WRITE, TransportError, True),
        (FaultKind.PARTITION, TransportError, False),
        (FaultKind.REFUSED, TransportError, False),
    ],
)
async def test_a_failed_create_was_written_or_not(
    server: SimulatedApiServer,
    cluster: Cluster,
    faults: Faults,
    kind: FaultKind,
    error: type[ApiError],
    is_written: bool,
) -> None:
    open_window(faults, kind)
    with pytest.raises(error):
        await cluster.client.create(CONFIG_MAP, cluster.config_map())
    assert (server.read(CONFIG_MAP, cluster.namespace, "a") is not None) == is_written
    assert faults.counts == {kind: 1}


async def test_a_client_that_is_told_to_wait_waits_and_succeeds(cluster: Cluster, faults: Faults) -> None:
    open_window(faults, FaultKind.TOO_MANY, 0.5, seconds=3.0)
    before = read_loop_time()
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    assert 3.0 <= read_loop_time() - before < 4.0


async def test_a_delete_whose_answer_was_lost_is_sent_again_and_finds_nothing(cluster: Cluster, faults: Faults) -> None:
    made = await cluster.client.create(CONFIG_MAP, cluster.config_map())
    open_window(faults, FaultKind.BROKEN_AFTER_WRITE, 0.01)
    with pytest.raises(NotFoundError):
        await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace, uid=made["metadata"]["uid"])


@pytest.mark.usefixtures("virtual_time")
async def test_the_server_drops_a_write_that_comes_after_its_time(
    server: SimulatedApiServer, cluster: Cluster, faults: Faults
) -> None:
    cluster.client.fence = lambda: 0.5
    open_window(faults, FaultKind.DELAY, 60.0, seconds=1000.0)
    with pytest.raises(TransportError) as caught:
        await cluster.client.create(CONFIG_MAP, cluster.config_map())
    assert caught.value.reason == "Timeout"
    await asyncio.sleep(1000.0)
    assert server.read(CONFIG_MAP, cluster.namespace, "a") is None


async def test_a_fault_meets_its_replica_verb_and_kind_only(
    server: SimulatedApiServer, cluster: Cluster, faults: Faults
) -> None:
    only = {"replicas": frozenset({"two"}), "verbs": frozenset({"create"}), "resources": frozenset({"configmaps"})}
    open_window(faults, FaultKind.SERVER_ERROR, 60.0, **only)
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    transport = SimulatedTransport(server, user="admin", faults=faults, replica="two")
    async with ApiClient(ApiConnection("http://simulated"), transport=transport) as two:
        await two.get(CONFIG_MAP, "a", cluster.namespace)
        with pytest.raises(ApiServerError):
            await two.create(CONFIG_MAP, cluster.config_map("b"))


@pytest.mark.usefixtures("virtual_time")
async def test_a_window_ends(cluster: Cluster, faults: Faults) -> None:
    open_window(faults, FaultKind.PARTITION, 5.0)
    await asyncio.sleep(5.0)
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    assert faults.counts == {}


async def test_an_old_version_is_gone(cluster: Cluster, faults: Faults) -> None:
    version = await cluster.read_version()
    open_window(faults, FaultKind.GONE)
    with pytest.raises(GoneError):
        await cluster.read_events(version, 1)


@pytest.mark.usefixtures("virtual_time")
async def test_a_stream_that_is_cut_breaks(server: SimulatedApiServer, cluster: Cluster, faults: Faults) -> None:
    version = await cluster.read_version()
    watching = asyncio.create_task(cluster.read_events(version, 2))
    await asyncio.sleep(1.0)
    open_window(faults, FaultKind.STREAM_CUT, seconds=0.0)
    server.create(CONFIG_MAP, cluster.config_map())
    with pytest.raises(TransportError, match="Connection reset"):
        await watching


@pytest.mark.parametrize("kind", [FaultKind.EVENTS_LATE, FaultKind.EVENTS_STALLED])
@pytest.mark.usefixtures("virtual_time")
async def test_late_events_keep_their_order(
    server: SimulatedApiServer, cluster: Cluster, faults: Faults, kind: FaultKind
) -> None:
    version = await cluster.read_version()
    watching = asyncio.create_task(cluster.read_events(version, 20))
    await asyncio.sleep(1.0)
    open_window(faults, kind, 10.0, seconds=5.0)
    began = read_loop_time()
    for number in range(20):
        server.create(CONFIG_MAP, cluster.config_map(f"c{number:02}"))
    names = [obj["metadata"]["name"] for _, obj in await watching]
    assert names == [f"c{number:02}" for number in range(20)]
    assert (10.0 if kind == FaultKind.EVENTS_STALLED else 2.0) < read_loop_time() - began < 10.1


async def test_a_partition_is_silence(server: SimulatedApiServer, cluster: Cluster, faults: Faults) -> None:
    version = await cluster.read_version()
    stream = cluster.client.watch(CONFIG_MAP, version, lifetime_s=600.0, inactivity_s=150.0)
    began = read_loop_time()
    open_window(faults, FaultKind.PARTITION, 1000.0)
    with pytest.raises(TransportError) as caught:
        async with aclosing(stream):
            async for kind, _ in stream:
                raise AssertionError(kind)
    assert caught.value.reason == "Timeout"
    assert 150.0 <= read_loop_time() - began < 151.0


@pytest.mark.usefixtures("virtual_time")
async def test_a_stalled_process_reads_its_answers_later(
    server: SimulatedApiServer, cluster: Cluster, faults: Faults
) -> None:
    writing = asyncio.create_task(cluster.client.create(CONFIG_MAP, cluster.config_map()))
    await asyncio.sleep(0)
    open_window(faults, FaultKind.STALL, 20.0)
    await asyncio.sleep(10.0)
    assert server.read(CONFIG_MAP, cluster.namespace, "a") is not None
    assert not writing.done()
    await writing
    assert read_loop_time() >= 20.0


async def test_a_stalled_process_sends_nothing_whose_time_is_over_when_it_goes_on(
    server: SimulatedApiServer, cluster: Cluster, faults: Faults
) -> None:
    cluster.client.fence = lambda: 8.0
    open_window(faults, FaultKind.STALL, 20.0)
    with pytest.raises(TransportError) as caught:
        await cluster.client.create(CONFIG_MAP, cluster.config_map())
    assert caught.value.reason == "Timeout"
    assert server.read(CONFIG_MAP, cluster.namespace, "a") is None
    assert read_loop_time() >= 20.0
