"""What A's administrator, and whoever has broken into one of A's pods, asks of the API server about B."""

from dataclasses import dataclass

import pytest

from devcluster.layout import API_SERVICE_ADDRESS, NODE_ADDRESS
from e2e.isolation.cases import CASES, Case
from e2e.isolation.matrix import NAMES, Trial
from e2e.isolation.people import REVIEW
from e2e.isolation.stage import ALL_PLACES, Place, World
from e2e.kube import Json
from e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

ADDRESSES = ((API_SERVICE_ADDRESS, 443), (NODE_ADDRESS, 6443))
VECTORS = sorted({case.vector for case in CASES})


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{case.vector}: {case.what}", marks=pytest.mark.vector(case.vector)) for case in CASES],
)
def test_as_namespace_admin_it_is_refused(world: World, trial: Trial, case: Case) -> None:
    alice, allowed = world.a.admin, case.by(world)
    trial.by(world.a.admin_name, alice.name())
    seen = allowed.ask(case.control(world))
    trial.open(f"{case.what}, by {allowed.name()}", case.seen(seen), seen)

    answer = alice.ask(case.attack(world))

    trial.shut(case.what, answer.status in case.statuses and case.words in answer.text, answer)


@dataclass(frozen=True, slots=True)
class FromPods:
    """How each try ended, by its name, from each place."""

    open: dict[str, str]
    inside: dict[str, dict[str, str]]


def tries_of(world: World) -> list[Json]:
    """Every request of A's administrator's, with a token that may do what he may, at both addresses of the API server."""
    made: list[Json] = []
    for case in CASES:
        one = case.attack(world)
        headers = {"Authorization": f"Bearer {world.a.token}", "Content-Type": one.kind, **one.headers}
        for host, port in ADDRESSES:
            request = {"method": one.method, "path": one.path, "headers": headers, "tls": True}
            body = "" if one.body is None else world.text(one.body)
            made.append(
                {"name": f"{case.vector}: {case.what} at {host}", "host": host, "port": port, **request, "body": body}
            )
    return made


@pytest.fixture(scope="session")
def from_pods(world: World) -> FromPods:
    """All tries at once, three times each, from where there are walls and from where there are none."""
    tries = tries_of(world)
    who = {"method": "POST", "path": REVIEW, "tls": True, "headers": _bearer(world), "body": world.text(_review())}
    said = world.open_place().one(*ADDRESSES[0], **who)
    assert f"system:serviceaccount:{world.a.namespace}:intruder" in said, said
    places = [place(world) for place in ALL_PLACES.values()]
    return FromPods(world.open_place().try_all(tries), {str(place): place.try_all(tries) for place in places})


@pytest.mark.parametrize(
    "vector", [pytest.param(n, id=f"{n}: {NAMES[n]}", marks=pytest.mark.vector(n)) for n in VECTORS]
)
def test_from_a_broken_pod_with_a_stolen_token_the_api_server_is_not_even_reached(
    world: World, from_pods: FromPods, trial: Trial, vector: int
) -> None:
    trial.by("intruder", "intruder")  # By its token, seen above: only from where the API server can be asked.
    theirs = {name: how for name, how in from_pods.open.items() if name.startswith(f"{vector}: ")}
    trial.open(
        "the same tries from a pod without walls", all(how.startswith("open ") for how in theirs.values()), theirs
    )
    for place, ended in from_pods.inside.items():
        got_out = {name: ended[name] for name in theirs if not ended[name].startswith("shut ")}
        trial.shut(f"from {place}", not got_out, got_out)


def test_server_and_gateway_have_no_token_and_an_ordinary_pod_has_one(world: World) -> None:
    """The control of the first half is the second: the same look sees a token where there is one."""
    look = (
        "python3",
        "-c",
        "import pathlib; print(pathlib.Path('/var/run/secrets/kubernetes.io/serviceaccount/token').exists())",
    )

    def has(place: Place) -> bool:
        return place.run(*look).strip() == "True"

    assert wait_for(lambda: has(world.a.ordinary()), "an ordinary pod has its token")
    assert not has(world.a.triton()) and not has(world.a.gateway())


def _bearer(world: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.a.token}", "Content-Type": "application/json"}


def _review() -> Json:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
