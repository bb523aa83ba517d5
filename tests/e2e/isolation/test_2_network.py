"""From A's pods to B's, and to the node: what connects is open, whatever it then says."""

import json
import subprocess
import threading
from collections.abc import Iterator

import pytest

from devcluster.layout import NODE_ADDRESS
from e2e.isolation.matrix import Trial
from e2e.isolation.stage import ALL_PLACES, OPEN, Side, World, is_running, stands_in
from e2e.kube import Json
from e2e.objects import ordinary_pod
from e2e.waiting import wait_for
from r1plus_contract.names import PORT_GRPC, PORT_HTTP, PORT_MONITOR, PORT_TRITON_METRICS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

METADATA = "169.254.169.254"
KUBELET, API_SERVER, KUBE_ROUTER = 10250, 6443, 20244
FOR_CALLERS, FOR_WATCHERS = (PORT_HTTP, PORT_GRPC), (PORT_TRITON_METRICS, PORT_MONITOR)
NODES_DOORS = [
    {"name": name, "host": host, "port": port}
    for name, host, port in (
        ("metadata service", METADATA, 80),
        ("kubelet", NODE_ADDRESS, KUBELET),
        ("API server", NODE_ADDRESS, API_SERVER),
        ("another port of the node", NODE_ADDRESS, KUBE_ROUTER),
    )
]


def doors_of(side: Side, ports: tuple[int, ...]) -> list[Json]:
    """At its pod, and for callers at its Service, by address and by name."""
    hosts = [side.address]
    if ports == FOR_CALLERS:
        hosts += [side.service, f"{side.name.name}.{side.namespace}.svc.cluster.local"]
    return [{"name": f"{host}:{port}", "host": host, "port": port} for host in hosts for port in ports]


@pytest.mark.vector(13)
@pytest.mark.parametrize("of", ALL_PLACES)
@pytest.mark.parametrize("ports", [FOR_CALLERS, FOR_WATCHERS], ids=["its callers' ports", "its ports of metrics"])
def test_no_pod_of_another_tenant_connects_to_the_model(
    world: World, trial: Trial, ports: tuple[int, ...], of: str
) -> None:
    place, doors = ALL_PLACES[of](world), doors_of(world.b, ports)
    stands_in(trial, world, place)
    allowed = world.b.ordinary() if ports == FOR_CALLERS else world.watcher()
    seen = allowed.try_all(doors)
    trial.open(f"from {allowed}", all(how.startswith("open ") for how in seen.values()), seen)

    ended = place.try_all(doors)

    trial.shut(f"from {place}", all(how.startswith("shut ") for how in ended.values()), ended)


STORM_SECONDS, STORM_THREADS, STORM_LEAST, STORM_AT_MOST_SECONDS = 15, 16, 1000, 240
STORM = """
import json, socket, sys, threading, time
hosts, ports, began = sys.argv[1].split(","), (8000, 8001, 8002, 8080), time.monotonic()
seconds, at_most, least, wanted = float(sys.argv[2]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
tried, got = [], []
def is_over():
    passed = time.monotonic() - began
    return passed > at_most or passed > seconds and len(tried) >= least and (not wanted or wanted in got)
def knock():
    while not is_over():
        host, port = hosts[len(tried) % len(hosts)], ports[len(tried) % len(ports)]
        tried.append(1)
        try:
            socket.create_connection((host, port), 0.02).close()
            got.append(f"{host}:{port}")
        except OSError:
            pass
threads = [threading.Thread(target=knock) for _ in range(int(sys.argv[3]))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps([len(tried), got]))
"""
"""A new connection every moment: kube-router writes all its tables anew whenever a pod or a policy comes or goes."""


@pytest.mark.vector(13)
def test_no_connection_slips_through_while_the_tables_are_written_anew(world: World, trial: Trial) -> None:
    place = world.a.ordinary()
    stands_in(trial, world, place)
    target, own = world.b.address, world.a.address
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            world.kube.apply(ordinary_pod("churn", OPEN, world.image))
            wait_for(lambda: is_running(world.kube, OPEN, "churn"), "a pod comes", period_s=0.2)
            world.kube.kubectl("delete", "pod", "-n", OPEN, "churn", "--grace-period=0", "--force")

    churning = threading.Thread(target=churn, daemon=True)
    churning.start()
    try:

        def storm(host: str, seconds: float, least: int, wanted: str) -> tuple[int, list[str]]:
            numbers = (seconds, STORM_THREADS, STORM_AT_MOST_SECONDS, least)
            return tuple(json.loads(place.run("python3", "-c", STORM, host, *map(str, numbers), wanted)))

        tried, seen = storm(own, STORM_SECONDS / 5, 1, f"{own}:{PORT_HTTP}")
        trial.open("the same storm gets through to one's own model", f"{own}:{PORT_HTTP}" in seen, (tried, seen[:3]))
        tried, got = storm(target, STORM_SECONDS, STORM_LEAST, "")
    finally:
        stop.set()
        churning.join(timeout=90.0)
    print(f"{tried} connections tried, {len(got)} let through")
    trial.shut("a connection", tried >= STORM_LEAST and not got, (tried, got[:3]))


@pytest.fixture(scope="module")
def metadata_service(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Something that answers at the address at which clouds give out credentials."""
    inside, empty = world.target.cluster.inside, tmp_path_factory.mktemp("metadata")
    address = (f"{METADATA}/32", "dev", "lo")
    subprocess.run(inside("ip", "address", "replace", *address), check=True)
    command = inside("python3", "-m", "http.server", "80", "--bind", METADATA)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=empty)
    try:
        place = world.open_place()
        wait_for(lambda: place.one(METADATA, 80).startswith("open "), "the metadata service answers", period_s=1.0)
        yield
    finally:
        server.terminate()
        server.wait(timeout=20)
        subprocess.run(inside("ip", "address", "del", *address), check=True)


@pytest.mark.vector(15)
@pytest.mark.parametrize("of", ALL_PLACES)
def test_neither_the_node_nor_the_metadata_service_is_reached(
    world: World, trial: Trial, metadata_service: None, of: str
) -> None:
    place = ALL_PLACES[of](world)
    stands_in(trial, world, place)
    seen = world.open_place().try_all(NODES_DOORS)
    trial.open("from a pod without walls", all(how.startswith("open ") for how in seen.values()), seen)

    ended = place.try_all(NODES_DOORS)

    trial.shut(f"from {place}", all(how.startswith("shut ") for how in ended.values()), ended)
