"""What A may read where all tenants' figures come together: the registry, Prometheus, its own Events, logs and conditions."""

import time
from collections.abc import Callable, Iterator

import pytest

from e2e.isolation.cases import core, of, ours
from e2e.isolation.matrix import Trial
from e2e.isolation.people import Answer, Ask, Person
from e2e.isolation.registry import Registry, history
from e2e.isolation.stage import MODEL, Side, World, deployment
from e2e.story import condition
from e2e.waiting import wait_for
from r1plus_contract.names import PORT_MONITOR
from support.dashboards.asking import Window, ask

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

LISTS = (
    *(
        core("{}", plural)
        for plural in ("pods", "configmaps", "secrets", "events", "services", "persistentvolumeclaims")
    ),
    *(core("{}", plural) for plural in ("resourcequotas", "limitranges", "serviceaccounts")),
    *(of("apps", "{}", plural) for plural in ("deployments", "replicasets")),
    of("batch", "{}", "jobs"),
    of("networking.k8s.io", "{}", "networkpolicies"),
    of("rbac.authorization.k8s.io", "{}", "rolebindings"),
    *(ours("{}", plural) for plural in ("r1plusdeployments", "r1plustenants")),
)
CATALOG = "/apis/r1plus.ai/v1alpha1/r1plusengines"


READINGS = {
    "a deployment's history": history,
    "a deployment's gates, item by item": lambda side: (
        f"/v1/evaluations?namespace={side.namespace}&name={MODEL}&items=1"
    ),
    "all gates of a namespace": lambda side: f"/v1/evaluations?namespace={side.namespace}&items=1",
}


@pytest.mark.vector(26)
@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_the_registry_tells_a_tenants_gates_and_items_to_that_tenant_alone(
    world: World, trial: Trial, reading: Callable[[Side], str]
) -> None:
    mine, theirs = Registry.of(world, world.a), Registry.of(world, world.b)
    path = reading(world.b)

    def recorded() -> Answer | None:
        found = theirs.get(path)
        return found if found.done and '"verdict"' in found.text else None

    trial.by("intruder", "intruder")
    seen = wait_for(recorded, "the registry knows B's gate")
    trial.open("B reads it", seen.done, seen)

    answer = mine.get(path)
    everything = mine.get("/v1/evaluations?items=1")

    refused = f"system:serviceaccount:{world.a.namespace}:intruder" in answer.text  # Known, and refused.
    trial.shut("A reads it", answer.status == 403 and refused and everything.status == 403, (answer, everything))


@pytest.mark.vector(26)
def test_a_monitor_tells_its_probes_to_prometheus_and_the_operator_alone(world: World, trial: Trial) -> None:
    request = {"method": "GET", "path": "/outcomes?since=0"}
    trial.by(world.a.admin_name, world.a.admin.name())
    seen = world.watcher().one(world.b.address, PORT_MONITOR, **request)
    trial.open("from Prometheus' namespace", world.b.canary in seen or "outcomes" in seen, seen)
    ended = {str(p): p.one(world.b.address, PORT_MONITOR, **request) for p in (world.a.triton(), world.a.ordinary())}
    trial.shut("from A", all(how.startswith("shut ") for how in ended.values()), ended)


@pytest.mark.vector(32)
def test_a_series_says_whose_pod_it_is_of_by_prometheus_own_word(world: World, trial: Trial) -> None:
    """Of each tenant's series every one was scraped from that tenant's own pods: no pod of A's can speak for B."""
    trial.by(world.a.admin_name, world.a.admin.name())

    def sources(side: Side) -> set[str]:
        window = Window(time.time() - 120.0, time.time(), 15.0)
        own = f'{{namespace="{side.namespace}",job=~"{side.namespace}/.*"}}'
        with world.target.prometheus() as url:
            return {line.labels["instance"].split(":")[0] for line in ask(url, f"count by (instance) ({own})", window)}

    def theirs(side: Side) -> set[str]:
        return {p["status"].get("podIP", "") for p in world.kube.all("pods", side.namespace)}

    seen = wait_for(lambda: sources(world.a), "Prometheus scrapes A")
    trial.open("A's series are of A's pods", world.a.address in seen, seen)
    found = wait_for(lambda: sources(world.b), "Prometheus scrapes B")
    trial.shut("a series of B's from elsewhere", found <= theirs(world.b) and not found & theirs(world.a), found)


def readable(who: Person, namespace: str) -> Iterator[str]:
    """Every text that somebody may read in a namespace: objects, and logs of all containers."""
    for path in LISTS:
        answer = who.ask(Ask("GET", path.format(namespace)))
        if answer.done:
            yield answer.text
    pods = who.ask(Ask("GET", core(namespace, "pods"))).json["items"]
    for pod in pods:
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            name, path = container["name"], f"pods/{pod['metadata']['name']}/log"
            yield who.ask(Ask("GET", core(namespace, f"{path}?container={name}&limitBytes=1000000"))).text
    yield who.ask(Ask("GET", CATALOG)).text


PEEKS = "peeks"


@pytest.fixture(scope="module")
def mistaken(world: World) -> Iterator[dict[str, str]]:
    """A deployment of A's that can be told nothing but what is wrong: it names a suite that B alone has.

    Yields what A and B were told of it. B's finds the suite and would be brought up: it goes at once.
    """
    only_b = world.b.suite.with_items(world.b.suite.suite.items, "only-b")
    only_b.put(world.kube, world.b.namespace)
    held = {"suite": "only-b", "suiteKeys": [world.b.suite.key.public]}
    told = {}
    for side in (world.b, world.a):
        world.kube.apply(deployment(side, PEEKS, accuracy=held))
        what = f"{side.namespace} is told"
        told[side.namespace] = wait_for(lambda s=side: quality(world, s), what)
        if side is world.b:
            world.kube.delete("r1plusdeployments", side.namespace, PEEKS)
    yield told
    world.kube.delete("r1plusdeployments", world.a.namespace, PEEKS)
    world.kube.delete("configmaps", world.b.namespace, "only-b")


def quality(world: World, side: Side) -> str | None:
    """What QualityVerified says of that deployment, once it says something."""
    told = condition(world.kube.get("r1plusdeployments", side.namespace, PEEKS) or {}, "QualityVerified")
    return f"{told['reason']}: {told['message']}" if told else None


@pytest.mark.vector(3)
def test_a_suite_that_another_tenant_has_is_not_there(world: World, trial: Trial, mistaken: dict[str, str]) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())
    theirs, mine = mistaken[world.b.namespace], mistaken[world.a.namespace]
    trial.open("B's own deployment finds it", "SuiteNotFound" not in theirs, theirs)
    trial.shut("A's deployment finds it", mine.startswith("SuiteNotFound"), mine)


@pytest.mark.vector(34)
def test_nothing_that_a_tenant_may_read_speaks_of_another(world: World, trial: Trial, mistaken: dict[str, str]) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())
    words = (world.b.canary, world.b.service, world.b.address, f'"{world.b.namespace}"')

    def speaks(who: Person, side: Side) -> dict[str, int]:
        texts = list(readable(who, side.namespace))
        return {word: found for word in words if (found := sum(word in text for text in texts))}

    seen = speaks(world.b.admin, world.b)
    trial.open("B's administrator reads all of these words", set(seen) == set(words), seen)
    found = speaks(world.a.admin, world.a)
    trial.shut("A's administrator reads one of them", not found, found)
