"""What a caller, an administrator and a broken gateway of A's try at B's gateway, whose data lie in a file on B's volume."""

import json
from collections.abc import Callable, Iterator

import pytest

from e2e import gateways
from e2e.isolation.gateway_calls import (
    Caller,
    Forger,
    ask,
    call,
    call_both,
    copy_volume,
    make_half,
    open_copy,
)
from e2e.isolation.matrix import Trial
from e2e.isolation.stage import ALL_PLACES, HELPERS, World, stands_in
from e2e.kube import Json
from e2e.waiting import wait_for
from r1plus_contract.gateway import (
    DIR_KEY,
    DIR_SETTINGS,
    DIR_STORE,
    GATEWAY_ADMIN,
    GATEWAY_SERVICE,
    PORT_API,
    PORT_INTERNAL,
    PORT_SERVICE,
)
from r1plus_contract.names import PORT_GRPC, PORT_MONITOR, TENANT
from r1plus_gateway.access.api_keys import ApiKey, parse_key

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

Both = tuple[Caller, Caller]
FOR_CALLERS, FOR_WATCHERS = "its port for callers", "its port of metrics"


@pytest.fixture(scope="module")
def both(world: World) -> Iterator[Both]:
    """Both gateways answer to a key of their own."""
    with call_both(world) as made:
        yield made


def doors_of(world: World, ports: str) -> list[Json]:
    """Where B's gateway listens: at its pod, and for callers at its Service, by address and by name."""
    address = world.b.gateway_pod["status"]["podIP"]
    if ports == FOR_WATCHERS:
        doors = [(address, PORT_INTERNAL)]
    else:
        service = (world.kube.get("services", world.b.namespace, GATEWAY_SERVICE) or {})["spec"]["clusterIP"]
        name = f"{GATEWAY_SERVICE}.{world.b.namespace}.svc.cluster.local"
        doors = [(address, PORT_API), (service, PORT_SERVICE), (name, PORT_SERVICE)]
    return [{"name": f"{host}:{port}", "host": host, "port": port} for host, port in doors]


@pytest.mark.vector(16)
@pytest.mark.parametrize("of", ALL_PLACES)
@pytest.mark.parametrize("ports", [FOR_CALLERS, FOR_WATCHERS])
def test_no_pod_of_a_connects_to_bs_gateway(world: World, trial: Trial, ports: str, of: str) -> None:
    place, doors = ALL_PLACES[of](world), doors_of(world, ports)
    stands_in(trial, world, place)
    allowed = world.b.ordinary() if ports == FOR_CALLERS else world.watcher()
    seen = allowed.try_all(doors)
    trial.open(f"from {allowed}", all(how.startswith("open ") for how in seen.values()), seen)

    ended = place.try_all(doors)

    trial.shut(f"from {place}", all(how.startswith("shut ") for how in ended.values()), ended)


@pytest.mark.vector(16)
def test_a_gateway_is_reached_from_the_namespaces_that_its_tenant_names(world: World, trial: Trial) -> None:
    place = world.open_place()
    stands_in(trial, world, place)
    seen = place.one(world.b.gateway_pod["status"]["podIP"], PORT_API, method="GET", path="/healthz")
    trial.open("B names it", seen.startswith("open 200"), seen)

    said = place.one(world.a.gateway_pod["status"]["podIP"], PORT_API)

    trial.shut("A does not", said.startswith("shut "), said)


@pytest.mark.vector(13)
def test_without_direct_access_only_the_gateway_reaches_the_model(world: World, both: Both, trial: Trial) -> None:
    """B's own pods do not either: that their requests are counted is theirs to rely on."""
    side, place = world.b, world.b.ordinary()
    doors = [{"name": str(port), "host": side.address, "port": port} for port in (PORT_GRPC, PORT_MONITOR)]

    def set_direct_access(is_allowed: bool) -> None:
        patch = {"spec": {"gateway": {"directAccess": is_allowed}}}
        world.kube.patch("r1plustenants", side.namespace, TENANT, patch)

    def is_open() -> bool:
        return place.one(side.address, PORT_GRPC).startswith("open ")

    stands_in(trial, world, place)
    trial.open("the same place before", is_open())
    set_direct_access(False)
    try:
        wait_for(lambda: not is_open(), "only the gateway reaches the model")
        seen = side.gateway().try_all(doors)
        trial.open("the gateway", all(how.startswith("open ") for how in seen.values()), seen)
        answer = ask(both[1].url, both[1].key.secret)
        trial.open("whoever calls the gateway", answer.status_code == 200, answer.text)
        said = place.one(side.service, PORT_GRPC)
        trial.shut("B's own pod", said.startswith("shut "), said)
    finally:
        set_direct_access(True)
    wait_for(is_open, "the model is open again")


PATHS = (
    "/v1/key",
    "/v1/models",
    "/v1/usage",
    "/v1/admin/keys",
    "/v1/admin/usage",
    "/v1/admin/audit",
    "/metrics",
    "/data",
)
Credential = Callable[[World, Both], str]


def splice_key(_: World, both: Both) -> str:
    """B's id with A's secret, and the checksum of both."""
    own = parse_key(both[0].key.secret)
    assert own is not None
    return ApiKey(both[1].key.id, own.secret).encode()


CREDENTIALS: dict[str, tuple[int, Credential]] = {
    "A's key": (16, lambda world, both: both[0].key.secret),
    "A's secret under the id of B's key": (16, splice_key),
    "a token of A's account": (16, lambda world, both: gateways.create_token(world.kube, world.a.namespace)),
    "a token of A's administrator": (16, lambda world, both: gateways.create_token(world.kube, world.a.namespace, GATEWAY_ADMIN)),
    "a token of A's account for the API server": (16, lambda world, both: world.a.token),
    "a token of B's account for another audience": (16, lambda world, both: gateways.create_token(world.kube, world.b.namespace, audience="r1plus-registry")),
    "a token that A has signed": (16, lambda world, both: Forger(world).sign_by_own_key()),
    "a token that brings its key": (16, lambda world, both: Forger(world).sign_by_key_in_header()),
    "a token whose secret is the cluster's public key": (16, lambda world, both: Forger(world).sign_by_public_key()),
    "a token without a signature": (16, lambda world, both: Forger(world).sign_by_nothing()),
    "A's token with B's name": (16, lambda world, both: Forger(world).change_claims()),
    "nothing": (16, lambda world, both: ""),
    "SQL": (17, lambda world, both: f"r1p_{both[1].key.id}' OR '1'='1"),
    "SQL in the form of a token": (17, lambda world, both: "a.b' UNION SELECT * FROM api_keys --.c"),
}  # fmt: skip


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=what, marks=pytest.mark.vector(vector)) for what, (vector, make) in CREDENTIALS.items()]
)  # fmt: skip
def test_bs_gateway_believes_no_credential_of_as(world: World, both: Both, trial: Trial, make: Credential) -> None:
    a, b = both
    trial.by(a.key.id, call(a.url, "/v1/key", a.key.secret).json()["id"])
    admin = gateways.create_token(world.kube, world.b.namespace, GATEWAY_ADMIN)
    seen = [call(b.url, path, admin if "admin" in path else b.key.secret) for path in PATHS[:6]]
    trial.open("B's own", all(one.status_code == 200 for one in seen), [one.text for one in seen])
    credential = make(world, both)

    answers = {path: call(b.url, path, credential) for path in PATHS}

    got = {path: one.text for path, one in answers.items() if one.status_code not in (401, 403, 404)}
    trial.shut("its API", not got, got)
    told = {path: one.text for path, one in answers.items() if b.key.id in one.text or b.side.canary in one.text}
    trial.shut("a word of B's", not told, told)
    answer = ask(b.url, credential)
    trial.shut("its model", answer.status_code in (401, 403), answer.text)


@pytest.mark.vector(34)
def test_a_refusal_says_the_same_of_a_key_of_bs_and_of_one_that_does_not_exist(
    world: World, both: Both, trial: Trial
) -> None:
    a, b = both
    trial.by(a.key.id, call(a.url, "/v1/key", a.key.secret).json()["id"])
    seen = call(b.url, "/v1/key", b.key.secret)
    trial.open("B's key is one", seen.json()["id"] == b.key.id, seen.text)
    guessed = ApiKey("0" * 12, "0" * 43).encode()

    def refuse(credential: str) -> tuple[int, str, list[str]]:
        answer = call(b.url, "/v1/key", credential)
        return answer.status_code, answer.text, sorted(answer.headers)

    theirs, nobodys = refuse(splice_key(world, both)), refuse(guessed)
    trial.shut("a difference", theirs == nobodys and theirs[0] == 401, (theirs, nobodys))


@pytest.mark.vector(35)
def test_a_copy_of_bs_data_is_not_opened_by_as_gateway(world: World, both: Both, trial: Trial) -> None:
    a, b = world.a, world.b
    copy, place = copy_volume(b), a.gateway()
    stands_in(trial, world, place)
    seen = open_copy(b.gateway(), copy)
    trial.open("B's own gateway", seen.said == f"open {both[1].key.id}", seen)
    uid = (world.kube.get("namespaces", None, b.namespace) or {})["metadata"]["uid"]

    as_a = open_copy(place, copy, words=(both[1].key.id, b.canary, "api_keys", "key-of-"))
    as_b = open_copy(place, copy, uid=uid)

    trial.shut("as A's data", as_a.said == "ForeignTenant", as_a)
    trial.shut("under B's name", as_b.said == "WrongKey", as_b)
    trial.shut("without a key", as_a.plain.startswith("refused ") and not as_a.words, as_a)


@pytest.mark.vector(37)
def test_a_copy_does_not_open_once_its_half_of_the_key_is_gone(world: World, both: Both, trial: Trial) -> None:
    place = world.b.gateway()
    copy = copy_volume(world.b)
    stands_in(trial, world, place)
    seen = open_copy(place, copy)
    trial.open("with the half", seen.said == f"open {both[1].key.id}", seen)

    ended = open_copy(place, copy, half=make_half())

    trial.shut("with another one", ended.said == "WrongKey", ended)


LOOK = """
import json, os, sys
print(json.dumps({path: os.access(path, os.R_OK) and bool(os.listdir(path)) for path in sys.argv[1:]}))
"""


@pytest.mark.vector(37)
@pytest.mark.parametrize("of", HELPERS)
def test_a_helper_that_was_taken_over_has_nothing_of_its_gateways(world: World, trial: Trial, of: str) -> None:
    """Neither half of the key, nor the store, nor the settings: it is no step on the way to them."""
    folders = (DIR_KEY, DIR_STORE, DIR_SETTINGS)
    place = HELPERS[of](world)
    stands_in(trial, world, place)
    seen = json.loads(world.a.gateway().run("python3", "-c", LOOK, *folders))
    trial.open("A's gateway", all(seen.values()), seen)

    found = json.loads(place.run("python3", "-c", LOOK, *folders))

    trial.shut(f"A's {of}", not any(found.values()), found)
