"""A tenant's gateway and its data: keys, usage and budgets of B, out of reach of A's gateway, keys and administrators.

Both tenants' data lie in one PostgreSQL, which is the weaker of the two stores: in the default one, a file on the tenant's
own volume, there is no other tenant's SQL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from devcluster.steps import Steps
from e2e import gateways, story
from e2e.command_line import run_r1plus
from e2e.gateway import postgresql
from e2e.gateway.postgresql import HOST, PORT, ROLE_CONNECTIONS, PostgreSql
from e2e.isolation import tenant_data
from e2e.isolation.gateway_calls import ask, call
from e2e.isolation.matrix import Trial
from e2e.isolation.stage import PLACES, Side, World, stands_in
from e2e.isolation.tenant_data import TenantData, is_done, is_refused
from e2e.target import EmbeddedTarget
from e2e.waiting import StoryError, wait_for
from r1plus_contract.gateway import GATEWAY_ADMIN, GATEWAY_KEY

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]


@dataclass(frozen=True, slots=True)
class Gateways:
    """Both, and the base URLs of their APIs from here."""

    a: TenantData
    b: TenantData
    url_of_a: str
    url_of_b: str


@pytest.fixture(scope="module")
def server(world: World, embedded: EmbeddedTarget) -> Iterator[PostgreSql]:
    """A PostgreSQL that both tenants' gateways may reach."""
    image = postgresql.build_image(Steps())
    embedded.cluster.import_images([image])
    found = PostgreSql(world.kube, image.pinned)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def both(world: World, server: PostgreSql) -> Iterator[Gateways]:
    """Both gateways answer."""
    a, b = tenant_data.serve(world, server)
    with (
        gateways.reach(world.target, world.a.namespace) as url_of_a,
        gateways.reach(world.target, world.b.namespace) as url_of_b,
    ):
        for one, url in ((a, url_of_a), (b, url_of_b)):
            with gateways.open_client(url, one.key.secret) as client:
                gateways.until_verified(client, world.kube, one.side.name)
        yield Gateways(a, b, url_of_a, url_of_b)
    tenant_data.use_volumes(world)


@pytest.mark.vector(14)
@pytest.mark.parametrize("of", PLACES)
def test_no_pod_but_the_gateway_reaches_postgresql(world: World, both: Gateways, trial: Trial, of: str) -> None:
    place = PLACES[of](world)
    stands_in(trial, world, place)
    seen = both.a.place().run("python3", "-c", CONNECT, HOST, str(PORT)).strip()
    trial.open("A's gateway", seen == "connected", seen)
    found = world.kube.get("services", postgresql.NAMESPACE, postgresql.NAME) or {}
    said = place.one(found["spec"]["clusterIP"], PORT)
    trial.shut("the server", said.startswith("shut "), said)


CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 20); print('connected')"


@dataclass(frozen=True, slots=True)
class Sql:
    """What A's role must not do, beside what it may."""

    vector: int
    what: str
    control: tuple[str, ...]
    attack: tuple[str, ...]
    """The last statement has to be refused; `{b}` is B's database and role, `{a}` A's own."""
    words: str
    """In the refusal."""
    is_in_bs: bool = False
    """Whether the attack connects to B's database."""
    database: str = ""


OWN_KEYS = ("SELECT count(*) FROM api_keys",)
SQL = (
    Sql(14, "connect to B's database", OWN_KEYS, ("SELECT 1",), "permission denied for database", is_in_bs=True),
    Sql(17, "B's keys by the name of its database", OWN_KEYS, ("SELECT id FROM {b}.public.api_keys",), "cross-database"),
    Sql(17, "B's usage changed from its database", OWN_KEYS, ("DELETE FROM usage",), "permission denied for database", is_in_bs=True),
    Sql(18, "B's role", ("SET ROLE {a}",), ("SET ROLE {b}",), "permission denied to set role"),
    Sql(18, "B's session", ("SET SESSION AUTHORIZATION {a}",), ("SET SESSION AUTHORIZATION {b}",), "permission denied to set session authorization"),
    Sql(18, "a setting of B's role", ("SET work_mem = '4MB'",), ("ALTER ROLE {b} SET search_path = mine",), "denied"),
    Sql(18, "more rights for oneself", ("ALTER ROLE {a} SET work_mem = '4MB'", "ALTER ROLE {a} RESET work_mem"), ("ALTER ROLE {a} SUPERUSER",), "must be superuser"),
    Sql(21, "a program of the server", ("CREATE TEMP VIEW mine AS SELECT count(*) FROM api_keys", "SELECT * FROM mine"), ("COPY api_keys TO PROGRAM 'id'",), "must be superuser"),
    Sql(21, "a file of the server", OWN_KEYS, ("COPY api_keys TO '/data/stolen'",), "must be superuser"),
    Sql(21, "the server's files", OWN_KEYS, ("SELECT pg_read_file('postgresql.conf')",), "denied"),
    Sql(21, "end B's sessions", ("SELECT count(*) FROM pg_stat_activity WHERE usename = '{b}'",), ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{b}'",), "must be a member of the role"),
    Sql(21, "empty B's tables", ("BEGIN", "TRUNCATE usage", "ROLLBACK"), ("TRUNCATE {b}.public.usage",), "cross-database"),
    Sql(21, "a function in a language of the server", ("CREATE FUNCTION pg_temp.one() RETURNS int LANGUAGE sql AS 'SELECT 1'",), ("CREATE FUNCTION pg_temp.own() RETURNS int LANGUAGE c AS 'libc', 'getpid'",), "denied"),
    Sql(22, "statistics of B's tables", ("SELECT count(*) FROM pg_stats",), ("SELECT * FROM {b}.pg_catalog.pg_stats",), "cross-database"),
    Sql(23, "a table in B's search path", ("BEGIN", "CREATE TABLE public.shadow (x int)", "ROLLBACK"), ("CREATE TABLE public.api_keys (x int)",), "permission denied for database", is_in_bs=True),
    Sql(23, "a table where the server's administrator looks", OWN_KEYS, ("CREATE TABLE public.api_keys (x int)",), "permission denied for database", database="postgres"),
    Sql(23, "something in what B's next database is made from", ("BEGIN", "SELECT lo_create(0)", "ROLLBACK"), ("SELECT lo_create(0)",), "permission denied for database", database="template1"),
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{case.vector}: {case.what}", marks=pytest.mark.vector(case.vector)) for case in SQL],
)
def test_sql_of_a_is_refused(world: World, both: Gateways, trial: Trial, case: Sql) -> None:
    names = {"a": both.a.database, "b": both.b.database}
    trial.by(both.a.database, both.a.current_role())
    seen = both.a.run_sql(*(statement.format(**names) for statement in case.control))
    trial.open("the same in its own database", is_done(seen), seen)
    attack = [statement.format(**names) for statement in case.attack]
    ended = both.a.run_sql(*attack, database=both.b.database if case.is_in_bs else case.database)
    trial.shut(case.what, is_refused(ended, case.words), ended)


@pytest.mark.vector(11)
def test_a_takes_not_all_connections_of_the_server(both: Gateways, trial: Trial) -> None:
    trial.by(both.a.database, both.a.current_role())
    held, said = both.a.open_connections(postgresql.CONNECTIONS)
    trial.open("A's own connections", held > 0, said)
    trial.shut("all of them", held < ROLE_CONNECTIONS and "too many connections for role" in said, (held, said))


@pytest.mark.vector(19)
def test_a_session_of_a_has_nothing_of_one_of_bs(both: Gateways, trial: Trial) -> None:
    look = "SELECT coalesce(current_setting('r1plus.canary', true), ''), to_regclass('pg_temp.leftover') IS NOT NULL"
    trial.by(both.a.database, both.a.current_role())
    seen = both.b.run_sql("SET r1plus.canary = 'of-b'", "CREATE TEMP TABLE leftover (x int)", look)
    trial.open("B sees its own", seen[-1] == 'done [["of-b", "True"]]', seen)
    ended = both.a.run_sql(look)
    trial.shut("A sees them", ended == ['done [["", "False"]]'], ended)


@pytest.mark.vector(20)
def test_a_key_id_of_bs_does_not_show_by_a_conflict(both: Gateways, trial: Trial) -> None:
    def insert(key_id: str) -> list[str]:
        row = f"INSERT INTO api_keys (id, name, secret_mac, scopes, created_at) VALUES ('{key_id}', '', '', '[]', 0)"
        return both.a.run_sql("BEGIN", row, "ROLLBACK")[1:2]

    trial.by(both.a.database, both.a.current_role())
    own = insert(both.a.key.id)
    trial.open("its own id is a conflict", is_refused(own, "duplicate key"), own)
    theirs = insert(both.b.key.id)
    trial.shut("B's id is one", is_done(theirs), theirs)


@pytest.mark.vector(22)
def test_what_bs_gateway_asks_the_server_is_not_shown(both: Gateways, trial: Trial) -> None:
    """Names of databases and roles are, and say nothing of the tenant."""

    def look(role: str) -> list[str]:
        return both.a.run_sql(f"SELECT DISTINCT query FROM pg_stat_activity WHERE usename = '{role}'")

    trial.by(both.a.database, both.a.current_role())
    own = look(both.a.database)
    trial.open("A's own", is_done(own) and "pg_stat_activity" in own[0], own)
    theirs = look(both.b.database)
    trial.shut("B's", theirs == ['done [["<insufficient privilege>"]]'], theirs)
    names = both.a.run_sql("SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles")
    trial.shut("the tenant's name", both.b.side.namespace not in names[0], names)


def list_spoofs(namespace: str) -> dict[str, dict[str, str]]:
    """Return headers by which other gateways have chosen a tenant, by what they are."""
    host = f"gateway.{namespace}.svc"
    return {
        "x-tenant": {"X-Tenant": namespace, "X-Tenant-ID": namespace, "X-R1plus-Tenant": namespace},
        "namespace": {"X-Namespace": namespace, "X-R1plus-Namespace": namespace, "X-Scope-OrgID": namespace},
        "host": {"Host": host},
        "forwarded": {"X-Forwarded-Host": host, "Forwarded": f"host={host}", "X-Original-URL": "/v1/admin/keys"},
        "organization": {"OpenAI-Organization": namespace, "OpenAI-Project": namespace},
    }


@pytest.mark.vector(16)
@pytest.mark.parametrize("how", list_spoofs("x"))
def test_no_header_makes_a_key_of_a_one_of_bs(world: World, both: Gateways, trial: Trial, how: str) -> None:
    headers = list_spoofs(world.b.namespace)[how]
    revisions = [story.serving_revision(world.kube, side.name) for side in (world.a, world.b)]
    trial.by(both.a.key.id, call(both.url_of_a, "/v1/key", both.a.key.secret).json()["id"])
    own = ask(both.url_of_b, both.b.key.secret, **headers)
    trial.open("B's key at B's gateway", own.headers.get("x-r1plus-revision") == revisions[1], own.text)
    there = ask(both.url_of_b, both.a.key.secret, **headers)
    trial.shut("A's key at B's gateway", there.status_code == 401, there.text)
    here = ask(both.url_of_a, both.a.key.secret, **headers)
    trial.shut(
        "A's key at A's gateway reaches B's model", here.headers.get("x-r1plus-revision") == revisions[0], here.text
    )


@pytest.mark.vector(20)
def test_bs_key_ids_are_to_as_administrators_like_ids_that_do_not_exist(
    world: World, both: Gateways, trial: Trial
) -> None:
    def rotate(key_id: str) -> httpx.Response:
        return call(both.url_of_a, f"/v1/admin/keys/{key_id}/rotate", admin, "POST")

    admin = gateways.create_token(world.kube, world.a.namespace, GATEWAY_ADMIN)
    keys = call(both.url_of_a, "/v1/admin/keys", admin)
    trial.by(both.a.key.id, keys.json()["data"][0]["id"])
    trial.open("A's own id", rotate(both.a.key.id).status_code == 200)
    theirs, nobodys = rotate(both.b.key.id), rotate("000000000000")
    trial.shut("B's", theirs.status_code == nobodys.status_code == 404, theirs.text)
    trial.shut("a difference", theirs.text.replace(both.b.key.id, "000000000000") == nobodys.text, theirs.text)


@pytest.mark.vector(16)
@pytest.mark.parametrize("path", ["/v1/admin/keys", "/v1/admin/usage", "/v1/admin/audit", "/v1/usage"])
def test_no_token_of_as_reads_bs_keys_and_usage(world: World, both: Gateways, trial: Trial, path: str) -> None:
    account = GATEWAY_ADMIN if "admin" in path else "default"
    tokens = [gateways.create_token(world.kube, side.namespace, account) for side in (world.a, world.b)]
    trial.by("200", str(call(both.url_of_a, path, tokens[0]).status_code))
    own = call(both.url_of_b, path, tokens[1])
    trial.open("B's own", own.status_code == 200, own.text)
    answer = call(both.url_of_b, path, tokens[0])
    trial.shut("A's", answer.status_code in (401, 403) and both.b.key.id not in answer.text, answer.text)


def begin_conversation(url: str, key: str, text: str) -> str:
    """Store a conversation of one message; return its id."""
    items = [{"role": "user", "content": text}]
    answer = call(url, "/v1/conversations", key, "POST", {"items": items})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def keep_document(client: openai.OpenAI, text: str) -> tuple[str, str]:
    """Upload a document into a vector store of its own, and wait until it was read; return the ids of both."""
    file = client.files.create(file=("handbook.md", text.encode()), purpose="assistants")
    store = client.vector_stores.create(name="handbook", file_ids=[file.id])

    def is_read() -> bool:
        counts = client.vector_stores.retrieve(store.id).file_counts
        assert counts.failed == 0, counts
        return counts.completed == 1

    wait_for(is_read, "the document is read")
    return store.id, file.id


def search(client: openai.OpenAI, store: str, text: str) -> str:
    """Search a vector store; return all that it found. The answer repeats the question besides."""
    return "\n".join(found.to_json() for found in client.vector_stores.search(store, query=text).data)


@pytest.mark.vector(24)
def test_a_search_of_as_finds_nothing_of_bs(both: Gateways, trial: Trial) -> None:
    canary = both.b.side.canary
    with (
        gateways.open_client(both.url_of_a, both.a.key.secret) as a,
        gateways.open_client(both.url_of_b, both.b.key.secret) as b,
        gateways.open_client(both.url_of_b, both.a.key.secret) as a_at_b,
    ):
        question = f"What is the code {canary}?"
        own, _ = keep_document(a, "# Codes\n\nThe code mine is 1.\n\nNothing else has a code.")
        theirs, their_file = keep_document(b, f"# Codes\n\nThe code {canary} opens the vault.")
        trial.by(both.a.key.id, call(both.url_of_a, "/v1/key", both.a.key.secret).json()["id"])
        seen = search(b, theirs, question)
        trial.open("B's key, B's store", canary in seen, seen)
        seen = search(a, own, question)
        trial.shut("A's own store", canary not in seen, seen)
        attacks = {
            "B's store at A's gateway": lambda: search(a, theirs, question),
            "B's store at B's gateway": lambda: search(a_at_b, theirs, question),
            "B's file in A's store": lambda: a.vector_stores.files.create(own, file_id=their_file).to_json(),
            "B's file": lambda: a.files.content(their_file).text,
        }
        for what, attack in attacks.items():
            with pytest.raises(openai.APIStatusError) as refused:
                attack()
            status, text = refused.value.status_code, str(refused.value)
            trial.shut(what, status in (401, 404) and canary not in text, text)


@pytest.mark.vector(24)
def test_chunks_of_bs_do_not_open_in_as_database(both: Gateways, trial: Trial) -> None:
    """As somebody has them who got at B's database: the ciphertext, and the wrapped key that opens it."""
    canary = both.b.side.canary
    with (
        gateways.open_client(both.url_of_a, both.a.key.secret) as a,
        gateways.open_client(both.url_of_b, both.b.key.secret) as b,
    ):
        own, _ = keep_document(a, "# Codes\n\nThe code mine is 1.")
        theirs, _ = keep_document(b, f"# Codes\n\nThe code {canary} opens the vault.")
        trial.by(both.a.database, both.a.current_role())
        seen = search(a, own, "code")
        trial.open("A's own", "mine" in seen, seen)
        joined = "chunk_batches c JOIN vector_store_files f ON f.id = c.vector_store_file_id"
        stolen = both.b.server.run(
            f"SELECT encode(c.content, 'hex') FROM {joined} WHERE f.vector_store_id = '{theirs}'", both.b.database
        ).strip()
        assert stolen
        done = both.a.run_sql(
            f"UPDATE chunk_batches SET content = decode('{stolen}', 'hex') WHERE vector_store_file_id IN"
            f" (SELECT id FROM vector_store_files WHERE vector_store_id = '{own}')",
            f"UPDATE vector_stores SET version = version + 1 WHERE id = '{own}'",
        )
        assert is_done(done), done
        with pytest.raises(openai.APIStatusError) as refused:
            search(a, own, "code")
        text = str(refused.value)
        trial.shut("its text", refused.value.status_code == 410 and canary not in text, text)


@pytest.mark.vector(25)
def test_the_id_of_a_conversation_of_bs_is_worth_nothing(both: Gateways, trial: Trial) -> None:
    canary = both.b.side.canary
    name = begin_conversation(both.url_of_b, both.b.key.secret, canary)
    path = f"/v1/conversations/{name}/items"
    trial.by(both.a.key.id, call(both.url_of_a, "/v1/key", both.a.key.secret).json()["id"])
    own = call(both.url_of_b, path, both.b.key.secret)
    trial.open("B's key at B's gateway", own.status_code == 200 and canary in own.text, own.text)
    for url, status in ((both.url_of_b, 401), (both.url_of_a, 404)):
        answer = call(url, path, both.a.key.secret)
        trial.shut(f"A's key at {url}", answer.status_code == status and canary not in answer.text, answer.text)
    nobodys = call(both.url_of_a, path.replace(name, "conv_0"), both.a.key.secret)
    theirs = call(both.url_of_a, path, both.a.key.secret)
    trial.shut("a difference", theirs.text.replace(name, "conv_0") == nobodys.text, theirs.text)


@pytest.mark.vector(25)
def test_rows_of_bs_do_not_open_in_as_database(both: Gateways, trial: Trial) -> None:
    """As somebody has them who got at B's database: text, and the data key that opens it."""
    a, b, canary = both.a, both.b, both.b.side.canary
    stolen = begin_conversation(both.url_of_b, b.key.secret, canary)
    own = begin_conversation(both.url_of_a, a.key.secret, "mine")
    path = f"/v1/conversations/{own}/items"
    trial.by(a.database, a.current_role())
    seen = call(both.url_of_a, path, a.key.secret)
    trial.open("A's own", seen.status_code == 200 and "mine" in seen.text, seen.text)

    def read_of_b(what: str) -> str:
        joined = "conversation_items JOIN data_keys ON data_keys.id = conversation_items.key_id"
        return b.server.run(f"SELECT {what} FROM {joined} WHERE conversation_id = '{stolen}'", b.database).strip()

    content = read_of_b("encode(content, 'hex')")
    key_id, wrapped = read_of_b("key_id"), read_of_b("encode(wrapped_key, 'hex')")
    columns = "id, caller_kind, caller_id, end_user, wrapped_key, created_at"
    own_key = f"SELECT '{key_id}', caller_kind, caller_id, end_user, decode('{wrapped}', 'hex'), 0"
    changes = [
        f"UPDATE conversation_items SET content = decode('{content}', 'hex') WHERE conversation_id = '{own}'",
        f"INSERT INTO data_keys ({columns}) {own_key} FROM data_keys LIMIT 1",
        f"UPDATE conversation_items SET key_id = '{key_id}' WHERE conversation_id = '{own}'",
    ]
    for change, what in zip(changes, ("its text", "its key", "both"), strict=True):
        done = a.run_sql(change)
        assert is_done(done), done
        answer = call(both.url_of_a, path, a.key.secret)
        trial.shut(what, answer.status_code == 410 and canary not in answer.text, answer.text)


@pytest.mark.vector(25)
def test_what_b_remembers_across_conversations_is_not_as(both: Gateways, trial: Trial) -> None:
    canary = both.b.side.canary
    made = call(both.url_of_b, "/v1/memories", both.b.key.secret, "POST", {"text": canary})
    assert made.status_code == 200, made.text
    path = f"/v1/memories/{made.json()['id']}"
    trial.by(both.a.key.id, call(both.url_of_a, "/v1/key", both.a.key.secret).json()["id"])
    own = call(both.url_of_b, path, both.b.key.secret)
    trial.open("B's key at B's gateway", own.status_code == 200 and canary in own.text, own.text)
    for url, status in ((both.url_of_b, 401), (both.url_of_a, 404)):
        for method in ("GET", "DELETE"):
            answer = call(url, path, both.a.key.secret, method)
            trial.shut(f"A's key, {method} at {url}", answer.status_code == status, answer.text)
    listed = call(both.url_of_a, "/v1/memories", both.a.key.secret)
    trial.shut("in A's list", canary not in listed.text, listed.text)


@pytest.mark.vector(35)
def test_backup_files_of_bs_are_not_taken_by_as_gateway(
    world: World, both: Gateways, trial: Trial, tmp_path: Path
) -> None:
    """As somebody has them who got at both files of B, and who administers A."""

    def name_files(side: Side) -> list[str]:
        folder = tmp_path / side.namespace
        return ["--file", str(folder / "data.r1b"), "--keys", str(folder / "keys.r1k")]

    for side in (world.a, world.b):
        (tmp_path / side.namespace).mkdir()
        run_r1plus(world.kube, "tenant", "backup", *name_files(side), "-n", side.namespace)
    at_a = ("-n", world.a.namespace)
    trial.by(both.a.database, both.a.current_role())
    seen = run_r1plus(world.kube, "tenant", "verify-backup", *name_files(world.a), *at_a)
    trial.open("A's own files", "Both files are whole" in seen.stdout + seen.stderr, seen.stderr)
    for verb in (["verify-backup"], ["restore", "--yes"]):
        with pytest.raises(StoryError) as refused:
            run_r1plus(world.kube, "tenant", *verb, *name_files(world.b), *at_a)
        said = str(refused.value)
        is_seen = f"is of tenant {world.b.namespace}" in said or "data are in use" in said
        trial.shut(f"B's files, {verb[0]}", is_seen, said)


@pytest.mark.vector(35)
def test_a_backup_of_bs_database_is_not_opened_by_as_gateway(world: World, both: Gateways, trial: Trial) -> None:
    a, b = both.a, both.b
    trial.by(a.database, a.current_role())
    try:
        a.server.copy_database(a.database, f"{a.database}_copy", a.database)
        a.use_database(f"{a.database}_copy")
        own = a.until_reason(lambda reason: reason == "Ready", "A's gateway opens a copy of its own")
        seen = a.read_status(a.key.secret)
        trial.open("a backup of A's", own == "Ready" and seen == 200, seen)
        a.server.copy_database(b.database, f"{b.database}_copy", a.database)
        a.use_database(f"{b.database}_copy")
        said = a.until_reason(lambda reason: reason not in ("", "Ready", "Starting"), "A's gateway judges B's backup")
        trial.shut("a backup of B's", said in ("ForeignTenant", "WrongKey", "KeyLost"), said)
        answers = [a.read_status(key.secret) for key in (a.key, b.key)]
        trial.shut("a key at A's gateway", set(answers) <= {401, 503}, answers)
    finally:
        a.use_database(a.database)
        a.until_reason(lambda reason: reason == "Ready", "A's gateway opens its own database")


@pytest.mark.vector(37)
def test_without_its_half_of_the_key_a_tenants_data_do_not_open(world: World, both: Gateways, trial: Trial) -> None:
    a, kube = both.a, world.kube
    trial.by(a.database, a.current_role())
    trial.open("with the half", a.data_reason() == "Ready", a.data_reason())
    saved = kube.get("secrets", a.side.namespace, GATEWAY_KEY) or {}
    meta = {"name": GATEWAY_KEY, "namespace": a.side.namespace}
    try:
        shredded = dict.fromkeys(saved["data"], "00" * 32)
        kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": shredded})
        a.restart()
        said = a.until_reason(lambda reason: reason not in ("", "Ready", "Starting"), "the gateway judges the key")
        trial.shut("with another half", said in ("WrongKey", "KeyLost"), said)
        answer = a.read_status(a.key.secret)
        trial.shut("a key of before", answer == 503, answer)
    finally:
        kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": saved["data"]})
        a.restart()
        a.until_reason(lambda reason: reason == "Ready", "the data open again")
    gateways.until_up(kube, a.side.namespace)
    assert "records are whole" in run_r1plus(kube, "audit", "-n", a.side.namespace).stdout


@pytest.mark.vector(37)
def test_rows_of_an_erased_owner_do_not_open_when_they_are_put_back(world: World, both: Gateways, trial: Trial) -> None:
    """As somebody puts them back who has kept a copy of the database's rows, but for the keys."""
    b, canary = both.b, both.b.side.canary
    name = begin_conversation(both.url_of_b, b.key.secret, canary)
    path = f"/v1/conversations/{name}/items"
    copied = {"conversations": "id", "conversation_items": "conversation_id"}
    keep = [f"CREATE TABLE kept_{table} AS SELECT * FROM {table} WHERE {c} = '{name}'" for table, c in copied.items()]
    put_back = [f"INSERT INTO {table} SELECT * FROM kept_{table}" for table in copied]

    def erase() -> None:
        run_r1plus(world.kube, "tenant", "erase", "--key", b.key.id, "--yes", "-n", world.b.namespace)

    trial.by(b.database, b.current_role())
    try:
        done = b.run_sql(
            *keep, *(f"DELETE FROM {table} WHERE {c} = '{name}'" for table, c in copied.items()), *put_back
        )
        assert is_done(done), done
        seen = call(both.url_of_b, path, b.key.secret)
        trial.open("put back before the erasure", seen.status_code == 200 and canary in seen.text, seen.text)
        erase()
        gone = call(both.url_of_b, path, b.key.secret)
        trial.shut("after the erasure", gone.status_code == 404, gone.text)
        done = b.run_sql(*put_back)
        assert is_done(done), done
        answer = call(both.url_of_b, path, b.key.secret)
        trial.shut("put back after it", answer.status_code == 410 and canary not in answer.text, answer.text)
    finally:
        b.run_sql(*(f"DROP TABLE IF EXISTS kept_{table}" for table in copied))
        erase()
