"""From A's pods to B's, and to the node: what connects is open, whatever it then says."""

import subprocess
from collections.abc import Iterator

import pytest

from devcluster.layout import NODE_ADDRESS
from e2e.isolation.matrix import Trial
from e2e.isolation.stage import Place, Side, World
from e2e.kube import Json
from e2e.waiting import wait_for
from r1plus_contract.names import PORT_GRPC, PORT_HTTP, PORT_MONITOR, PORT_TRITON_METRICS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(300)]

METADATA = "169.254.169.254"
KUBELET, API_SERVER, KUBE_ROUTER = 10250, 6443, 20244
FOR_CALLERS, FOR_WATCHERS = (PORT_HTTP, PORT_GRPC), (PORT_TRITON_METRICS, PORT_MONITOR)
WHERE = "import socket; print(socket.gethostbyname(socket.gethostname()))"
PLACES = {"its server": lambda world: world.a.triton(), "an ordinary pod": lambda world: world.a.ordinary()}
NODES_DOORS = [
    {"name": name, "host": host, "port": port}
    for name, host, port in (
        ("metadata service", METADATA, 80),
        ("kubelet", NODE_ADDRESS, KUBELET),
        ("API server", NODE_ADDRESS, API_SERVER),
        ("another port of the node", NODE_ADDRESS, KUBE_ROUTER),
    )
]


def stands_in(trial: Trial, world: World, place: Place) -> None:
    """By its address, which is what walls go by."""
    pod = world.kube.get("pods", place.namespace, place.pod) or {}
    trial.by(pod["status"]["podIP"], place.run("python3", "-c", WHERE).strip())


def doors_of(side: Side, ports: tuple[int, ...]) -> list[Json]:
    """At its pod, and for callers at its Service, by address and by name."""
    hosts = [side.address]
    if ports == FOR_CALLERS:
        hosts += [side.service, f"{side.name.name}.{side.namespace}.svc.cluster.local"]
    return [{"name": f"{host}:{port}", "host": host, "port": port} for host in hosts for port in ports]


@pytest.mark.vector(13)
@pytest.mark.parametrize("of", PLACES)
@pytest.mark.parametrize("ports", [FOR_CALLERS, FOR_WATCHERS], ids=["its callers' ports", "its ports of metrics"])
def test_no_pod_of_another_tenant_connects_to_the_model(
    world: World, trial: Trial, ports: tuple[int, ...], of: str
) -> None:
    place, doors = PLACES[of](world), doors_of(world.b, ports)
    stands_in(trial, world, place)
    allowed = world.b.ordinary() if ports == FOR_CALLERS else world.watcher()
    seen = allowed.try_all(doors)
    trial.open(f"from {allowed}", all(how.startswith("open ") for how in seen.values()), seen)

    ended = place.try_all(doors)

    trial.shut(f"from {place}", all(how.startswith("shut ") for how in ended.values()), ended)


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
        wait_for(lambda: place.one(METADATA, 80).startswith("open ") or None, "the metadata service answers", 60.0)
        yield
    finally:
        server.terminate()
        server.wait(timeout=20)
        subprocess.run(inside("ip", "address", "del", *address), check=True)


@pytest.mark.vector(15)
@pytest.mark.parametrize("of", PLACES)
def test_neither_the_node_nor_the_metadata_service_is_reached(
    world: World, trial: Trial, metadata_service: None, of: str
) -> None:
    place = PLACES[of](world)
    stands_in(trial, world, place)
    seen = world.open_place().try_all(NODES_DOORS)
    trial.open("from a pod without walls", all(how.startswith("open ") for how in seen.values()), seen)

    ended = place.try_all(NODES_DOORS)

    trial.shut(f"from {place}", all(how.startswith("shut ") for how in ended.values()), ended)
