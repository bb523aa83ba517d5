"""A tenant with a gateway and one small model, for all tests of this folder; away again at the end."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.steps import Steps
from e2e import gateways, objects
from e2e.gateway import postgresql
from e2e.gateway.postgresql import NAMESPACE as DATABASE_NAMESPACE
from e2e.gateway.postgresql import PORT, PostgreSql
from e2e.gateways import ApiKey, GatewayAsker
from e2e.kube import Json, Kube
from e2e.own_images import require_embedded_cluster
from e2e.parts import Parts, build_embedding_engine
from e2e.story import Name
from e2e.suites import own_suite
from e2e.target import Target
from e2e.tenants import Tenant
from e2e.waiting import wait_for
from r1plus_contract.names import TENANT
from r1plus_operator.observe.suite_signature import generate_key

NAMESPACE, MODEL = "story-gateway", "triage"
BAKE_SECONDS = 20
STREAM_TOKENS = 400


@pytest.fixture(scope="session")
def chart_values() -> dict[str, Any]:
    """Twenty seconds of traffic make a revision one to go back to."""
    return {"rollback": {"bakeSeconds": BAKE_SECONDS}, "verdictIntervalSeconds": 2}


@pytest.fixture(scope="session")
def database_image(built: Parts) -> str:
    """PostgreSQL, which only these tests have."""
    return built.refs[postgresql.NAME]


@pytest.fixture(scope="session")
def built(built: Parts) -> Parts:
    """With PostgreSQL and the embedding engine on the node."""
    require_embedded_cluster("the image of PostgreSQL is built for the embedded cluster")
    steps = Steps()
    steps.expect(2)
    return built.add_images({postgresql.NAME: postgresql.build_image(steps), **build_embedding_engine(steps)})


@pytest.fixture(scope="session")
def database(kube: Kube, database_image: str) -> Iterator[PostgreSql]:
    """A server that answers."""
    server = PostgreSql(kube, database_image)
    server.start()
    yield server
    server.stop()


@dataclass(frozen=True, slots=True)
class ServedTenant:
    """A model behind its tenant's gateway."""

    target: Target
    tenant: Tenant
    name: Name

    @property
    def kube(self) -> Kube:
        """The cluster's API."""
        return self.target.kube

    def configure(self, **gateway: object) -> None:
        """Ask for another gateway: these fields, and no others."""
        self.kube.apply(objects.tenant(NAMESPACE, gateway=gateway))

    def configure_shared(self, database: PostgreSql, name: str, **gateway: object) -> None:
        """Ask for two pods that share a database of that name, which is made if it is missing, and wait until both are ready."""
        secret = f"gateway-{name}".replace("_", "-")
        if self.kube.get("secrets", NAMESPACE, secret) is None:
            head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": NAMESPACE}}
            self.kube.apply({**head, "stringData": {"url": database.create_database(name)}})
        egress = {"namespace": DATABASE_NAMESPACE, "ports": [PORT]}
        self.configure(enabled=True, replicas=2, database={"secretName": secret, "egress": egress}, **gateway)
        self.until_ready_pods(2)

    def until_ready_pods(self, count: int, without: str = "", containers: Collection[str] = ()) -> None:
        """Wait until the gateway has so many pods, all ready, with these containers, and none of this uid."""

        def look() -> bool:
            pods = gateways.gateway_pods(self.kube, NAMESPACE)
            return (
                len(pods) == count
                and all(map(gateways.is_up, pods))
                and without not in {pod["metadata"]["uid"] for pod in pods}
                and all(
                    {container["name"] for container in pod["spec"]["containers"]}.issuperset(containers)
                    for pod in pods
                )
            )

        wait_for(look, f"{count} pods are ready, and no other", lambda: gateways.describe_pods(self.kube, NAMESPACE))

    def until_ready(self) -> Json:
        """Wait until the gateway is ready."""
        return gateways.until_ready(self.kube, NAMESPACE, print)

    def until_answers(self, url: str, key: ApiKey) -> None:
        """Wait until the gateway answers with evidence of what serves."""
        with gateways.open_client(url, key.secret) as client:
            gateways.until_verified(client, self.kube, self.name)

    def asker(self, url: str, key: ApiKey, **options: Any) -> GatewayAsker:
        """Return a client that asks all the time, once it is entered."""
        return GatewayAsker(url, key=key.secret, **{"model": self.name.name, **options})

    def stream_asker(self, url: str, key: ApiKey, **options: Any) -> GatewayAsker:
        """Return one whose answers are streams of some seconds."""
        long = {"prompt": "Write a long story about a ship, an island and a storm.", "max_tokens": STREAM_TOKENS}
        return self.asker(url, key, is_streamed=True, **{**long, **options})


@pytest.fixture(scope="session")
def served(target: Target) -> Iterator[ServedTenant]:
    """The model serves, and the gateway is ready."""
    tenant = Tenant(target.kube, NAMESPACE, print)
    tenant.make()
    one = ServedTenant(target, tenant, Name(NAMESPACE, MODEL))
    one.configure(enabled=True)
    gateways.init_tenant(target.kube, NAMESPACE, print)
    suite = own_suite("edge", generate_key(), per_stratum=10)
    suite.put(target.kube, NAMESPACE)
    tenant.apply(MODEL, "edge", accuracy={**suite.held, "threshold": 0.95}, context={"maxTokens": 1024})
    tenant.until_ready(one.name)
    one.until_ready()
    yield one
    target.kube.delete("r1plustenants", NAMESPACE, TENANT)
    tenant.clear()


@pytest.fixture(scope="session")
def key(served: ServedTenant) -> ApiKey:
    """A key of the gateway whose data are on a volume."""
    return gateways.create_key(served.kube, NAMESPACE, "clients")


@pytest.fixture
def url(served: ServedTenant) -> Iterator[str]:
    """The gateway's base URL, which changes when its Service is made again."""
    with gateways.reach(served.target, NAMESPACE) as found:
        yield found
