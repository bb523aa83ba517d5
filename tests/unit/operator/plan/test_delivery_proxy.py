"""Which way an archive is fetched: straight from its server, or through the cluster's proxy; and what the Job has of it."""

import json
from dataclasses import replace

import pytest

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import CA_FILE, ORDER_FILE, PROXY_FILE, Archive, FillOrder
from r1plus_model_repo.catalog.types import ArchiveFile, Artifact, Engine
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import OperatorConfig, ProxyTerms, VolumeTerms
from r1plus_operator.plan.tenancy import volumes
from support.plan.world import CATALOG, CONFIG, World

PROXY = ProxyTerms("http://proxy.bank.example:3128", ("10.0.9.7/32",))
DIRECT = VolumeTerms(cidrs=("10.1.0.0/16",))
SERVER = "https://models.example:8443/lite.tar"


def need(url: str = SERVER) -> volumes.VolumeNeed:
    """The need for an archive's volume; `url=""`: for that of an image."""
    archive = Archive(url, "c" * 64) if url else None
    order = FillOrder("lite", "b" * 64, 2**30, archive)
    return volumes.VolumeNeed(
        EngineVolume("r1plus-engine-b", order, "" if url else "registry.local/e:1"), (("credit", "u"),)
    )


def with_terms(terms: VolumeTerms) -> OperatorConfig:
    return replace(CONFIG, volumes=terms)


def parts(terms: VolumeTerms, url: str = SERVER) -> dict[str, Json]:
    """All that is written once the claim is there, by kind."""
    claim = volumes.build_claim(need(url), "team", with_terms(terms), None, False)
    claim["metadata"]["uid"] = "uid-of-claim"
    seen = volumes.VolumesObservation(
        "team", (need(url),), {("PersistentVolumeClaim", claim["metadata"]["name"]): claim}
    )
    planned = volumes.plan_volumes(seen, with_terms(terms), 0.0)
    return {obj["kind"]: obj for stages in planned.apply.values() for stage in stages for obj in stage}


def egress(made: dict[str, Json]) -> Json:
    """Where the walls let out to, but for DNS."""
    _, way = made["NetworkPolicy"]["spec"]["egress"]
    return dict(way)


def test_the_policies_allow_the_proxy_and_no_longer_the_server() -> None:
    made = parts(replace(DIRECT, proxy=PROXY, ca_pem="PEM"))
    assert egress(made) == {
        "to": [{"ipBlock": {"cidr": "10.0.9.7/32"}}],
        "ports": [{"protocol": "TCP", "port": 3128}],
    }
    assert made["ConfigMap"]["data"].keys() == {ORDER_FILE, CA_FILE, PROXY_FILE}
    assert made["ConfigMap"]["data"][PROXY_FILE] == PROXY.url
    assert "proxy" not in json.dumps(made["Job"]["spec"]), "the pod is the same as without one"


@pytest.mark.parametrize(
    ("entry", "host", "is_direct"),
    [
        ("models.example", "models.example", True),
        ("MODELS.example", "Models.Example", True),
        ("example", "models.example", True),
        (".example", "models.example", True),
        ("dels.example", "models.example", False),
        (".models.example", "models.example", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.2.3", False),
        ("10.1.0.0/16", "models.example", False),
        ("fd00::/8", "10.1.2.3", False),
    ],
)
def test_what_is_listed_is_fetched_without_the_proxy(entry: str, host: str, is_direct: bool) -> None:
    terms = replace(DIRECT, proxy=replace(PROXY, no_proxy=("other.bank", entry)))
    made = parts(terms, f"https://{host}:8443/lite.tar")
    assert (PROXY_FILE not in made["ConfigMap"]["data"]) is is_direct
    expected = ("10.1.0.0/16", 8443) if is_direct else ("10.0.9.7/32", 3128)
    way = egress(made)
    assert (way["to"][0]["ipBlock"]["cidr"], way["ports"][0]["port"]) == expected


@pytest.mark.parametrize("port", [443, 8443])
def test_the_archives_port_is_that_of_its_address(port: int) -> None:
    url = "https://models.example/lite.tar" if port == 443 else SERVER
    assert egress(parts(DIRECT, url))["ports"] == [{"protocol": "TCP", "port": port}]


def test_an_archive_comes_through_a_proxy_without_a_network_of_its_server() -> None:
    assert {"Job", "NetworkPolicy"} <= parts(VolumeTerms(proxy=PROXY)).keys()
    listed = replace(PROXY, no_proxy=("models.example",))
    assert parts(VolumeTerms(proxy=listed)).keys() == {"PersistentVolumeClaim"}, "no network policy is open to all"
    archive = ArchiveFile(url=SERVER, sha256="b" * 64, size="400Mi")
    artifacts = {engine: Artifact(archive=archive, sha256=engine.spec.files.sha256) for engine in CATALOG}
    engines = [
        Engine(engine.name, engine.spec.model_copy(update={"artifact": its})) for engine, its in artifacts.items()
    ]
    world = World({"tier": "full", "context": {"maxTokens": 2048}}, engines=tuple(engines))
    for proxy, expected in ((listed, "False EngineNotDelivered"), (PROXY, "Unknown Delivering")):
        world.alter(config=with_terms(VolumeTerms(proxy=proxy, require_signature=False))).settle()
        world.expect(EngineReady=expected)


def test_where_nothing_is_set_no_job_is_made_again() -> None:
    """As this was before there were proxies: a Job that runs is stopped where its digest is another one."""
    for terms, digest in (
        (DIRECT, "cdee832e912c0f89"),
        (replace(DIRECT, ca_pem="PEM"), "ae99dfc9e72c34a2"),
        (replace(DIRECT, proxy=replace(PROXY, no_proxy=("example",))), "cdee832e912c0f89"),
    ):
        assert order_digest(parts(terms)) == digest
    assert order_digest(parts(replace(DIRECT, proxy=PROXY))) not in {"cdee832e912c0f89", "ae99dfc9e72c34a2"}


def test_what_comes_out_of_an_image_has_nothing_of_the_proxy() -> None:
    with_proxy, without = parts(replace(DIRECT, proxy=PROXY), ""), parts(DIRECT, "")
    assert with_proxy == without


def order_digest(made: dict[str, Json]) -> str:
    return str(made["Job"]["metadata"]["annotations"][names.ANNOTATION_ORDER])
