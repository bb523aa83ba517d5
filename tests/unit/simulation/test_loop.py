"""The simulation's event loop: time passes only where everything waits, and a seed is one schedule."""

import asyncio
import random
import time

import pytest

from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.lease import Elector
from r1plus_operator.runtime.reflector import Reflector
from support.api_contract.cluster import CONFIG_MAP
from support.apiserver import manifests
from support.simulation.faults import FaultKind, Faults, FaultWindow
from support.simulation.loop import RanDryError, SimulationLoop, run_simulation
from support.simulation.server import SimulatedApiServer
from support.simulation.transport import SimulatedTransport

EPOCH = 1_800_000_000.0
TROUBLE_SECONDS = 600.0


def test_an_hour_passes_at_once() -> None:
    async def sleep_an_hour() -> float:
        await asyncio.sleep(3600.0)
        return asyncio.get_running_loop().time()

    began = time.process_time()
    assert run_simulation(sleep_an_hour()) == 3600.0
    assert time.process_time() - began < 60.0


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set() -> None:
    async def set_timers() -> list[int]:
        fired: list[int] = []
        for number in range(50):
            asyncio.get_running_loop().call_later(1.0, fired.append, number)
        await asyncio.sleep(2.0)
        return fired

    assert run_simulation(set_timers()) == list(range(50))


def test_a_cancelled_timer_does_not_fire() -> None:
    async def cancel() -> list[int]:
        fired: list[int] = []
        asyncio.get_running_loop().call_later(1.0, fired.append, 1).cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await asyncio.Event().wait()
        return fired

    assert run_simulation(cancel()) == []


def test_a_world_that_runs_dry_is_named() -> None:
    with pytest.raises(RanDryError, match="ran dry"):
        run_simulation(asyncio.Event().wait())


def test_a_thread_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no threads"):
        run_simulation(asyncio.to_thread(print))


def test_a_seed_is_one_schedule() -> None:
    first, again, other = (run_simulation(live_through_trouble(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(12))
def test_reflectors_hold_what_the_server_has_after_any_trouble(seed: int) -> None:
    held, stored, _ = run_simulation(live_through_trouble(seed))
    assert held == stored


@pytest.mark.parametrize("seed", range(12))
def test_two_candidates_never_lead_at_once_through_any_trouble(seed: int) -> None:
    both, terms = run_simulation(elect_through_trouble(seed))
    assert both == []
    assert terms > 0, "nobody led"


def draw_windows(rand: random.Random, count: int) -> list[FaultWindow]:
    """Return faults of all kinds within the trouble's time, most for one replica."""
    windows = []
    for _ in range(count):
        start = EPOCH + rand.uniform(0.0, TROUBLE_SECONDS)
        end = min(start + rand.uniform(1.0, 60.0), EPOCH + TROUBLE_SECONDS)
        replicas = frozenset(rand.choice([["one"], ["two"], []]))
        kind = rand.choice(list(FaultKind))
        windows.append(FaultWindow(kind, start, end, rand.uniform(0.1, 1.0), rand.uniform(0.5, 20.0), replicas))
    return windows


def build_client(server: SimulatedApiServer, faults: Faults, replica: str) -> ApiClient:
    """Return a replica's client."""
    transport = SimulatedTransport(server, user="operator", faults=faults, replica=replica)
    return ApiClient(ApiConnection("http://simulated"), transport=transport)


async def live_through_trouble(seed: int) -> tuple[dict[str, str], dict[str, str], list[float]]:
    """Write for ten minutes of trouble; return what a reflector holds a minute later, what is stored, and the times."""
    rand, loop = random.Random(seed), asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    server = SimulatedApiServer(random.Random(seed), lambda: EPOCH + loop.time())
    server.create(kinds.NAMESPACE, manifests.tenant_namespace("team-a"))
    faults = Faults(random.Random(seed), server.now, draw_windows(rand, 12))
    times: list[float] = []
    reflector = Reflector(
        build_client(server, faults, "one"),
        CONFIG_MAP,
        project=Held.of,
        on_change=lambda *_: times.append(loop.time()),
        rand=random.Random(seed),
        clock=loop.time,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reflector.run())
        while loop.time() < TROUBLE_SECONDS:
            await asyncio.sleep(rand.uniform(0.1, 10.0))
            write_something(server, rand)
        await asyncio.sleep(200.0)
        task.cancel()
    held = {item.name: item.value for item in reflector.store.items()}
    return held, {obj["metadata"]["name"]: obj["data"]["x"] for obj in server.list_objects(CONFIG_MAP)}, times


def write_something(server: SimulatedApiServer, rand: random.Random) -> None:
    """Change one of a few objects: write or delete it. Seldom the server restarts or forgets its history."""
    name, draw = f"c{rand.randrange(6)}", rand.random()
    if draw < 0.02:
        server.restart()
    if server.read(CONFIG_MAP, "team-a", name) is not None and draw < 0.3:
        server.delete(CONFIG_MAP, "team-a", name)
    else:
        server.apply(CONFIG_MAP, manifests.config_map(name, "team-a", x=str(draw)), field_manager="somebody")


class Held:
    """A ConfigMap as the reflector keeps it."""

    def __init__(self, name: str, uid: str, value: str) -> None:
        self.namespace, self.name, self.uid, self.value = "team-a", name, uid, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and (self.uid, self.value) == (other.uid, other.value)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(cls, obj: dict[str, object]) -> "Held":
        """Project an object."""
        meta, data = obj["metadata"], obj["data"]
        assert isinstance(meta, dict)
        assert isinstance(data, dict)
        return cls(meta["name"], meta["uid"], data["x"])


async def elect_through_trouble(seed: int) -> tuple[list[float], int]:
    """Let two candidates compete for ten minutes of trouble; return when both led, and how many terms there were."""
    rand, loop = random.Random(seed), asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    server = SimulatedApiServer(random.Random(seed), lambda: EPOCH + loop.time())
    server.create(kinds.NAMESPACE, manifests.tenant_namespace("system"))
    faults = Faults(random.Random(seed), server.now, draw_windows(rand, 20))
    leading: dict[str, Elector] = {}
    both: list[float] = []
    terms = 0

    async def compete(replica: str) -> None:
        nonlocal terms
        while loop.time() < TROUBLE_SECONDS:
            api = build_client(server, faults, replica)
            elector = Elector(
                api, "system", "l", replica, clock=loop.time, read_time=server.now, rand=random.Random(seed)
            )
            leading[replica] = elector
            await elector.acquire()
            terms += 1
            try:
                await elector.hold()
            except Exception:  # noqa: BLE001 - the Lease is lost: a new process begins
                await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(compete(replica)) for replica in ("one", "two")]
        while loop.time() < TROUBLE_SECONDS:
            await asyncio.sleep(0.1)
            if sum(elector.is_leader for elector in leading.values()) > 1:
                both.append(loop.time())
        for task in tasks:
            task.cancel()
    return both, terms
