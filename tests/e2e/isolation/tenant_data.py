"""The gateways of A and B, with their data in databases of one PostgreSQL, and SQL from the place of A's gateway.

That is the worst place for B: it has A's credentials and the way to the server, which no other pod of A's has.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from e2e import gateways
from e2e.gateway import postgresql
from e2e.gateway.postgresql import PostgreSql
from e2e.gateways import ApiKey
from e2e.isolation.stage import Place, Side, World, gateway_of
from e2e.kube import Json
from e2e.waiting import wait_for
from r1plus_contract.gateway import DATABASE_URL_FILE, PORT_API, PORT_INTERNAL
from r1plus_contract.names import TENANT

SECRET = "gateway-database"
CONTAINER = "gateway"
_RUN_SQL = """
import json, sys
import psycopg
request = json.load(sys.stdin)
ended = []
try:
    with psycopg.connect(request["url"], autocommit=True, connect_timeout=10) as connection:
        for statement in request["statements"]:
            try:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
                ended.append("done " + json.dumps([[str(value) for value in row] for row in rows]))
            except psycopg.Error as error:
                ended.append(f"refused {type(error).__name__} {error}")
except psycopg.OperationalError as error:
    ended += [f"refused {error}"] * (len(request["statements"]) - len(ended))
print(json.dumps(ended))
"""
_FLOOD = """
import json, sys
import psycopg
request, held, said = json.load(sys.stdin), [], "all"
try:
    while len(held) < request["most"]:
        held.append(psycopg.connect(request["url"], connect_timeout=10))
except psycopg.OperationalError as error:
    said = str(error)
print(json.dumps([len(held), said]))
"""
_STATUS = """
import json, sys, urllib.error, urllib.request
url, key = json.load(sys.stdin)
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
_GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())"


@dataclass(slots=True)
class TenantData:
    """A side's gateway, its database, and a key of it."""

    side: Side
    server: PostgreSql
    database: str
    url: str
    """With the role's password."""
    key: ApiKey

    def place(self) -> Place:
        """Inside the gateway."""
        kube, namespace = self.side.kube, self.side.namespace

        def look() -> str | None:
            # Not Ready while its data cannot be used, which is what some tests are about.
            pods = (pod for pod in gateways.gateway_pods(kube, namespace) if gateways.is_running(pod))
            return next((str(pod["metadata"]["name"]) for pod in pods), None)

        return Place(kube, namespace, wait_for(look, f"the gateway of {namespace} runs"), CONTAINER)

    @property
    def address(self) -> str:
        """Of the gateway's pod."""
        found = self.side.kube.get("pods", self.side.namespace, self.place().pod) or {}
        return str(found["status"]["podIP"])

    def run_sql(self, *statements: str, database: str = "") -> list[str]:
        """How each ended: `done ROWS` or `refused WHY`; in one session of the side's own role."""
        url = f"{self.url.rpartition('/')[0]}/{database}" if database else self.url
        given = json.dumps({"url": url, "statements": statements})
        return list(json.loads(self.place().run("python3", "-c", _RUN_SQL, given=given)))

    def open_connections(self, most: int) -> tuple[int, str]:
        """Open so many connections by the side's own role; how many there were, and what was said of the next."""
        given = json.dumps({"url": self.url, "most": most})
        held, said = json.loads(self.place().run("python3", "-c", _FLOOD, given=given))
        return int(held), str(said)

    def current_role(self) -> str:
        """As whom SQL is run, by PostgreSQL's own word."""
        (said,) = self.run_sql("SELECT current_user")
        return str(json.loads(said.removeprefix("done "))[0][0])

    def use_database(self, name: str) -> None:
        """Let the gateway use another database of the server, by its own role, and start it again."""
        write_secret(self.side, f"{self.url.rpartition('/')[0]}/{name}")
        self.restart()

    def restart(self) -> None:
        """Delete the gateway's pod; another starts."""
        kube, namespace = self.side.kube, self.side.namespace
        old = {pod["metadata"]["name"] for pod in gateways.gateway_pods(kube, namespace)}
        for name in old:
            kube.delete("pods", namespace, name)
        wait_for(
            lambda: not old & {p["metadata"]["name"] for p in gateways.gateway_pods(kube, namespace)}, "it is gone"
        )

    def read_status(self, key: str) -> int:
        """How the gateway answers a key; asked inside its pod, since no Service leads to one that cannot use its data."""
        given = json.dumps([f"http://127.0.0.1:{PORT_API}/v1/models", key])
        return int(self.place().run("python3", "-c", _STATUS, given=given))

    def data_reason(self) -> str:
        """What the gateway says of its data."""
        said = self.place().run("python3", "-c", _GET, f"http://127.0.0.1:{PORT_INTERNAL}/data")
        return str(json.loads(said).get("reason", ""))

    def until_reason(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until the gateway says so of its data; what it says."""
        last = ""

        def look() -> str | None:
            nonlocal last
            try:
                last = self.data_reason()
            except RuntimeError as error:
                last = str(error)
                return None
            return last if holds(last) else None

        return wait_for(look, what, lambda: last, period_s=1.0)


def write_secret(side: Side, url: str) -> None:
    """Write the Secret with the database's URL."""
    meta = {"name": SECRET, "namespace": side.namespace}
    body: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {DATABASE_URL_FILE: url}}
    side.kube.apply(body)


def serve(world: World, server: PostgreSql) -> tuple[TenantData, TenantData]:
    """Move both gateways' data to a database of their own, as docs/gateway-access.md prepares it; they begin empty."""
    names = {world.a.namespace: "t_3c91", world.b.namespace: "t_7be0"}
    urls = {}
    for side in (world.a, world.b):
        urls[side.namespace] = server.create_database(names[side.namespace])
        write_secret(side, urls[side.namespace])
        egress = {"namespace": postgresql.NAMESPACE, "ports": [postgresql.PORT]}
        _configure(side, gateway_of(side.namespace) | {"database": {"secretName": SECRET, "egress": egress}})
    made = []
    for side in (world.a, world.b):
        _until_mounted(side, "database")
        key = gateways.create_key(world.kube, side.namespace, side.admin_name)
        made.append(TenantData(side, server, names[side.namespace], urls[side.namespace], key))
    return made[0], made[1]


def use_volumes(world: World) -> None:
    """Move both gateways back to the files on their volumes."""
    for side in (world.a, world.b):
        _configure(side, gateway_of(side.namespace))
    for side in (world.a, world.b):
        _until_mounted(side, "store")


def _until_mounted(side: Side, volume: str) -> None:
    """Wait until the only pod of the gateway has this volume, and is ready."""

    def look() -> bool:
        pods = gateways.gateway_pods(side.kube, side.namespace)
        has_it = [pod for pod in pods if volume in {one["name"] for one in pod["spec"]["volumes"]}]
        return len(pods) == len(has_it) == 1 and gateways.is_up(pods[0])

    what = f"the gateway of {side.namespace} has its data in volume {volume}"
    wait_for(look, what, lambda: gateways.describe_pods(side.kube, side.namespace))


def _configure(side: Side, gateway: Any) -> None:
    spec = {"gateway": gateway, "data": {"retentionDays": 1}}
    side.kube.patch("r1plustenants", side.namespace, TENANT, {"spec": spec})


def is_done(ended: Sequence[str]) -> bool:
    """Whether every statement was executed."""
    return bool(ended) and all(one.startswith("done ") for one in ended)


def is_refused(ended: Sequence[str], words: str) -> bool:
    """Whether the last statement was refused with these words."""
    return bool(ended) and ended[-1].startswith("refused ") and words in ended[-1]
