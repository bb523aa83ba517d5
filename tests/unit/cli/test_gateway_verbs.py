"""`r1plus key`, `usage` and `audit` against a gateway that runs, with its real store."""

import asyncio
import contextlib
import json
import re
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from typer.testing import Result

from devcluster.pki import Authority
from r1plus_cli.errors import CliError, NotFoundError, UsageError
from r1plus_cli.gateway.admin_api import TOKEN_VARIABLE, GatewayTarget, call_admin
from r1plus_cli.options import parse_duration
from r1plus_cli.tenant.stored_content import STALLED_SECONDS, wait_until_encrypted
from r1plus_gateway.store.keys.tenant_keys import make_half
from support.cli.command import run
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process, started
from support.gateway.rig import FakeMonitor

pytestmark = pytest.mark.asyncio(loop_scope="module")
Call = Callable[..., Result]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"data": {"contentDays": 30}}
    async with serving(FakeTriton(answer("Stock", "holm"))) as pod, running_process(folder, pod, settings) as process:
        yield process


@pytest.fixture
def call(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `r1plus` as the tenant's administrator."""
    monkeypatch.setenv(TOKEN_VARIABLE, gateway.make_token("team-credit", "r1plus-gateway-admin"))
    monkeypatch.setenv("R1PLUS_GATEWAY", gateway.url)
    monkeypatch.setenv("COLUMNS", "200")
    return run


def read_lines(result: Result) -> list[str]:
    assert result.exit_code == 0, (result.output, result.exception)
    return [line.rstrip() for line in result.stdout.splitlines()]


@pytest.mark.unit_slow
async def test_a_key_is_printed_alone_listed_rotated_and_revoked(call: Call) -> None:
    words = ("key", "create", "web shop", "--model", "credit", "--budget", 2000, "--expires", "90d", "--end-users")
    (key,) = read_lines(call(*words))
    key_id = key.split("_")[1]
    heads, *rows = read_lines(call("key", "list"))
    assert heads.split() == ["ID", "NAME", "STATE", "MODELS", "LIMITS", "EXPIRES"]
    (row,) = (row for row in rows if row.startswith(key_id))
    assert row.split()[:5] == [key_id, "web", "shop", "valid", "credit"]
    assert "2000 tokens/month" in row
    (rotated,) = read_lines(call("key", "rotate", key_id, "--grace", "1h"))
    assert rotated.split("_")[1] == key_id and rotated != key
    assert any("rotating" in row for row in read_lines(call("key", "list")) if row.startswith(key_id))
    assert read_lines(call("key", "revoke", key_id)) == [f"Key {key_id} (web shop) is revoked"]
    (row,) = (row for row in read_lines(call("key", "list")) if row.startswith(key_id))
    assert "revoked" in row
    assert key.split("_")[2] not in call("key", "list", "-o", "json").output


async def test_a_keys_bounds_are_changed_and_the_rest_stays(call: Call) -> None:
    key = json.loads(call("key", "create", "web shop", "--model", "credit", "--budget", 2000, "-o", "json").stdout)
    _, row = read_lines(call("key", "update", key["id"], "--budget", 4000, "--requests-per-minute", 60))
    assert row.split("  ") == [key["id"], "web shop", "valid", "credit", "60 requests/min, 4000 tokens/month", "never"]
    words = ("--budget", "none", "--tokens-per-minute", 0, "--concurrent-requests", 3, "--all-models", "--end-users")
    changed = json.loads(call("key", "update", key["id"], *words, "--expires", "90d", "-o", "json").stdout)
    assert changed["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": 0,
        "concurrent_requests": 3,
        "budget_tokens": None,
    }
    assert (changed["models"], changed["scopes"], changed["expires_at"] is None) == (None, ["end-users"], False)
    words = ("--model", "credit", "--no-end-users", "--expires", "never")
    again = json.loads(call("key", "update", key["id"], *words, "-o", "json").stdout)
    assert again == {**changed, "models": ["credit"], "scopes": [], "expires_at": None}


WRONG_CHANGES: dict[str, tuple[tuple[object, ...], str]] = {
    "nothing": ((), "Nothing is named that changes"),
    "a budget of words": (("--budget", "much"), "--budget: 'much' is not a whole number from 0; or give none"),
    "a budget below zero": (("--budget=-1",), "--budget: '-1' is not a whole number"),
    "a huge budget": (("--budget", "9" * 17), "--budget: .* is not a whole number"),
    "digits of another script": (("--concurrent-requests", "\u0663"), "--concurrent-requests: "),
    "an end that is no duration": (("--expires", "none"), "--expires: 'none' is not a duration"),
    "all models and one": (("--all-models", "--model", "credit"), "--all-models: also models are named"),
}


@pytest.mark.parametrize(("words", "message"), WRONG_CHANGES.values(), ids=WRONG_CHANGES)
async def test_a_change_that_cannot_be_meant_is_refused(call: Call, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        raise call("key", "update", "nothing00000", *words).exception or AssertionError


async def test_a_model_that_nothing_serves_is_noted_and_the_key_is_made(call: Call) -> None:
    made = call("key", "create", "early", "--model", "nosuch", "--model", "credit")
    (key,) = read_lines(made)
    assert made.stderr.count("No deployment") == 1
    assert "No deployment nosuch serves now: the key may call it as soon as one does" in made.stderr
    changed = call("key", "update", key.split("_")[1], "--model", "none-yet")
    assert "No deployment none-yet serves now" in changed.stderr
    assert "No deployment" not in call("key", "create", "b", "--model", "credit").stderr


async def test_ids_are_whole_where_the_window_is_narrow(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    key = json.loads(call("key", "create", "n" * 90, "-o", "json").stdout)
    monkeypatch.setenv("COLUMNS", "40")
    (row,) = (line for line in read_lines(call("key", "list")) if line.startswith(key["id"]))
    assert row.split("  ")[:3] == [key["id"], "n" * 90, "valid"]


async def test_the_base_url_of_openais_client_leads_to_the_gateway(
    call: Call, gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (f"{gateway.url}/v1", f"{gateway.url}/v1/"):
        monkeypatch.setenv("R1PLUS_GATEWAY", url)
        assert call("key", "list").exit_code == 0


async def test_usage_and_what_is_left_are_shown(call: Call, gateway: GatewayProcess) -> None:
    key = json.loads(call("key", "create", "counted", "--budget", 100, "-o", "json").stdout)
    async with gateway.make_client(key["key"]) as client:
        await client.generate(model="credit", prompt="Capital of Sweden?", max_new_tokens=5)
    lines = read_lines(await asyncio.to_thread(call, "usage", "--key", key["id"]))
    assert lines[0].split() == ["DAY", "CALLER", "MODEL", "REQUESTS", "PROMPT", "COMPLETION", "UNSETTLED"]
    assert lines[1].split()[1:] == [key["id"], "credit", "1", "7", "2", "0"]
    assert lines[3].split() == ["CALLER", "MONTH", "USED", "RESERVED", "LIMIT", "LEFT"]
    assert lines[4].split()[0::2][:1] == [key["id"]]
    assert lines[4].split()[2:] == ["9", "0", "100", "91"]
    document = json.loads(call("usage", "--key", key["id"], "-o", "json").stdout)
    assert document["budgets"][0]["left_tokens"] == 91
    assert (
        read_lines(call("usage", "--from", "2000-01-01", "--to", "2000-01-02"))[0] == "Nothing was used in these days"
    )


async def test_a_whole_audit_log_is_said_to_be_so(call: Call) -> None:
    call("key", "create", "audited")
    (line,) = read_lines(call("audit"))
    assert "records are whole; head" in line


async def test_an_erasure_of_nothing_asks_for_the_spelling(call: Call, tmp_path: Path) -> None:
    receipt = tmp_path / "ana.json"
    erased = call("tenant", "erase", "--end-user", "ana@example.com", "--receipt", receipt, "--yes")
    assert isinstance(erased.exception, CliError) and not isinstance(erased.exception, UsageError)
    assert str(erased.exception) == (
        "Nothing is stored for ana@example.com; check the spelling. The receipt proves that nothing was deleted"
    )
    assert call("tenant", "verify-receipt", receipt).exit_code == 0


async def test_an_erasure_leaves_a_receipt_that_can_be_verified(
    call: Call, gateway: GatewayProcess, tmp_path: Path
) -> None:
    key = await gateway.create_key(scopes=["end-users"])
    headers = {"Authorization": f"Bearer {key}", "x-r1plus-end-user": "anna@example.com"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{gateway.url}/v1/conversations", json={}) as made,
    ):
        assert made.status == 200, await made.text()
    receipt = tmp_path / "anna.json"
    erased = call("tenant", "erase", "--end-user", "anna@example.com", "--receipt", receipt, "--yes")
    counts = "conversations: 1, items: 0, responses: 0, memories: 0, files: 0, vector stores: 0, chunks: 0"
    assert f"Erased {counts}; data keys destroyed: 1" in erased.stderr
    assert erased.exit_code == 0
    (line,) = read_lines(call("tenant", "verify-receipt", receipt))
    assert line.startswith("Receipt erasure_") and "is whole: signed by" in line
    again = call("tenant", "erase", "--end-user", "anna@example.com", "--receipt", receipt, "--yes")
    assert isinstance(again.exception, UsageError) and "exists; name a new file" in str(again.exception)
    document = json.loads(receipt.read_text())
    text = json.dumps(document)
    changes = {
        "a count": json.dumps(document | {"items": 7}),
        "a name that is there twice": '{"items": 7, ' + text[1:],
        "too many levels": "[" * 100_000,
        "another encoding": "\udcff",
    }
    for name, changed in changes.items():
        receipt.write_text(changed, errors="surrogateescape")
        for key in ((), ("--public-key", document["public_key"])):
            refused = call("tenant", "verify-receipt", receipt, *key).exception
            assert isinstance(refused, CliError) and "it was changed, or is another tenant's" in str(refused), name


async def test_data_keys_are_rotated_where_there_are_none(call: Call) -> None:
    assert read_lines(call("tenant", "rotate-data-keys")) == [
        "0 owners of content have a new key",
        "0 rows are left to encrypt again; 0 older keys go after that",
    ]


async def test_the_time_of_the_gateway_is_confirmed(call: Call) -> None:
    (line,) = read_lines(call("tenant", "confirm-time"))
    assert re.fullmatch(r"The gateway goes by \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line)
    assert any("records are whole" in line for line in read_lines(call("audit")))


@pytest.mark.unit_slow
async def test_a_root_is_rotated_and_the_backup_that_comes_next_is_named(
    call: Call, gateway: GatewayProcess, tmp_path: Path
) -> None:
    (key,) = read_lines(call("key", "create", "before the rotation"))
    files = ("--file", tmp_path / "old.r1b", "--keys", tmp_path / "old.r1k")
    read_lines(call("tenant", "backup", *files))
    first, last = read_lines(call("tenant", "rotate-root"))
    assert re.fullmatch(r"Root [0-9a-f]{16} replaces the one before, and 0 owners of content have a new key", first)
    assert last.startswith("The rotation has ended. Make a backup, with a new keys file: r1plus tenant backup. Older")
    async with gateway.make_client(key) as client:
        await client.list_models()
    newer = call("tenant", "backup", "--file", tmp_path / "new.r1b", "--keys", tmp_path / "old.r1k")
    assert isinstance(newer.exception, UsageError)
    assert "a new one after rotate-root: older backups need the one of before" in str(newer.exception)
    read_lines(call("tenant", "backup", "--file", tmp_path / "new.r1b", "--keys", tmp_path / "new.r1k"))
    read_lines(call("tenant", "verify-backup", "--file", tmp_path / "new.r1b", "--keys", tmp_path / "new.r1k"))
    mixed = call("tenant", "verify-backup", "--file", tmp_path / "old.r1b", "--keys", tmp_path / "new.r1k")
    assert isinstance(mixed.exception, CliError)
    assert "refused (400): backup: was made under root" in str(mixed.exception)
    assert read_lines(call("audit"))[0].split()[1:4] == ["records", "are", "whole;"]


async def test_a_root_is_not_rotated_while_the_secrets_half_is(call: Call, gateway: GatewayProcess) -> None:
    second = gateway.folder / "secret" / "half-2"
    second.write_text(make_half())
    result = call("tenant", "rotate-root")
    second.unlink()
    assert isinstance(result.exception, CliError)
    with pytest.raises(CliError, match=r"refused \(409\).*has 2 halves.*r1plus tenant rotate-key --finish"):
        raise result.exception


def count_down(*states: tuple[int, int]) -> Callable[[], dict[str, int]]:
    """Return what reads so many older keys and rows, one after the other, and then the last for ever."""
    left = [{"older_keys": keys, "rows_left": rows} for keys, rows in states]
    return lambda: left.pop(0) if len(left) > 1 else left[0]


async def test_it_waits_until_content_is_encrypted_again() -> None:
    said: list[str] = []
    slept: list[float] = []
    begin = {"older_keys": 2, "rows_left": 7}
    wait_until_encrypted(begin, count_down((2, 7), (2, 3), (2, 0), (0, 0)), said.append, slept.append)
    assert len(slept) == 4
    assert said == [f"{rows} rows are left to encrypt again; 2 older keys go after that" for rows in (7, 3, 0)]


async def test_it_does_not_wait_for_ever() -> None:
    slept: list[float] = []
    with pytest.raises(
        CliError, match=r"The root is replaced, but 7 rows of content were not encrypted again for 180 s"
    ):
        wait_until_encrypted({"older_keys": 2, "rows_left": 7}, count_down((2, 7)), lambda _: None, slept.append)
    assert sum(slept) == STALLED_SECONDS


@pytest.mark.parametrize(
    "words", [(), ("--end-user", "a", "--key", "b"), ("--end-user", "")], ids=["nobody", "two", "an empty name"]
)
async def test_an_erasure_names_exactly_one(call: Call, words: tuple[str, ...]) -> None:
    result = call("tenant", "erase", "--yes", *words)
    assert isinstance(result.exception, UsageError)
    assert "Name one of --end-user, --key and --service-account" in str(result.exception)


async def test_an_erasure_is_asked_for_twice(call: Call) -> None:
    result = call("tenant", "erase", "--key", "key000000001")
    assert result.exit_code == 1
    assert "Erase what is stored for key000000001? This cannot be undone" in result.output


REFUSALS: dict[str, tuple[tuple[object, ...], str]] = {
    "an unknown key": (("key", "revoke", "nothing00000"), r"refused \(404\): No key has the id.*r1plus key list"),
    "an id that is a path": (("key", "revoke", "../usage"), r"refused \(404\): No key has the id"),
    "a wrong day": (("usage", "--from", "yesterday"), r"refused \(400\): first: 'yesterday' is not a day"),
    "a name of two lines": (("key", "create", "a\nb"), r"refused \(400\): name: must have"),
    "a grace time of a year": (("key", "rotate", "nothing00000", "--grace", "365d"), r"refused \(400\): grace_seconds"),
}


@pytest.mark.parametrize(("words", "message"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_says_why(call: Call, words: tuple[object, ...], message: str) -> None:
    result = call(*words)
    assert isinstance(result.exception, CliError)
    with pytest.raises(CliError, match=message):
        raise result.exception


async def test_another_account_is_no_administrator(
    call: Call, gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, gateway.make_token("team-credit", "web"))
    result = call("key", "list")
    assert isinstance(result.exception, CliError)
    assert "refused (403): only tokens of ServiceAccount r1plus-gateway-admin" in str(result.exception)


class Cluster:
    """Stands for the API server: makes tokens, forwards a port, and knows what is wrong with the gateway."""

    def __init__(self, address: str, token: str, problem: str = "") -> None:
        self.address = address
        self.token = token
        self.problem = problem

    def explain_gateway(self, namespace: str) -> str:
        assert namespace == "team-credit"
        return self.problem

    def get_default_namespace(self) -> str:
        return "team-credit"

    def create_token(self, namespace: str, account: str, audience: str) -> str:
        assert (namespace, account, audience) == ("team-credit", "r1plus-gateway-admin", "r1plus-gateway")
        if not self.token:
            raise CliError("Forbidden")
        return self.token

    @contextlib.contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Iterator[str]:
        assert (namespace, service, port) == ("team-credit", "gateway", 8080)
        if not self.address:
            raise CliError("no Ready pod behind the Service")
        yield self.address


async def test_without_a_url_a_port_is_forwarded_and_a_token_made(gateway: GatewayProcess) -> None:
    cluster = Cluster(f"127.0.0.1:{gateway.port}", gateway.make_token("team-credit", "r1plus-gateway-admin"))
    assert call_admin(GatewayTarget(lambda: cluster, env={}), "GET", "/keys")["object"] == "list"


async def test_who_may_make_no_token_is_told_whom_to_ask() -> None:
    target = GatewayTarget(lambda: Cluster("127.0.0.1:1", ""), env={})
    with pytest.raises(CliError, match=r"ServiceAccount team-credit/r1plus-gateway-admin: Forbidden.*spec.admins"):
        call_admin(target, "GET", "/keys")


async def test_a_namespace_without_a_gateway_is_said_to_have_none() -> None:
    class Empty(Cluster):
        def create_token(self, namespace: str, account: str, audience: str) -> str:
            raise NotFoundError("Could not make a token: r1plus-gateway-admin does not exist")

    with pytest.raises(
        CliError, match=r"^Namespace team-credit has no gateway .*; name the tenant's namespace with -n$"
    ):
        call_admin(GatewayTarget(lambda: Empty("", ""), env={}), "GET", "/keys")


async def test_a_gateway_that_is_gone_is_named() -> None:
    target = GatewayTarget(lambda: Cluster("127.0.0.1:1", "token"), env={})
    with pytest.raises(CliError, match="The gateway of team-credit does not answer"):
        call_admin(target, "GET", "/keys")


PROBLEM = "KeyLost: Pod gateway-1 cannot use the tenant's data: half-1 is missing; r1plus tenant init --from FILE"


@pytest.mark.parametrize(
    ("address", "begins"),
    [("", "no Ready pod behind the Service"), ("127.0.0.1:1", "The gateway of team-credit does not answer")],
)
async def test_why_a_gateway_answers_nothing_is_said_with_the_remedy(address: str, begins: str) -> None:
    target = GatewayTarget(lambda: Cluster(address, "token", PROBLEM), env={})
    with pytest.raises(CliError) as refused:
        call_admin(target, "GET", "/keys")
    said = str(refused.value)
    assert said.startswith(begins)
    assert said.endswith(f". Its condition GatewayReady: {PROBLEM}")


@pytest.mark.unit_slow
async def test_why_a_gateway_refuses_for_its_data_is_said_with_the_remedy(tmp_path: Path) -> None:
    """Its pod answers, and callers are told the reason alone."""
    async with serving(FakeTriton(answer("a"))) as pod, FakeMonitor().listen() as monitor:
        broken = GatewayProcess(tmp_path, pod, monitor)
        (tmp_path / "secret" / "half-1").unlink()
        async with started(broken, unready="KeyLost"):
            token = broken.make_token("team-credit", "r1plus-gateway-admin")
            for problem, said in (
                (PROBLEM, rf"refused \(503\).*GatewayReady: {PROBLEM}"),
                ("", r"refused \(503\).*\(KeyLost\)"),
            ):
                cluster = Cluster(f"127.0.0.1:{broken.port}", token, problem)
                with pytest.raises(CliError, match=said):
                    await asyncio.to_thread(call_admin, GatewayTarget(lambda c=cluster: c, env={}), "GET", "/keys")


async def test_a_token_that_could_not_be_made_is_not_replaced_by_one_of_the_cluster() -> None:
    """As in `R1PLUS_GATEWAY_TOKEN=$(r1plus serve token)` where nothing serves, and others may have the port."""

    def connect() -> Cluster:
        raise AssertionError("the cluster makes no token for a gateway of this machine")

    target = GatewayTarget(connect, url="http://127.0.0.1:9", env={TOKEN_VARIABLE: ""})
    with pytest.raises(UsageError, match=r"R1PLUS_GATEWAY_TOKEN is set, and empty: .* Repeat that, or unset it"):
        call_admin(target, "GET", "/keys")


@pytest.mark.parametrize("url", ["ftp://gateway", "gateway:8080", "http://gateway.example.com"])
async def test_no_token_goes_where_others_read_it(url: str) -> None:
    with pytest.raises(UsageError, match="--gateway"):
        call_admin(GatewayTarget(lambda: Cluster("", ""), url=url, env={TOKEN_VARIABLE: "token"}), "GET", "/keys")


@pytest.fixture
def tls_address(tmp_path: Path) -> Iterator[str]:
    """A server that speaks TLS, with a certificate for another name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"token": self.headers["Authorization"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    authority = Authority(tmp_path / "pki")
    authority.ensure()
    identity = authority.issue("server", "server", hosts=["gateway.bank.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_gateway_with_tls_is_called_with_tls(tls_address: str) -> None:
    target = GatewayTarget(lambda: Cluster(tls_address, "a-token"), env={})
    assert call_admin(target, "GET", "/keys") == {"token": "Bearer a-token"}


async def test_durations_are_a_number_and_a_unit() -> None:
    assert [parse_duration("--x", text) for text in ("45s", "30m", "24h", "90d")] == [45, 1800, 86400, 7776000]
    for text in ("", "90", "d", "1.5d", "-1d", "1w", "١d"):
        with pytest.raises(UsageError, match="is not a duration"):
            parse_duration("--x", text)
