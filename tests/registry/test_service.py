"""The service over HTTP: who may do what, and what a database does to it that is slow, frozen, gone or back."""

import asyncio
import io
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from devcluster.pki import Authority
from r1plus_contract.history import Facts
from r1plus_contract.jsonable import dumps, to_jsonable
from r1plus_registry import queries
from r1plus_registry import storage as storage_module
from r1plus_registry.database import DatabaseLimits, RegistryDatabase
from r1plus_registry.errors import RegistryBusyError, RegistryUnavailableError
from r1plus_registry.queries import Reader
from r1plus_registry.retention import Pruner, Retention
from r1plus_registry.reviews import AccessRequest, User
from r1plus_registry.service import Instruments, Service
from r1plus_registry.storage import MOST_PENDING_OF_USER, Storage
from r1plus_registry.tables import metadata
from support.registry import story
from support.registry.postgres import PASSWORD, Cluster, Postgres
from support.waiting import DEADLINE_SECONDS, eventually

WRITER = "system:serviceaccount:r1plus-system:r1plus-operator"
TENANT, PLATFORM = "credit-admin", "platform"
SHORT = DatabaseLimits(connect=5.0, lock=0.5, statement=3.0, connections=2)


@dataclass
class Reviewed:
    """Stands for the API server: tokens are names, a tenant sees one namespace, the platform team everything."""

    down: bool = False
    namespaces: dict[str, str] = field(default_factory=lambda: {"team-credit": story.NAMESPACE_UID})
    asked: list[AccessRequest] = field(default_factory=list)

    async def authenticate(self, token: str, peer: str) -> User | None:
        if self.down:
            raise RegistryUnavailableError("The API server did not answer the TokenReview: down")
        return User(token) if token in (WRITER, TENANT, PLATFORM) else None

    async def can_access(self, user: User, access: AccessRequest) -> bool:
        self.asked.append(access)
        own = access.namespace == "team-credit" and access.resource == "r1plusdeployments"
        return user.name == PLATFORM or (user.name == TENANT and own)

    async def get_namespace_uid(self, name: str, user: User) -> str:
        return self.namespaces.get(name, "")


@dataclass
class Client:
    """The running service, asked by whom."""

    url: str
    reviewed: Reviewed
    storage: Storage
    session: aiohttp.ClientSession
    release: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs, in tests that let something hang."""

    async def get(self, path: str, who: str = PLATFORM) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {who}"} if who else {}
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json(
                content_type=None
            ) if "json" in answer.content_type else await answer.text()

    async def post(self, facts: Facts | bytes, who: str = WRITER) -> tuple[int, Any]:
        body = io.BytesIO(facts if isinstance(facts, bytes) else dumps(facts).encode())
        headers = {"Authorization": f"Bearer {who}"}
        async with self.session.post(f"{self.url}/v1/facts", data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def until_ready(self) -> None:
        await eventually(self.ready, "the service is ready", period_s=0.01)


Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts the service on a DSN, and waits until it is ready unless that cannot be."""
    async with AsyncExitStack() as ends:

        async def start(
            dsn: str | Path, limits: DatabaseLimits = SHORT, *, ready: bool = True, retention: Retention | None = None
        ) -> Client:
            storage = Storage(RegistryDatabase(dsn, limits))
            ends.callback(storage.close)
            reviewed = Reviewed()
            keeping = asyncio.create_task(storage.run())
            ends.push_async_callback(asyncio.gather, keeping, return_exceptions=True)
            ends.callback(keeping.cancel)
            instruments = Instruments(storage)
            pruner = Pruner(storage, retention or Retention(), instruments.pruned)
            if retention is not None:
                pruning = asyncio.create_task(pruner.run())
                ends.push_async_callback(asyncio.gather, pruning, return_exceptions=True)
                ends.callback(pruning.cancel)
            server = TestServer(Service(storage, reviewed, WRITER, instruments, pruner).build_application())
            await server.start_server()
            ends.push_async_callback(server.close)
            session = await ends.enter_async_context(aiohttp.ClientSession())
            client = Client(str(server.make_url("")).rstrip("/"), reviewed, storage, session)
            if ready:
                await client.until_ready()
            return client

        yield start


@pytest.fixture
async def client(dsn: str, serve: Serve) -> Client:
    """A service that is ready."""
    return await serve(dsn)


@pytest.fixture
async def filled(client: Client) -> Client:
    """One that knows the story."""
    assert (await client.post(story.FACTS))[0] == 200
    return client


async def test_the_operator_delivers_and_is_told_what_was_new(client: Client) -> None:
    status, receipt = await client.post(story.FACTS)
    assert (status, set(receipt["recorded"].values())) == (200, {1})
    assert await client.post(story.FACTS) == (200, {"recorded": {}})
    _, text = await client.get("/metrics")
    assert 'r1plus_registry_facts_total{kind="evaluations"} 1.0' in text
    assert "r1plus_registry_database_usable 1.0" in text


@pytest.mark.parametrize("who", [TENANT, PLATFORM], ids=["a tenant", "the platform team"])
async def test_nobody_but_the_operator_may_record(client: Client, who: str) -> None:
    status, body = await client.post(story.FACTS, who)
    assert status == 403
    assert f"{who} may not record" in body["error"]
    assert await client.get("/v1/engines") == (200, {"items": []})


HISTORY = "/v1/namespaces/team-credit/deployments/credit"
READS: dict[str, tuple[str, str, int]] = {
    "a tenant its own history": (TENANT, HISTORY, 200),
    "a tenant its own evaluations": (TENANT, "/v1/evaluations?namespace=team-credit", 200),
    "a tenant those of one of its own": (TENANT, "/v1/evaluations?namespace=team-credit&name=credit", 200),
    "a tenant another's history": (TENANT, "/v1/namespaces/team-other/deployments/credit", 403),
    "a tenant another's evaluations": (TENANT, "/v1/evaluations?namespace=team-other", 403),
    "a tenant everybody's evaluations": (TENANT, "/v1/evaluations", 403),
    "a tenant all engines, which it may not list": (TENANT, "/v1/engines", 403),
    "the platform team everything": (PLATFORM, "/v1/evaluations", 200),
    "the platform team engines": (PLATFORM, "/v1/engines", 200),
    "a stranger": ("stranger", HISTORY, 401),
    "nobody": ("", HISTORY, 401),
    "a name without a namespace": (PLATFORM, "/v1/evaluations?name=credit", 400),
    "what is not there": (PLATFORM, "/v2/everything", 404),
}


@pytest.mark.parametrize(("who", "path", "status"), READS.values(), ids=READS)
async def test_who_reads_what(filled: Client, who: str, path: str, status: int) -> None:
    found, body = await filled.get(path, who)
    assert found == status
    assert ("error" in body) == (status != 200)


async def test_the_right_that_is_asked_for_is_the_one_to_the_cr(filled: Client) -> None:
    filled.reviewed.asked.clear()
    await filled.get(HISTORY, TENANT)
    await filled.get("/v1/evaluations?namespace=team-credit", TENANT)
    await filled.get("/v1/engines")
    everywhere = AccessRequest("get", "r1plusdeployments")
    assert filled.reviewed.asked == [
        AccessRequest("get", "r1plusdeployments", "team-credit", "credit"),
        everywhere,
        AccessRequest("list", "r1plusdeployments", "team-credit"),
        everywhere,
        AccessRequest("list", "r1plusengines"),
    ]


async def test_a_namesakes_past_is_the_platform_teams(filled: Client) -> None:
    """The namespace was deleted, and another tenant has one of that name: it sees nothing of what was before."""
    await filled.post(Facts(live=()))
    assert await filled.get(HISTORY, TENANT) == (200, {"items": []})
    assert await filled.get("/v1/evaluations?namespace=team-credit", TENANT) == (200, {"items": []})
    _, seen = await filled.get(HISTORY, PLATFORM)
    assert [one["ended"] for one in seen["items"]] == [True]


@pytest.mark.parametrize("now", ["another-uid", ""], ids=["made again", "gone"])
async def test_a_namespace_of_the_same_name_is_told_nothing_though_nobody_has_said_that_the_old_one_ended(
    filled: Client, now: str
) -> None:
    """The operator says it, and may be down for as long as it takes to make the name again."""
    filled.reviewed.namespaces["team-credit"] = now
    assert await filled.get(HISTORY, TENANT) == (200, {"items": []})
    assert await filled.get("/v1/evaluations?namespace=team-credit&items=1", TENANT) == (200, {"items": []})
    _, seen = await filled.get(HISTORY, PLATFORM)
    assert [one["ended"] for one in seen["items"]] == [False]


async def test_a_deployment_of_which_nobody_has_said_in_which_namespace_it_was_is_the_platform_teams(
    client: Client,
) -> None:
    """What an earlier version recorded; the operator says it again at its start."""
    before = replace(story.FACTS, deployments=(replace(story.DEPLOYMENT, namespace_uid=""),))
    await client.post(before)
    assert await client.get(HISTORY, TENANT) == (200, {"items": []})
    client.reviewed.namespaces["team-credit"] = ""
    assert await client.get(HISTORY, TENANT) == (200, {"items": []})
    client.reviewed.namespaces["team-credit"] = story.NAMESPACE_UID
    await client.post(story.FACTS)
    _, seen = await client.get(HISTORY, TENANT)
    assert len(seen["items"]) == 1


async def test_the_story_of_the_refused_revision_is_told_with_its_figures(filled: Client) -> None:
    _, seen = await filled.get(HISTORY, TENANT)
    (history,) = seen["items"]
    report = history["evaluations"][0]["report"]
    assert report == to_jsonable(story.REPORT)
    _, found = await filled.get("/v1/evaluations?namespace=team-credit&items=1", TENANT)
    assert [item["right"] for item in found["items"][0]["items"]] == [True, False, False]


async def test_item_by_item_the_newest_are_told_and_without_items_all(client: Client) -> None:
    reports = [replace(story.REPORT, decided_at=f"2026-11-25T12:{n:02d}:00Z") for n in range(51)]
    await client.post(replace(story.FACTS, evaluations=tuple(replace(story.EVALUATION, report=r) for r in reports)))
    _, without = await client.get("/v1/evaluations")
    _, within = await client.get("/v1/evaluations?items=1")
    assert (len(without["items"]), len(within["items"])) == (51, 50)
    times = [one["report"]["decidedAt"] for one in within["items"]]
    assert times == sorted(times, reverse=True)
    assert times[0] == "2026-11-25T12:50:00Z"


async def test_item_by_item_no_more_are_told_than_fit_in_memory(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [replace(story.REPORT, decided_at=f"2026-11-25T12:{n:02d}:00Z") for n in range(4)]
    await client.post(replace(story.FACTS, evaluations=tuple(replace(story.EVALUATION, report=r) for r in reports)))
    for most, count in ((2, 1), (3, 1), (8, 2), (9, 3)):
        monkeypatch.setattr(queries, "MOST_ITEMS", most)
        _, found = await client.get("/v1/evaluations?items=1")
        assert [one["report"]["decidedAt"][14:16] for one in found["items"]] == ["03", "02", "01"][:count]


NULS = (
    "/v1/namespaces/team%00credit/deployments/credit",
    "/v1/namespaces/team-credit/deployments/%00",
    "/v1/evaluations?namespace=%00",
    "/v1/evaluations?namespace=team-credit&name=a%00",
    "/v1/evaluations?items=%00",
    "/v1/engines?%00=%00",
)


@pytest.mark.parametrize("path", NULS)
async def test_a_nul_in_what_is_asked_for_is_refused(client: Client, path: str) -> None:
    status, answer = await client.get(path)
    assert status == 400
    assert "has a NUL character" in answer["error"]


BODIES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "not JSON"),
    "a list": (b"[]", "Facts: expected an object"),
    "a field of the wrong type": (b'{"deployments": [{"uid": 1, "namespace": "a", "name": "b"}]}', "Facts.deployments[0].uid"),
    "a fact of a deployment that nobody knows": (dumps(Facts(rollouts=(story.ROLLOUT,))).encode(), "is neither recorded"),
    "an accuracy that is no number": (dumps(story.FACTS).replace('"threshold":0.98', '"threshold":NaN').encode(), "threshold"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "said"), BODIES.values(), ids=BODIES)
async def test_what_cannot_be_recorded_is_refused_in_words(client: Client, body: bytes, said: str) -> None:
    status, answer = await client.post(body)
    assert status == 400
    assert said in answer["error"]
    assert await client.get("/v1/evaluations") == (200, {"items": []})


async def test_a_body_without_an_end_is_cut_off(client: Client) -> None:
    status, _ = await client.post(b" " * (4 * 1024 * 1024 + 1))
    assert status == 413


async def test_a_field_of_a_newer_operator_is_passed_over(client: Client) -> None:
    document = dumps(story.FACTS).replace('"deployments":', '"weather":"fine","deployments":', 1)
    assert (await client.post(document.encode()))[0] == 200


async def test_while_the_api_server_is_down_nobody_is_let_in_and_nobody_is_told_off(filled: Client) -> None:
    filled.reviewed.down = True
    status, body = await filled.get(HISTORY)
    assert status == 503
    assert "TokenReview" in body["error"]


@pytest.fixture
def own_postgres(cluster: Cluster) -> Iterator[Postgres]:
    """A server that the test may stop."""
    with closing(Postgres(cluster)) as server:
        server.start()
        yield server


@pytest.fixture
def scratch(postgresql: Postgres) -> Iterator[str]:
    """A database of that server without a schema."""
    with postgresql.scratch() as dsn:
        yield dsn


async def says(client: Client, expected: int, *words: str) -> bool:
    """Whether /readyz answers so, with one of these words."""
    status, text = await client.get("/readyz")
    return status == expected and any(word in text for word in words)


async def assert_not_ready(client: Client, *words: str) -> None:
    """/readyz and a delivery say why, and say no password; /healthz is well: a restart would mend nothing."""
    await eventually(lambda: says(client, 503, *words), f"readyz says one of {words}")
    for status, answer in (await client.get("/readyz"), await client.post(story.FACTS)):
        assert status == 503
        assert PASSWORD not in str(answer)
    assert (await client.get("/healthz"))[0] == 200


@pytest.mark.postgres
async def test_a_server_that_is_not_there_yet_is_waited_for(serve: Serve, own_postgres: Postgres) -> None:
    own_postgres.stop()
    client = await serve(own_postgres.dsn(), ready=False)
    await assert_not_ready(client, "refused")
    await asyncio.to_thread(own_postgres.start)
    await client.until_ready()
    assert (await client.post(story.FACTS))[0] == 200


@pytest.mark.postgres
async def test_a_server_that_goes_away_in_the_middle_leaves_nothing_half_written(
    serve: Serve, own_postgres: Postgres
) -> None:
    client = await serve(own_postgres.dsn())
    answers: list[int] = []

    def nth(number: int) -> Facts:
        return story.of(f"uid-{number}")

    async def deliver() -> None:
        while answers.count(503) < 10:
            answers.append((await client.post(nth(len(answers))))[0])

    delivering = asyncio.create_task(deliver())
    await eventually(lambda: len(answers) > 3, "some are recorded")
    await asyncio.to_thread(own_postgres.stop)
    await delivering
    assert set(answers) == {200, 503}
    await asyncio.to_thread(own_postgres.start)
    await client.until_ready()
    _, found = await client.get("/v1/evaluations")
    assert answers.count(200) <= len(found["items"]) <= answers.count(200) + 1  # a commit whose answer was lost
    for number in range(len(answers)):
        status, receipt = await client.post(nth(number))
        assert status == 200
        assert receipt["recorded"] in (
            {},
            dict.fromkeys(("deployments", "revisions", "evaluations", "rollouts", "alarms"), 1),
        )
    _, found = await client.get("/v1/evaluations")
    assert len(found["items"]) == len(answers)


@pytest.mark.postgres
async def test_a_wrong_password_is_named_and_never_shown(serve: Serve, postgresql: Postgres) -> None:
    client = await serve(postgresql.dsn(password=PASSWORD + "-wrong"), ready=False)
    await assert_not_ready(client, "password authentication failed")


@pytest.fixture
def role(postgresql: Postgres, scratch: str) -> Iterator[str]:
    """A role that owns that database; its password is `first`."""
    name = f"role_{scratch.rpartition('/')[2]}"
    postgresql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'first'")
    postgresql.execute(f"ALTER DATABASE {scratch.rpartition('/')[2]} OWNER TO {name}")
    yield name
    postgresql.execute(f"ALTER DATABASE {scratch.rpartition('/')[2]} OWNER TO admin")
    postgresql.execute(f"REASSIGN OWNED BY {name} TO admin; DROP OWNED BY {name}", scratch)
    postgresql.execute(f"DROP ROLE {name}")


@pytest.mark.postgres
async def test_a_password_that_was_changed_is_taken_from_the_file_without_a_restart(
    serve: Serve, postgresql: Postgres, scratch: str, role: str, tmp_path: Path
) -> None:
    file = tmp_path / "dsn"
    file.write_text(scratch.replace(f"admin:{PASSWORD}", f"{role}:first") + "\n")
    client = await serve(file)
    assert (await client.post(story.FACTS))[0] == 200
    postgresql.execute(f"ALTER ROLE {role} PASSWORD 'second'")
    # Sessions outlive their password until they end.
    assert (await client.post(story.of("uid-2")))[0] == 200
    postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
    await assert_not_ready(client, "password authentication failed")
    file.write_text(scratch.replace(f"admin:{PASSWORD}", f"{role}:second") + "\n")
    await client.until_ready()
    assert (await client.post(story.of("uid-3")))[0] == 200
    assert len((await client.get("/v1/evaluations"))[1]["items"]) == 3


async def test_a_file_that_names_another_database_moves_the_service_there(
    serve: Serve, server: Any, tmp_path: Path
) -> None:
    file = tmp_path / "dsn"
    with server.scratch() as one, server.scratch() as other:
        file.write_text(one)
        client = await serve(file)
        assert (await client.post(story.FACTS))[0] == 200
        file.write_text(other)
        await client.until_ready()
        assert (await client.get("/v1/evaluations")) == (200, {"items": []})
        file.write_text(one)
        await client.until_ready()
        assert len((await client.get("/v1/evaluations"))[1]["items"]) == 1


WRONG_FILES: dict[str, tuple[str | None, str]] = {
    "gone": (None, "No such file or directory"),
    "empty": ("", "is not a database URL"),
    "of another database": ("mysql://u:hunter2@h/d", "is not a supported database"),
}


@pytest.mark.parametrize(("text", "said"), WRONG_FILES.values(), ids=WRONG_FILES)
async def test_a_file_without_a_usable_dsn_is_told_of_until_it_has_one(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    monkeypatch.setattr(storage_module, "LAST_RETRY_SECONDS", 0.05)
    file = tmp_path / "dsn"
    file.write_text(good := f"sqlite:///{tmp_path / 'registry.db'}")
    client = await serve(file)
    file.unlink() if text is None else file.write_text(text)
    await eventually(lambda: says(client, 503, said), f"readyz says {said}")
    assert "hunter2" not in (await client.get("/readyz"))[1]
    file.write_text(good)
    await client.until_ready()


CAS = {
    "of the chart's value caKey, where the DSN names none": ("PGSSLROOTCERT", "sslmode=verify-full"),
    "of the image, where the DSN asks for the system's": ("SSL_CERT_FILE", "sslmode=verify-full&sslrootcert=system"),
}


@pytest.mark.postgres
@pytest.mark.parametrize(("variable", "query"), CAS.values(), ids=CAS)
async def test_a_server_is_trusted_by_the_ca(
    serve: Serve, own_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, query: str
) -> None:
    authority = Authority(tmp_path / "ca")
    authority.ensure()
    own_postgres.speak_tls(authority.issue("postgres", "postgres", hosts=["127.0.0.1"]))
    dsn = f"{own_postgres.dsn()}?{query}"
    await assert_not_ready(await serve(dsn, ready=False), "certificate verify failed", "root certificate file")
    monkeypatch.setenv(variable, str(authority.certificate))
    assert await (await serve(dsn)).ready()


@pytest.mark.postgres
async def test_a_database_that_is_not_there_is_named(serve: Serve, postgresql: Postgres) -> None:
    await assert_not_ready(await serve(postgresql.dsn("nowhere"), ready=False), '"nowhere" does not exist')


async def test_a_server_that_never_answers_is_given_up(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = f"postgresql://admin:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/registry"
        client = await serve(dsn, replace(SHORT, connect=2.0), ready=False)
        await assert_not_ready(client, "timeout", "timed out")


@pytest.mark.postgres
async def test_a_slow_statement_is_ended_and_nothing_of_it_recorded(
    postgresql: Postgres, scratch: str, serve: Serve
) -> None:
    client = await serve(scratch, replace(SHORT, statement=1.0))
    slow = (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(3600); RETURN NEW; END$$"
    )
    postgresql.execute(slow, scratch)
    postgresql.execute("CREATE TRIGGER slow BEFORE INSERT ON alarms FOR EACH ROW EXECUTE FUNCTION slow()", scratch)
    status, answer = await client.post(story.FACTS)
    assert status == 503
    assert "statement timeout" in answer["error"]
    assert await client.get("/v1/engines") == (200, {"items": []})
    postgresql.execute("DROP TRIGGER slow ON alarms", scratch)
    assert (await client.post(story.FACTS))[0] == 200


@pytest.mark.postgres
async def test_a_frozen_server_hangs_nobody_for_long(
    postgresql: Postgres, scratch: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel still answers, so no time-out of TCP's or its own ever comes: without ours nobody gets an answer."""
    client = await serve(scratch)
    frozen = postgresql.backends(scratch)
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.5)
    try:
        answers = await asyncio.gather(*(client.post(story.FACTS) for _ in range(4)))
        assert {status for status, _ in answers} == {503}
        assert (await client.get("/healthz"))[0] == 200
    finally:
        monkeypatch.undo()
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    await client.until_ready()
    assert (await client.post(story.FACTS))[0] == 200
    assert len((await client.get("/v1/evaluations"))[1]["items"]) == 1


async def test_a_schema_that_is_gone_is_made_anew(filled: Client, dsn: str) -> None:
    database = RegistryDatabase(dsn)
    with database.transaction(writes=True) as connection:
        for table in ("alembic_version", *reversed(metadata.sorted_tables)):
            connection.exec_driver_sql(f"DROP TABLE {table}")
    database.close()
    assert (await filled.post(story.FACTS))[0] == 503
    await filled.until_ready()
    assert (await filled.post(story.FACTS))[0] == 200


async def test_a_file_that_another_holds_locked_is_waited_for_and_told_of(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    client = await serve(f"sqlite:///{path}")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    status, answer = await client.post(story.FACTS)
    assert status == 503
    assert "database is locked" in answer["error"]
    holder.execute("ROLLBACK")
    holder.close()
    assert (await client.post(story.FACTS))[0] == 200


async def test_what_can_be_recorded_again_is_usable_again_whether_or_not_anybody_looks(
    serve: Serve, tmp_path: Path
) -> None:
    client = await serve(f"sqlite:///{tmp_path / 'registry.db'}")
    client.storage.problem = "was full"
    assert (await client.get("/v1/engines"))[0] == 200
    assert client.storage.problem == "was full"
    assert (await client.post(story.FACTS))[0] == 200
    assert client.storage.problem == ""


async def test_a_file_that_is_no_database_is_told_of(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database at all" * 100)
    await assert_not_ready(await serve(f"sqlite:///{path}", ready=False), "file is not a database")
    assert path.read_bytes().startswith(b"not a database at all")


async def test_a_full_volume_is_told_of_and_nothing_is_half_written(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    client = await serve(f"sqlite:///{path}")
    for connection in [client.storage._database.engine.connect() for _ in range(SHORT.connections)]:
        pages = connection.connection.execute("PRAGMA page_count").fetchone()[0]
        connection.connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.close()
    large = replace(story.FACTS, alarms=tuple(replace(story.ALARM, since=str(n), text="x" * 4000) for n in range(200)))
    status, answer = await client.post(large)
    assert status == 507
    assert "full; enlarge the volume (chart value registry.storage.size)" in answer["error"]
    assert await client.get("/v1/engines") == (200, {"items": []})


async def test_without_room_for_a_delivery_it_is_not_ready_and_tells_what_is_there(
    serve: Serve, tmp_path: Path
) -> None:
    dsn = f"sqlite:///{tmp_path / 'registry.db'}"
    roomy = await serve(dsn)
    assert (await roomy.post(story.FACTS))[0] == 200
    client = await serve(dsn, replace(SHORT, room=2**62), ready=False)
    await eventually(lambda: says(client, 503, "the volume is full: "), "readyz says that it is full")
    assert (await client.get(HISTORY))[0] == 200
    status, answer = await client.post(story.FACTS)
    assert status == 507
    assert "enlarge the volume (chart value registry.storage.size)" in answer["error"]
    assert await says(client, 503, "the volume is full: ")
    assert "r1plus_registry_database_usable 0.0" in (await client.get("/metrics"))[1]


@pytest.fixture
async def hung(client: Client) -> AsyncIterator[Client]:
    """A service whose threads all wait, until the test ends."""
    begun = threading.Semaphore(0)

    def hang(_: Reader) -> None:
        begun.release()
        client.release.wait(DEADLINE_SECONDS)

    hanging = [asyncio.create_task(client.storage.read(hang)) for _ in range(SHORT.connections)]
    for _ in hanging:
        assert await asyncio.to_thread(begun.acquire, timeout=DEADLINE_SECONDS)
    yield client
    client.release.set()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_what_nobody_waits_for_any_more_is_not_begun(hung: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.2)
    status, answer = await hung.post(story.FACTS)
    assert status == 503
    assert "no answer for 0.2 s" in answer["error"]
    monkeypatch.undo()
    hung.release.set()
    assert await hung.get("/v1/evaluations") == (200, {"items": []})


async def test_one_user_cannot_take_the_database_from_another(client: Client) -> None:
    """User A takes its share, and ten times as much; B, the operator and the probes are served meanwhile."""
    hanging = asyncio.gather(
        *(
            client.storage.read(lambda _: client.release.wait(DEADLINE_SECONDS), "user A")
            for _ in range(MOST_PENDING_OF_USER)
        )
    )
    await eventually(lambda: client.storage.shares.pending == MOST_PENDING_OF_USER, "A has its share")
    for _ in range(9 * MOST_PENDING_OF_USER):
        with pytest.raises(RegistryBusyError, match=f"{MOST_PENDING_OF_USER} of your requests are waiting already"):
            await client.storage.read(lambda _: None, "user A")
    assert await client.get("/v1/engines") == (200, {"items": []})
    assert (await client.post(story.FACTS))[0] == 200
    assert await client.ready()
    client.release.set()
    await hanging
    assert await client.storage.read(lambda _: "served again", "user A") == "served again"


async def test_a_user_beyond_its_share_is_told_to_come_again(hung: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hung.storage.shares, "most_of_owner", 1)
    waits = asyncio.create_task(hung.get("/v1/engines"))
    await eventually(lambda: hung.storage.shares.pending == 1, "one waits")
    headers = {"Authorization": f"Bearer {PLATFORM}"}
    async with hung.session.get(f"{hung.url}/v1/engines", headers=headers) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "1 of your requests are waiting already" in await answer.text()
    hung.release.set()
    assert await waits == (200, {"items": []})


async def test_a_flood_of_probes_is_one_look_at_the_database(hung: Client) -> None:
    looks = [asyncio.create_task(hung.storage.find_problem()) for _ in range(100)]
    await asyncio.sleep(0)
    assert hung.storage._threads._work_queue.qsize() <= 1
    hung.release.set()
    assert set(await asyncio.gather(*looks)) == {""}
