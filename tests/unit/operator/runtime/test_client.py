"""The client's retries, errors and requests, against a scripted server; its semantics are tested on the real one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from r1plus_operator.runtime.client import JSON_PATCH, ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.errors import (
    ApiError,
    ApiServerError,
    ConflictError,
    FieldCause,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
)
from r1plus_operator.runtime.resources import Resource
from r1plus_operator.runtime.throttle import TokenBucket
from support.runtime.api_server import (
    CONFIG_MAPS,
    LIMITS,
    Answer,
    client_of,
    dropped,
    ok,
    page,
    raw,
    refusal,
    scripted_server,
    silent,
)
from support.virtual_time import read_loop_time
from support.waiting import eventually

OBJECT: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}}
Request = Callable[[ApiClient], Awaitable[Any]]


async def get(client: ApiClient) -> Any:
    return await client.get(CONFIG_MAPS, "a", "ns")


async def apply(client: ApiClient) -> Any:
    return await client.apply(CONFIG_MAPS, OBJECT, field_manager="test")


async def merge_patch(client: ApiClient) -> Any:
    return await client.patch(CONFIG_MAPS, "a", "ns", {"data": {"x": "1"}})


async def json_patch(client: ApiClient) -> Any:
    patch = [{"op": "add", "path": "/data/x", "value": "1"}]
    return await client.patch(CONFIG_MAPS, "a", "ns", patch, content_type=JSON_PATCH)


async def create(client: ApiClient) -> Any:
    return await client.create(CONFIG_MAPS, OBJECT)


async def delete(client: ApiClient) -> Any:
    return await client.delete(CONFIG_MAPS, "a", "ns")


async def delete_that_one(client: ApiClient) -> Any:
    return await client.delete(CONFIG_MAPS, "a", "ns", uid="u")


async def outcome(request: Request, *answers: Answer) -> tuple[ApiError | None, int]:
    """What became of a request under these answers, and how often it was sent."""
    async with scripted_server() as server:
        server.lists = server.writes = list(answers)
        async with client_of(server) as client:
            try:
                await request(client)
            except ApiError as error:
                return error, len(server.requests)
            return None, len(server.requests)


BUSY = refusal(429, "TooManyRequests")
BUSY_FOR_LONG = refusal(429, headers={"Retry-After": "60"})
LEAVING = refusal(503, headers={"Retry-After": "0"})
SILENT = silent()
HALF = raw(200, b'{"kind": "Config')


@pytest.mark.parametrize(
    ("request_", "answers", "error", "sent"),
    [
        pytest.param(get, [BUSY, ok()], None, 2, id="429: a read is sent again"),
        pytest.param(create, [BUSY, BUSY, ok()], None, 3, id="429: nothing was done, so even a create is sent again"),
        pytest.param(get, [BUSY], TooManyRequestsError, 4, id="429 for ever: given up after three retries"),
        pytest.param(
            get, [BUSY_FOR_LONG], TooManyRequestsError, 1, id="429 for long: the caller waits"
        ),
        pytest.param(apply, [dropped(), ok()], None, 2, id="no answer: an apply is sent again"),
        pytest.param(merge_patch, [dropped(), ok()], None, 2, id="no answer: a merge patch is sent again"),
        pytest.param(apply, [HALF, ok()], None, 2, id="half an answer: an apply is sent again"),
        pytest.param(delete_that_one, [dropped(), ok()], None, 2, id="no answer: a delete by uid is sent again"),
        pytest.param(create, [dropped(), ok()], TransportError, 1, id="no answer: a create is not sent again"),
        pytest.param(json_patch, [dropped(), ok()], TransportError, 1, id="no answer: a JSON patch is not sent again"),
        pytest.param(get, [SILENT], TransportError, 1, id="a timeout has cost enough: not again"),
        pytest.param(get, [refusal(500), ok()], ApiServerError, 1, id="500: the caller decides"),
        pytest.param(get, [LEAVING, ok()], None, 2, id="503 with Retry-After: again"),
        pytest.param(create, [LEAVING], ApiServerError, 1, id="503 on a create: it may have happened"),
        pytest.param(apply, [refusal(409, "Conflict"), ok()], ConflictError, 1, id="409: the caller reads again"),
        pytest.param(apply, [refusal(422, "Invalid"), ok()], InvalidError, 1, id="422: never again"),
    ],
)  # fmt: skip
async def test_what_is_sent_again(
    request_: Request, answers: list[Answer], error: type[ApiError] | None, sent: int, virtual_time: None
) -> None:
    got, count = await outcome(request_, *answers)
    assert (type(got) if got else None, count) == (error, sent)


async def test_a_delete_by_name_alone_is_repeated_by_aiohttp_once_and_not_by_us() -> None:
    got, count = await outcome(delete, dropped())
    assert isinstance(got, TransportError)
    assert count <= 2


async def test_retry_after_is_waited_for(virtual_time: None) -> None:
    started = read_loop_time()
    got, count = await outcome(get, refusal(429, headers={"Retry-After": "1"}), ok())
    assert (got, count) == (None, 2)
    assert read_loop_time() - started >= 1.0


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, ApiError), (401, UnauthorizedError), (403, ForbiddenError), (404, NotFoundError), (409, ConflictError),
        (410, GoneError), (422, InvalidError), (500, ApiServerError), (504, ApiServerError),
    ],
)  # fmt: skip
async def test_each_status_has_its_error(code: int, error: type[ApiError]) -> None:
    got, _ = await outcome(get, refusal(code, "Word"))
    assert type(got) is error
    assert (got.status, got.reason, got.message) == (code, "Word", f"scripted {code}")
    assert str(got) == f"GET /api/v1/namespaces/ns/configmaps/a -> {code} Word: scripted {code}"


async def test_an_invalid_object_names_its_fields_and_a_busy_server_its_delay() -> None:
    got, _ = await outcome(apply, refusal(422, causes=[{"field": "spec.x", "message": "too big"}, {"message": "odd"}]))
    assert got.causes == (FieldCause("spec.x", "too big"), FieldCause("", "odd"))
    got, _ = await outcome(get, refusal(429, retryAfterSeconds=7))
    assert got.retry_after == 7.0


async def test_a_page_that_is_no_status_is_quoted_briefly() -> None:
    got, _ = await outcome(get, raw(502, b"<html>bad gateway" + b"x" * 5000))
    assert isinstance(got, ApiServerError)
    assert got.message.startswith("<html>bad gateway")
    assert len(got.message) == 300


async def test_nobody_listening_is_a_transport_error() -> None:
    async with ApiClient(ApiConnection(server="http://127.0.0.1:1"), limits=LIMITS) as client:
        with pytest.raises(TransportError, match=r"^GET /api/v1/namespaces/ns/configmaps/a -> 0 Transport: "):
            await get(client)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(get, [], id="a read is no write"),
        pytest.param(apply, [("apply", "configmaps")], id="apply"),
        pytest.param(merge_patch, [("patch", "configmaps")], id="patch"),
        pytest.param(create, [("create", "configmaps")], id="create"),
        pytest.param(delete, [("delete", "configmaps")], id="delete"),
    ],
)
async def test_each_write_is_reported_once(request_: Request, expected: list[tuple[str, str]]) -> None:
    seen: list[tuple[str, str]] = []
    async with scripted_server() as server:
        server.lists = server.writes = [BUSY, ok()]
        async with client_of(server) as client:
            client.on_write = lambda verb, res: seen.append((verb, res.name))
            await request_(client)
    assert seen == expected


async def test_what_goes_over_the_wire() -> None:
    async with scripted_server() as server:
        server.writes = [ok()]
        async with client_of(server) as client:
            await apply(client)
            await client.delete(CONFIG_MAPS, "a", "ns", uid="u", propagation="Foreground")
    assert server.requests[0][1] == {"fieldManager": "test", "force": "true"}
    assert server.headers[0]["Content-Type"] == "application/apply-patch+yaml"
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert orjson.loads(server.requests[0][2]) == OBJECT
    options = orjson.loads(server.requests[1][2])
    assert options["preconditions"] == {"uid": "u"}
    assert options["propagationPolicy"] == "Foreground"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param(
            lambda c: c.apply(CONFIG_MAPS, {**OBJECT, "kind": "Secret"}, field_manager="t"),
            "kind: v1 Secret is no v1 ConfigMap", id="an object of another kind",
        ),
        pytest.param(
            lambda c: c.get(CONFIG_MAPS, "a"), "namespace: absent for ConfigMap 'a'", id="a namespace that is missing",
        ),
        pytest.param(
            lambda c: c.get(Resource("", "v1", "nodes", "Node", False), "a", "ns"), "nodes is cluster-scoped",
            id="a namespace too many",
        ),
    ],
)  # fmt: skip
async def test_mistakes_are_caught_before_they_are_sent(request_: Request, message: str) -> None:
    async with ApiClient(ApiConnection(server="http://127.0.0.1:1")) as client:
        with pytest.raises(ValueError, match=message):
            await request_(client)


async def test_at_most_so_many_requests_are_in_flight() -> None:
    started = 0
    gate = asyncio.Event()

    async def slow(_: Any) -> Any:
        nonlocal started
        started += 1
        await gate.wait()
        return await ok()(_)

    async with scripted_server() as server:
        server.lists = [slow]
        async with client_of(server, limits=replace(LIMITS, concurrent_requests=3)) as client:
            asked = [asyncio.create_task(get(client)) for _ in range(10)]
            await eventually(lambda: started == 3, "three have begun")
            gate.set()
            await asyncio.gather(*asked)
            assert started == 10


async def test_a_list_joins_its_pages_and_keeps_its_selector() -> None:
    async with scripted_server() as server:
        server.lists = [page(7, {"n": 1}, {"n": 2}, more="next"), page(7, {"n": 3})]
        async with client_of(server) as client:
            items, version = await client.list(CONFIG_MAPS, "ns", label_selector="a=b", limit=2)
    assert ([i["n"] for i in items], version) == ([1, 2, 3], "7")
    assert server.asked("list") == [
        {"limit": "2", "labelSelector": "a=b"}, {"limit": "2", "labelSelector": "a=b", "continue": "next"}
    ]  # fmt: skip


def test_the_token_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    now = 0.0
    bucket = TokenBucket(rate=10.0, burst=3, clock=lambda: now)
    assert [round(bucket.reserve(), 3) for _ in range(5)] == [0.0, 0.0, 0.0, 0.1, 0.2]
    now = 1.0
    assert [round(bucket.reserve(), 3) for _ in range(4)] == [0.0, 0.0, 0.0, 0.1]


def test_a_bucket_gives_what_it_has_of_what_is_asked() -> None:
    now = 0.0
    bucket = TokenBucket(rate=0.5, burst=3, clock=lambda: now)
    assert [bucket.take(2) for _ in range(3)] == [2, 1, 0]
    now = 3.0
    assert [bucket.take(2), bucket.take(2)] == [1, 0]
    now = 4.0
    assert bucket.take(5) == 1  # The half token of before is not lost.


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (5.0, 0)])
def test_a_bucket_that_never_lets_anything_through_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate must be above 0"):
        TokenBucket(rate, burst)
