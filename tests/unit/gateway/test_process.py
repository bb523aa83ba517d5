"""The gateway as a process: real HTTP, real encrypted store, tokens that the cluster signs; only the pod is a fake."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from r1plus_client import AuthenticationError, BudgetExhaustedError, NotFoundError, RateLimitError
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process
from support.tables import for_each
from support.waiting import eventually


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    async with serving(FakeTriton(answer("Stock", "holm"))) as pod, running_process(folder, pod) as process:
        yield process


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.unit_slow
async def test_a_key_is_shown_once_and_calls(gateway: GatewayProcess) -> None:
    status, made = await gateway.call_admin(
        "POST", "/keys", {"name": "app", "models": ["credit"], "limits": {"budget_tokens": 100}}
    )
    assert (status, made["name"], made["models"], made["limits"]["budget_tokens"]) == (201, "app", ["credit"], 100)
    async with gateway.make_client(made["key"]) as client:
        got = await client.generate(model="credit", prompt="Capital of Sweden?", max_new_tokens=5)
        usage = await client.read_usage()
    assert (got.text, got.usage.total_tokens) == ("Stockholm", 9)
    (row,) = usage["data"]
    assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (1, 7, 2)
    assert usage["remaining"]["budget_tokens"] == 91
    _, listed = await gateway.call_admin("GET", "/keys")
    (listed_key,) = (entry for entry in listed["data"] if entry["id"] == made["id"])
    assert listed_key == {name: value for name, value in made.items() if name != "key"}
    secret = made["key"].split("_")[2]
    assert secret not in gateway.log


@pytest.mark.unit_slow
async def test_an_answer_has_its_revision_and_verdict(gateway: GatewayProcess) -> None:
    """At once, unless the monitor takes more than half a second to say so, as on a machine that stalls."""
    async with gateway.make_client(await gateway.create_key()) as client:

        async def has_evidence() -> bool:
            evidence = (await client.generate(model="credit", prompt="x", max_new_tokens=5)).evidence
            return (evidence.revision, evidence.verdict) == ("credit-1", "Pass")

        await eventually(has_evidence, "an answer has its evidence")


@pytest.mark.unit_slow
async def test_the_openai_client_calls_with_a_key(gateway: GatewayProcess) -> None:
    key = await gateway.create_key()
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key) as client:
        stream = await client.chat.completions.create(
            model="credit", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "Stockholm"


async def test_service_accounts_call_without_a_key(gateway: GatewayProcess) -> None:
    for namespace in ("team-credit", "team-app"):
        async with gateway.make_client(gateway.make_token(namespace, "web")) as client:
            models = [model.id for model in await client.list_models()]
        assert ("credit" in models) == (namespace == "team-credit"), "the model names no other namespace"
    async with gateway.make_client(gateway.make_token("team-other", "web")) as client:
        with pytest.raises(Exception, match="Namespace team-other may not call this gateway"):
            await client.list_models()


async def test_a_rotated_key_lives_on_for_its_grace_and_a_revoked_one_does_not(gateway: GatewayProcess) -> None:
    first = await gateway.create_key()
    key_id = first.split("_")[1]
    _, rotated = await gateway.call_admin("POST", f"/keys/{key_id}/rotate", {"grace_seconds": 3600})
    for key in (first, rotated["key"]):
        async with gateway.make_client(key) as client:
            await client.list_models()
    _, again = await gateway.call_admin("POST", f"/keys/{key_id}/rotate", {"grace_seconds": 0})
    async with gateway.make_client(first) as client:
        with pytest.raises(AuthenticationError):
            await client.list_models()
    status, revoked = await gateway.call_admin("DELETE", f"/keys/{key_id}")
    assert (status, revoked["revoked_at"] is not None) == (200, True)
    async with gateway.make_client(again["key"]) as client:
        with pytest.raises(AuthenticationError):
            await client.list_models()


async def test_limits_of_a_key_hold(gateway: GatewayProcess) -> None:
    budget = await gateway.create_key(limits={"budget_tokens": 20})
    async with gateway.make_client(budget) as client:
        await client.generate(model="credit", prompt="x", max_new_tokens=5)
        with pytest.raises(BudgetExhaustedError):
            await client.generate(model="credit", prompt="x", max_new_tokens=5)
    other_model = await gateway.create_key(models=["other"])
    async with gateway.make_client(other_model) as client:
        with pytest.raises(NotFoundError):
            await client.generate(model="credit", prompt="x")
    minute = await gateway.create_key(limits={"requests_per_minute": 1})
    async with gateway.make_client(minute) as client:
        await client.generate(model="credit", prompt="x", max_new_tokens=5)
        with pytest.raises(RateLimitError) as caught:
            await client.generate(model="credit", prompt="x", max_new_tokens=5)
    assert caught.value.retry_after is not None


@for_each("limits, raised", {
    "a spent budget": ({"budget_tokens": 0}, {"budget_tokens": 100}),
    "a budget that is taken away": ({"budget_tokens": 0}, {"budget_tokens": None}),
    "a limit of no request": ({"requests_per_minute": 0, "budget_tokens": 50}, {"requests_per_minute": 60}),
    "a minute that is used up": ({"requests_per_minute": 1}, {"requests_per_minute": 100}),
})  # fmt: skip
async def test_a_raised_limit_holds_for_the_next_request(
    gateway: GatewayProcess, limits: dict[str, Any], raised: dict[str, Any]
) -> None:
    """Also where the last refusal would still hold."""
    key = await gateway.create_key(limits=limits)
    path = f"/keys/{key.split('_')[1]}"
    async with gateway.make_client(key) as client:
        with pytest.raises((RateLimitError, BudgetExhaustedError)):
            for _ in range(2):
                await client.generate(model="credit", prompt="x", max_new_tokens=5)
        status, changed = await gateway.call_admin("PATCH", path, {"limits": raised})
        assert (status, changed["limits"]) == (200, dict.fromkeys(changed["limits"]) | limits | raised)
        await client.generate(model="credit", prompt="x", max_new_tokens=5)
    assert "key" not in changed


async def test_what_a_change_names_changes_and_the_rest_stays(gateway: GatewayProcess) -> None:
    key = await gateway.create_key(models=["other"], limits={"budget_tokens": 50, "tokens_per_minute": 7})
    path = f"/keys/{key.split('_')[1]}"
    merge = {"Content-Type": "application/merge-patch+json"}
    _, before = await gateway.call_admin("PATCH", path, {"expires_in_seconds": 3600}, **merge)
    assert before["expires_at"] is not None
    _, after = await gateway.call_admin("PATCH", path, {"models": None, "scopes": ["end-users"]})
    assert after == {**before, "models": None, "scopes": ["end-users"]}
    _, last = await gateway.call_admin("PATCH", path, {"limits": None, "scopes": [], "expires_in_seconds": None})
    assert last == {**after, "limits": dict.fromkeys(after["limits"]), "scopes": [], "expires_at": None}


async def test_a_revoked_key_is_not_changed(gateway: GatewayProcess) -> None:
    key = await gateway.create_key()
    path = f"/keys/{key.split('_')[1]}"
    await gateway.call_admin("DELETE", path)
    status, answered = await gateway.call_admin("PATCH", path, {"models": None})
    assert (status, answered["error"]["code"]) == (409, "key_revoked")


async def test_fifty_requests_at_once_never_exceed_a_budget(gateway: GatewayProcess) -> None:
    key = await gateway.create_key(limits={"budget_tokens": 100})
    async with gateway.make_client(key) as client:
        calls = [client.generate(model="credit", prompt="x", max_new_tokens=5) for _ in range(50)]
        got = await asyncio.gather(*calls, return_exceptions=True)
        usage = await client.read_usage()
    refused = [one for one in got if isinstance(one, BaseException)]
    # While answers are open their tokens may come back: those that were not counted any more are to come again.
    assert BudgetExhaustedError in {type(one) for one in refused} <= {BudgetExhaustedError, RateLimitError}
    used = 9 * (50 - len(refused))
    assert 0 < used <= 100
    assert usage["remaining"]["budget_tokens"] == 100 - used


async def test_usage_and_audit_are_for_admins(gateway: GatewayProcess) -> None:
    key = await gateway.create_key(name="reported")
    async with gateway.make_client(key) as client:
        await client.generate(model="credit", prompt="x", max_new_tokens=5)
    status, report = await gateway.call_admin("GET", f"/usage?key={key.split('_')[1]}")
    (row,) = report["data"]
    assert (status, row["model"], row["prompt_tokens"], row["completion_tokens"]) == (200, "credit", 7, 2)
    status, audit = await gateway.call_admin("GET", "/audit")
    assert (status, audit["problem"]) == (200, None)
    assert audit["records"] > 0


@for_each("path, body", {
    "a chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "a text": ("/v1/completions", {"prompt": "Hi"}),
    "the native form": ("/v1/generate", {"prompt": "Hi"}),
})  # fmt: skip
async def test_the_administrators_token_generates_nothing(
    gateway: GatewayProcess, path: str, body: dict[str, Any]
) -> None:
    async def ask(account: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {gateway.make_token('team-credit', account)}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(gateway.url + path, json={"model": "credit", **body}, headers=headers) as response,
        ):
            return response.status, await response.json()

    status, answered = await ask("r1plus-gateway-admin")
    assert (status, answered["error"]["code"]) == (403, "admin_not_allowed")
    assert "r1plus key create" in answered["error"]["message"]
    assert (await ask("web"))[0] == 200
    _, usage = await gateway.call_admin("GET", "/usage")
    callers = {row["caller_id"] for row in usage["data"]}
    assert "team-credit/web" in callers
    assert "team-credit/r1plus-gateway-admin" not in callers


NOT_ADMINS = {
    "a key": None,
    "another account": ("team-credit", "web"),
    "another tenant's": ("team-app", "r1plus-gateway-admin"),
}
PATHS = [
    ("POST", "/keys"),
    ("GET", "/keys"),
    ("POST", "/keys/a/rotate"),
    ("PATCH", "/keys/a"),
    ("DELETE", "/keys/a"),
    ("GET", "/usage"),
    ("GET", "/audit"),
]


@pytest.mark.parametrize(("method", "path"), PATHS, ids=" ".join)
@pytest.mark.parametrize("account", NOT_ADMINS.values(), ids=NOT_ADMINS)
async def test_the_admin_api_is_for_admins(
    gateway: GatewayProcess, method: str, path: str, account: tuple[str, str] | None
) -> None:
    credential = gateway.make_token(*account) if account else await gateway.create_key()
    status, answered = await gateway.call_admin(method, path, Authorization=f"Bearer {credential}")
    assert (status, answered["error"]["code"]) == (403, "admin_only")


BAD_REQUESTS: dict[str, tuple[str, str, Any, int, str]] = {
    "no name": ("POST", "/keys", {}, 400, "name"),
    "an unknown field": ("POST", "/keys", {"name": "a", "color": 1}, 400, "color"),
    "an unknown limit": ("POST", "/keys", {"name": "a", "limits": {"tokens": 1}}, 400, "limits.tokens"),
    "an unknown scope": ("POST", "/keys", {"name": "a", "scopes": ["root"]}, 400, "scopes"),
    "models of another type": ("POST", "/keys", {"name": "a", "models": [1]}, 400, "models[0]"),
    "no model": ("POST", "/keys", {"name": "a", "models": []}, 400, "models"),
    "a life of nothing": ("POST", "/keys", {"name": "a", "expires_in_seconds": 0}, 400, "expires_in_seconds"),
    "an unknown key": ("DELETE", "/keys/000000000000", None, 404, "GET /v1/admin/keys lists them"),
    "a change of an unknown key": ("PATCH", "/keys/000000000000", {"models": None}, 404, "No key has the id"),
    "a change of nothing": ("PATCH", "/keys/000000000000", {}, 400, "limits: nothing is named that changes"),
    "a change of no limit": ("PATCH", "/keys/000000000000", {"limits": {}}, 400, "limits: nothing is named"),
    "another name": ("PATCH", "/keys/000000000000", {"name": "b"}, 400, "name"),
    "a limit of another type": ("PATCH", "/keys/a", {"limits": {"budget_tokens": "9"}}, 400, "limits.budget_tokens"),
    "a limit below zero": ("PATCH", "/keys/a", {"limits": {"budget_tokens": -1}}, 400, "limits.budget_tokens"),
    "a change to no model": ("PATCH", "/keys/a", {"models": []}, 400, "models"),
    "a change to no life": ("PATCH", "/keys/a", {"expires_in_seconds": 0}, 400, "expires_in_seconds"),
    "a grace of years": ("POST", "/keys/000000000000/rotate", {"grace_seconds": 1e9}, 400, "grace_seconds"),
    "no day": ("GET", "/usage?first=yesterday", None, 400, "first"),
    "days the wrong way round": ("GET", "/usage?first=2026-02-01&last=2026-01-01", None, 400, "first"),
    "an unknown parameter": ("GET", "/usage?user=x", None, 400, "user"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_bad_admin_requests_name_the_field(gateway: GatewayProcess, case: tuple[str, str, Any, int, str]) -> None:
    method, path, body, wanted, text = case
    status, answered = await gateway.call_admin(method, path, body)
    assert status == wanted
    assert text in answered["error"]["message"]


@pytest.mark.unit_slow
async def test_a_killed_gateway_bills_what_its_pod_has_counted(tmp_path: Path) -> None:
    """SIGKILL within an answer: the reservation is settled after the next start, once; nothing is lost."""
    async with serving(FakeTriton(answer(*["a"] * 1000, gap_s=0.05))) as pod, running_process(tmp_path, pod) as process:
        key = await process.create_key(limits={"budget_tokens": 1000})
        async with process.make_client(key) as client:
            stream = await client.stream_generate(model="credit", prompt="x", max_new_tokens=500)
            with pytest.raises(Exception, match="broke off"):
                async for _ in stream:
                    process.kill()
            process.start()
            await process.until_ready()

            async def is_settled() -> bool:
                usage = await client.read_usage()
                return bool(usage["remaining"]["budget_tokens"] == 1000 - sum(map(sum, pod.usage.values())))

            await eventually(is_settled, "what the pod has counted is billed")
        _, audit = await process.call_admin("GET", "/audit")
        assert audit["problem"] is None
