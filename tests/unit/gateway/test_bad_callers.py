"""Holders of a key, and those without one, against a gateway with its real store: what they try leads nowhere."""

import asyncio
import contextlib
import http.client
import json
import secrets
import socket
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from r1plus_contract.gateway import GatewayLimits
from r1plus_gateway.access.api_keys import mint_key
from support.gateway.fake_triton import FakeTriton, PromptCounter, answer, serving
from support.gateway.process import GatewayProcess, running_process
from support.tables import for_each
from support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.first_run_counts]

BODY = {"model": "credit", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pod() -> AsyncIterator[FakeTriton]:
    async with serving(FakeTriton(answer("Stock", "holm"))) as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, pod: FakeTriton) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    async with running_process(folder, pod) as process:
        yield process
        _, audit = await process.call_admin("GET", "/audit")
        assert audit["problem"] is None


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def key(gateway: GatewayProcess) -> str:
    return await gateway.create_key()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _goes_on_serving(gateway: GatewayProcess, key: str) -> AsyncIterator[None]:
    yield
    status, _, _ = await call(gateway, "POST", "/v1/chat/completions", key, BODY)
    assert status == 200


async def call(
    gateway: GatewayProcess, method: str, path: str, key: str = "", body: Any = None, **headers: str
) -> tuple[int, dict[str, Any], Any]:
    """Send a request with the path as it is; return status, answer and headers."""
    own = {"Authorization": f"Bearer {key}", **headers}
    url = URL(gateway.url + path, encoded=True)
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body, headers=own) as response:
        text = await response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else {}, response.headers


def forge(key: str) -> dict[str, str]:
    """Return credentials that are none, made from a valid key."""
    other = mint_key(key.split("_")[1]).encode()
    return {
        "nothing": "",
        "an unknown key": mint_key().encode(),
        "a known id with another secret": other,
        "a checksum of another key": key[:-6] + other[-6:],
        "a key in capitals": key.upper(),
        "a key with more": key + "A",
        "a key cut": key[:-1],
        "a key twice": f"{key} {key}",
        "SQL": "r1p_' OR '1'='1_" + "A" * 43 + "_000000",
        "a character that looks like another": key.replace("r1p_", "r1\u0440_"),
        "wide digits": key.replace(key[4], "\uff11", 1),
        "a name of a folder": "r1p_../../../../etc_" + "A" * 43 + "_000000",
        "three parts": "a.b.c",
        "a token without a signature": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
        "a token of 8,000 bytes": "e30." + "A" * 7900 + ".x",
    }


@pytest.mark.unit_slow
async def test_credentials_that_are_none_get_one_answer(gateway: GatewayProcess, key: str) -> None:
    answers = {}
    for name, credential in forge(key).items():
        status, got, headers = await call(gateway, "POST", "/v1/chat/completions", credential, BODY)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), name
        answers[name] = json.dumps(got)
    assert len(set(answers.values())) == 1, answers


@for_each("line", {
    "a line feed": "r1p_a\nx: y",
    "a carriage return": "r1p_a\rx: y",
    "NUL": "r1p_a\0",
    "a megabyte": "A" * 2**20,
})  # fmt: skip
async def test_credentials_that_are_no_header(gateway: GatewayProcess, line: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"GET /v1/key HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {line}\r\n\r\n"
    try:
        writer.write(head.encode())
        got = await reader.read()
    except ConnectionError:
        got = b""  # it was cut off while it was sent
    assert got == b"" or b" 400 " in got[:16]
    assert b"r1p_a" not in got
    writer.close()


async def compare(first: Callable[[], Awaitable[Any]], second: Callable[[], Awaitable[Any]]) -> float:
    """Return how much longer the median of one takes, by turns; 1 is equal."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(60):
        for taken, run in zip(times, (first, second), strict=True):
            started = time.perf_counter()
            await run()
            taken.append(time.perf_counter() - started)
    one, other = map(statistics.median, times)
    return max(one, other) / min(one, other)


async def test_time_says_nothing_about_ids(gateway: GatewayProcess, key: str) -> None:
    """Of keys, and of models that another caller of the tenant has."""
    limited = await gateway.create_key(models=["other"])
    async with aiohttp.ClientSession() as session:

        async def ask(credential: str, model: str) -> tuple[int, bytes]:
            headers = {"Authorization": f"Bearer {credential}"}
            url = f"{gateway.url}/v1/chat/completions"
            async with session.post(url, json={**BODY, "model": model}, headers=headers) as response:
                return response.status, (await response.read()).replace(model.encode(), b"MODEL")

        assert await ask(limited, "credit") == await ask(limited, "debits")
        assert (await ask(limited, "credit"))[0] == 404
        known, unknown = mint_key(key.split("_")[1]).encode(), mint_key().encode()
        for first, second in (((limited, "credit"), (limited, "debits")), ((known, "credit"), (unknown, "credit"))):

            async def take_as_long(first: tuple[str, str] = first, second: tuple[str, str] = second) -> bool:
                """What other processes take of the processor now and then differs; what an id costs stays."""
                return await compare(lambda: ask(*first), lambda: ask(*second)) < 1.5

            await eventually(take_as_long, f"{first} and {second} take as long")


@for_each("method, path", {
    "the keys": ("GET", "/v1/admin/keys"),
    "the keys, encoded": ("GET", "/v1/%61dmin/keys"),
    "the keys, with more slashes": ("GET", "/v1//admin/keys"),
    "the keys, by a detour": ("GET", "/v1/key/../admin/keys"),
    "the keys, by an encoded detour": ("GET", "/v1/models/..%2fadmin%2fkeys"),
    "the keys, with a parameter": ("GET", "/v1/admin/keys;x=/healthz"),
    "the keys, by HEAD": ("HEAD", "/v1/admin/keys"),
    "the keys, by OPTIONS": ("OPTIONS", "/v1/admin/keys"),
    "the usage of all": ("GET", "/v1/admin/usage"),
    "the audit log": ("GET", "/v1/admin/audit"),
    "the metrics": ("GET", "/metrics"),
    "the state of the data": ("GET", "/data"),
    "the settings": ("GET", "/etc/r1plus/gateway/gateway.json"),
})  # fmt: skip
async def test_what_a_key_holder_may_not_see(gateway: GatewayProcess, key: str, method: str, path: str) -> None:
    other = await gateway.create_key()
    disguises = {
        "X-Original-URL": "/healthz",
        "X-Rewrite-URL": "/v1/key",
        "X-HTTP-Method-Override": "GET",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": "gateway.team-other.svc",
        "Host": "gateway.team-other.svc",
        "Forwarded": "for=127.0.0.1;host=x",
        "x-r1plus-namespace": "team-other",
    }
    for headers in ({}, disguises):
        status, got, _ = await call(gateway, method, path, key, **headers)
        assert status in (403, 404, 405)
        assert other.split("_")[1] not in json.dumps(got)


async def test_no_key_changes_another_or_the_time(gateway: GatewayProcess, key: str) -> None:
    other = await gateway.create_key()
    other_id = other.split("_")[1]
    one = f"/v1/admin/keys/{other_id}"
    time_ = "/v1/admin/time/confirm"
    for method, path in (("DELETE", one), ("PATCH", one), ("POST", f"{one}/rotate"), ("POST", time_)):
        status, got, _ = await call(gateway, method, path, key)
        assert (status, got["error"]["code"]) == (403, "admin_only")
    status, _, _ = await call(gateway, "GET", "/v1/models", other)
    assert status == 200


@for_each("key_id", {
    "NUL": "%00",
    "SQL": "'%20OR%201=1--",
    "a slash": "a%2Frotate",
    "nothing UTF-8": "%FF",
    "a line feed": "a%0Ab",
    "ten kilobytes": "a" * 3000,
    "bidirectional controls": "%E2%80%AE",
})  # fmt: skip
async def test_ids_that_no_key_has(gateway: GatewayProcess, key_id: str) -> None:
    token = gateway.make_token("team-credit", "r1plus-gateway-admin")
    for method, path in (("DELETE", f"/v1/admin/keys/{key_id}"), ("POST", f"/v1/admin/keys/{key_id}/rotate")):
        status, got, _ = await call(gateway, method, path, token)
        assert (status, got["error"]["code"]) == (404, "key_not_found")


@for_each("query, param", {
    "NUL": ("key=%00", "key"),
    "bidirectional controls": ("end_user=%E2%80%AE", "end_user"),
    "twice": ("model=a&model=b", "model"),
    "nothing": ("first=", "first"),
    "another form of a day": ("first=20260101", "first"),
    "a week": ("first=2026-W01-1", "first"),
    "digits of another script": ("last=%D9%A2%D9%A0%D9%A2%D9%A6-01-01", "last"),
    "an unknown parameter": ("%00=1", "\0"),
})  # fmt: skip
async def test_bad_queries(gateway: GatewayProcess, query: str, param: str) -> None:
    token = gateway.make_token("team-credit", "r1plus-gateway-admin")
    status, got, _ = await call(gateway, "GET", f"/v1/admin/usage?{query}", token)
    assert (status, got["error"]["param"]) == (400, param)


async def test_end_users_are_not_forged(gateway: GatewayProcess, key: str) -> None:
    trusted = await gateway.create_key(scopes=["end-users"])
    status, _, _ = await call(gateway, "GET", "/v1/key", trusted, **{"x-r1plus-end-user": "ada"})
    assert status == 200
    for credential, name in ((key, "ada"), (trusted, "a" * 257), (trusted, "a\u202eb")):
        status, got, _ = await call(gateway, "GET", "/v1/key", credential, **{"x-r1plus-end-user": name})
        assert (status, got["error"]["code"]) == (403, "end_user_not_allowed")


async def test_a_name_in_latin_1_is_refused_with_what_to_send(gateway: GatewayProcess) -> None:
    """As Python's own client sends a text; its bytes it sends as they are."""
    trusted = await gateway.create_key(scopes=["end-users"])

    def ask(name: str | bytes) -> tuple[int, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as client:
            client.request("GET", "/v1/key", headers={"Authorization": f"Bearer {trusted}", "x-r1plus-end-user": name})
            response = client.getresponse()
            return response.status, json.load(response)

    status, got = await asyncio.to_thread(ask, "José")
    assert (status, got["error"]["code"]) == (403, "end_user_not_allowed")
    assert "is not UTF-8" in got["error"]["message"] and "name.encode()" in got["error"]["message"]
    status, got = await asyncio.to_thread(ask, "José".encode())
    assert (status, got["end_user"]) == (200, "José")


async def test_what_a_client_sends_does_not_come_back_in_headers(gateway: GatewayProcess, key: str) -> None:
    mark = secrets.token_hex(8)
    names = ("x-request-id", "x-r1plus-verdict", "x-r1plus-revision", "system_fingerprint", "Origin")
    status, _, headers = await call(gateway, "POST", "/v1/chat/completions", key, BODY, **dict.fromkeys(names, mark))
    assert status == 200
    assert mark not in str(headers)
    assert "Access-Control-Allow-Origin" not in headers, "no page of another origin calls with a person's key"
    assert headers["x-r1plus-verdict"] == "Pass"


async def test_a_budget_holds_whatever_is_tried(gateway: GatewayProcess) -> None:
    """Streams that are left at once, many at a time, other forms, other presets: together within the budget."""
    budget = 60
    key = await gateway.create_key(limits={"budget_tokens": budget})
    forms: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", BODY),
        ("/v1/chat/completions", {**BODY, "model": "credit:code", "stream": True}),
        ("/v1/completions", {"model": "credit", "prompt": "x", "max_tokens": 4}),
        ("/v1/generate", {"model": "credit", "prompt": "x", "max_new_tokens": 4, "stream": True}),
    ]
    headers = {"Authorization": f"Bearer {key}"}

    async def attack(session: aiohttp.ClientSession, number: int) -> int:
        path, body = forms[number % len(forms)]
        async with session.post(gateway.url + path, json=body, headers=headers) as response:
            if number % 3 == 0:
                response.close()
            else:
                await response.read()
            return response.status

    async with aiohttp.ClientSession() as session:
        statuses = await asyncio.gather(*(attack(session, number) for number in range(60)))
    assert set(statuses) <= {200, 429}
    assert 429 in statuses
    async with gateway.make_client(key) as client:
        usage = await client.read_usage()
    used = sum(row["prompt_tokens"] + row["completion_tokens"] for row in usage["data"])
    assert 0 < used <= budget


async def test_a_nearly_spent_key_makes_pods_count_no_prompts_without_end(
    gateway: GatewayProcess, pod: FakeTriton
) -> None:
    """It has no limit per minute, and its budget leaves room for small requests only."""
    counter = pod.count_tokens = PromptCounter(tokens=500)
    key = await gateway.create_key(limits={"budget_tokens": 40})
    text = {**BODY, "messages": [{"role": "user", "content": "x" * 2000}]}

    async def ask(most_tokens: int) -> tuple[int, str, bool]:
        body = {**text, "max_tokens": most_tokens}
        status, got, headers = await call(gateway, "POST", "/v1/chat/completions", key, body)
        return status, got["error"]["code"], "Retry-After" in headers

    counted, held = (429, "insufficient_quota", False), (429, "rate_limit_exceeded", True)
    refusals: Counter[tuple[int, str, bool]] = Counter()
    for _ in range(20):
        refusals.update(await asyncio.gather(*(ask(4) for _ in range(30))))
        if refusals[held]:  # A minute's allowance is used up; `test_counting` has its size.
            break
    assert set(refusals) == {counted, held}
    assert set(await asyncio.gather(*(ask(50) for _ in range(30)))) == {counted}
    assert GatewayLimits().queue_per_key <= counter.asked == refusals[counted]
    # Another key of the tenant has its own counts.
    before, counter.tokens = counter.asked, 7
    other = await gateway.create_key(limits={"budget_tokens": 40})
    assert (await call(gateway, "POST", "/v1/chat/completions", other, BODY))[0] == 200
    assert counter.asked == before + 1


ENDLESS = {
    "a header": (b"GET / HTTP/1.1\r\nX: ", b"b" * 65536),
    "a path": (b"GET /", b"b" * 65536),
    "what follows an upgrade": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b" " * 65536,
    ),
    "a trailer": (
        b"POST /v1/generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"b" * 65536,
    ),
}


@for_each("begun, piece", ENDLESS)
async def test_what_never_ends_costs_no_memory(gateway: GatewayProcess, begun: bytes, piece: bytes) -> None:
    """40 clients without a key send as fast as they can. Without a limit each would take 15 MB."""

    def flood() -> int:
        sent = 0
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as client:
            client.sendall(begun)
            while sent < 40_000_000:
                client.sendall(piece)
                sent += len(piece)
        return sent

    assert await measure_growth(gateway, flood, clients=40) < 100_000_000


@pytest.mark.unit_slow
async def test_requests_behind_answers_that_nobody_reads_cost_no_memory(gateway: GatewayProcess) -> None:
    """Ten clients without a key send large ones. aiohttp would read 32 of each ahead, so 15 MB."""
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 8000) for number in range(60))
    large = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"

    def flood() -> int:
        sent = 0
        with socket.socket() as client, contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", gateway.port))
            client.settimeout(2)
            for _ in range(40):
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(100):
                client.sendall(large)
                sent += len(large)
        return sent

    assert await measure_growth(gateway, flood, clients=10) < 180_000_000


async def measure_growth(gateway: GatewayProcess, flood: Callable[[], int], *, clients: int) -> int:
    """Return by how many bytes the gateway has grown once so many clients have sent; `flood` returns what one did."""
    before = read_memory(gateway.pid)
    sent = await asyncio.gather(*(asyncio.to_thread(flood) for _ in range(clients)))
    assert sum(sent) > 1_000_000
    return read_memory(gateway.pid) - before


def read_memory(pid: int) -> int:
    """Return the most bytes that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
