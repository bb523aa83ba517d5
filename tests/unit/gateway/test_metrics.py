"""The gateway's metrics: what each end of a request counts, whose series there are and for how long, and no text in any."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from r1plus_contract import metrics as names
from r1plus_contract.gateway import DataReason, GatewayOutcome
from r1plus_gateway.access.caller import AccessError, Limits, TokenUsage
from r1plus_gateway.access.usage import KeyBudget
from r1plus_gateway.http.metrics import IDLE_SECONDS, MOST_PAIRS, OTHER, GatewayMetrics
from r1plus_gateway.serving.generation import State, Times
from r1plus_gateway.store.administration.admin import create_key, revoke_key
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.ledger.usage_reader import read_key_budgets
from r1plus_gateway.store.tenant import TenantStore
from r1plus_operator.plan.tenancy.gateway_objects import SERIES_LIMITS, build_pod_monitor
from support.gateway.fake_triton import FakeTriton, Gated, answer, serving
from support.gateway.process import running_process
from support.gateway.rig import Rig, running
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.http_server import serving as serving_http
from support.plan.tenant_world import CONFIG
from support.prometheus import prometheus
from support.tables import for_each
from support.waiting import eventually

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read_samples(text: bytes) -> Samples:
    """Return (name, labels) -> value."""
    families = text_string_to_metric_families(text.decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for f in families for one in f.samples}


def read_labels(text: bytes, label: str) -> set[str]:
    return {value for _, labels in read_samples(text) for name, value in labels if name == label}


def count_requests(rig: Rig, key: str = "alice", model: str = "credit") -> dict[str, float]:
    """Return outcome -> requests, without zeros."""
    counts = {
        outcome.value: rig.metric(names.GATEWAY_REQUESTS_TOTAL, model=model, key=key, outcome=outcome.value)
        for outcome in GatewayOutcome
    }
    return {outcome: count for outcome, count in counts.items() if count}


def make_generation(times: Times, completion_tokens: int = 11) -> Any:
    return SimpleNamespace(times=times, usage=TokenUsage(3, completion_tokens))


REFUSALS: dict[str, tuple[AccessError, str]] = {
    "the budget is used up": (AccessError(429, "insufficient_quota", "no"), "budget_exhausted"),
    "the limit per minute is reached": (AccessError(429, "rate_limit_exceeded", "no", retry_after=1.0), "rate_limited"),
    "the data cannot be used": (AccessError(503, "data_unavailable", "no", retry_after=1.0), "unavailable"),
}


class TestOutcomes:
    """Each request is counted once, by how it ended."""

    @for_each("error, expected", REFUSALS)
    async def test_of_a_request_that_is_not_admitted(self, tmp_path: Path, error: AccessError, expected: str) -> None:
        async with running(tmp_path, answer("a")) as rig:
            rig.ledger.refusal = error
            async with rig.chat() as response:
                assert response.status == error.status
            assert count_requests(rig) == {expected: 1}

    async def test_of_an_answer_and_of_a_request_that_is_wrong(self, tmp_path: Path) -> None:
        async with running(tmp_path, answer("a", "b")) as rig:
            async with rig.chat() as response:
                assert response.status == 200
            async with rig.chat(n=7) as response:
                assert response.status == 400
            async with rig.client.post(f"{rig.url}/v1/chat/completions", json={}) as response:
                assert response.status == 401
            assert count_requests(rig) == {"answered": 1, "refused": 1}
            assert count_requests(rig, key="", model="") == {"refused": 1}
            labels = {"model": "credit", "key": "alice"}
            assert rig.metric(names.GATEWAY_TOKENS_TOTAL, **labels, direction="prompt") == 7
            assert rig.metric(names.GATEWAY_TOKENS_TOTAL, **labels, direction="completion") == 2
            assert rig.metric(f"{names.GATEWAY_KEY_FIRST_TOKEN_SECONDS}_count", **labels) == 1

    @pytest.mark.unit_slow
    async def test_of_a_model_without_pods(self, tmp_path: Path) -> None:
        async with running(tmp_path, answer("a")) as rig:
            rig.addresses = frozenset()
            await eventually(lambda: rig.metric(names.GATEWAY_PODS, model="credit") == 0, "the pod is gone")
            async with rig.chat() as response:
                assert response.status == 503
            assert count_requests(rig) == {"unavailable": 1}

    async def test_of_a_full_queue(self, tmp_path: Path) -> None:
        script = Gated(("a",))
        async with running(tmp_path, script, settings={"limits": {"queuePerTenant": 1}}, batch=1) as rig:
            first = begin(rig)
            await rig.until_running(1)
            second = begin(rig)
            await eventually(lambda: rig.gateway.models.queue.waiting == 1, "one waits")
            async with rig.client.get(f"http://127.0.0.1:{rig.gateway.internal_port}/metrics") as response:
                samples = read_samples(await response.read())
            for name in (names.GATEWAY_RUNNING_REQUESTS, names.GATEWAY_WAITING_REQUESTS):
                assert samples[name, (("model", "credit"),)] == 1
            assert await begin(rig) == 503
            script.release(4)
            assert (await first, await second) == (200, 200)
            assert count_requests(rig) == {"answered": 2, "overloaded": 1}


def begin(rig: Rig) -> "asyncio.Task[int]":
    """Ask in the background, for the status of the answer."""

    async def ask() -> int:
        async with rig.chat() as response:
            await response.read()
            return response.status

    return asyncio.create_task(ask())


def test_times_are_from_the_arrival_and_a_wait_that_was_cancelled_counts() -> None:
    metrics = GatewayMetrics()
    metrics.observe("credit", "alice", make_generation(Times(1.0, 1.5, started=2.5, first_token=3.0, ended=5.0)))
    metrics.observe("credit", "alice", make_generation(Times(1.0, 1.5, ended=9.5), completion_tokens=0))
    samples = read_samples(metrics.render())
    of_key = (("key", "alice"), ("model", "credit"))
    assert samples[f"{names.GATEWAY_KEY_FIRST_TOKEN_SECONDS}_sum", of_key] == 2.0
    assert samples[f"{names.GATEWAY_KEY_OUTPUT_TOKEN_SECONDS}_sum", of_key] == pytest.approx(0.2)
    assert samples[f"{names.GATEWAY_KEY_QUEUE_SECONDS}_sum", of_key] == 9.0
    for name, count in (
        (names.GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS, 1),
        (names.GATEWAY_TIME_PER_OUTPUT_TOKEN_SECONDS, 1),
        (names.GATEWAY_QUEUE_SECONDS, 2),
    ):
        assert samples[f"{name}_count", (("model", "credit"),)] == count


def make_largest() -> bytes:
    """Return what a gateway exports at most: names as long as any, and more callers than have series of their own."""
    metrics, models = GatewayMetrics(), [f"{'m' * 60}{number:03}" for number in range(50)]
    fill(metrics, [f"{'n' * 63}/{'s' * 248}{number:05}" for number in range(2 * MOST_PAIRS)], models)
    for model in models:
        metrics.set_pods(model, 1)
        metrics.set_load(model, 1, 1)
    metrics.update_keys([KeyBudget(f"{number:012}", 10, 5) for number in range(300)], metrics.list_keys())
    metrics.set_data_state(DataReason.READY)
    return metrics.render()


def fill(metrics: GatewayMetrics, callers: list[str], models: list[str]) -> None:
    """Count every kind of event of each caller, on one model each."""
    times = Times(1.0, 1.1, started=1.2, first_token=2.0, ended=3.0)
    for number, caller in enumerate(callers):
        model = models[number % len(models)]
        for outcome in GatewayOutcome:
            metrics.count_request(model, caller, outcome)
        for state in State:
            metrics.count_cancelled(model, caller, state)
        metrics.count_usage(model, caller, TokenUsage(1, 1))
        metrics.observe(model, caller, make_generation(times))


class TestWhoHasSeries:
    """Callers by id, so many of them at most, and none that is gone."""

    @pytest.mark.unit_slow
    def test_what_a_gateway_exports_at_most_is_within_the_limits_of_its_scrape(self) -> None:
        text = make_largest()
        assert len(read_samples(text)) < int(SERIES_LIMITS["sampleLimit"]) / 1.5
        assert len(text) < 4 * 2**20 / 1.2
        callers = {
            value for _, labels in read_samples(text) for name, value in labels if name == "key" and "/" in value
        }
        assert len(callers) == MOST_PAIRS
        assert OTHER in read_labels(text, "key")

    @pytest.mark.unit_slow
    async def test_prometheus_takes_it_whole_and_adds_the_tenants_namespace(self, tmp_path: Path) -> None:
        """By the PodMonitor as prometheus-operator writes it; what a target has of its own comes from the pod."""
        spec = build_pod_monitor("team", CONFIG)["spec"]
        (endpoint,) = spec["podMetricsEndpoints"]
        assert "honorLabels" not in endpoint
        limits = {re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", name): spec[name] for name in SERIES_LIMITS}
        text = make_largest()
        samples = read_samples(text)
        target = {"namespace": "team", "pod": "r1plus-gateway-1", "container": "gateway", "endpoint": "internal"}
        own = set(target) | {"job", "instance"}
        assert not own & {name for _, labels in samples for name, _ in labels}

        async def answer_metrics(_: web.Request) -> web.Response:
            return web.Response(body=text, content_type="text/plain")

        async with serving_http(web.get("/metrics", answer_metrics)) as url, aiohttp.ClientSession() as session:
            job = {"job_name": "g", "scrape_interval": "3s", "scrape_timeout": "3s", **limits}
            job["static_configs"] = [{"targets": [url.removeprefix("http://")], "labels": target}]
            with prometheus(tmp_path, scrape_configs=[job]) as server:

                async def count() -> int:
                    query = f'count({{__name__=~"r1plus_gateway_.+",namespace="team",pod="{target["pod"]}"}})'
                    async with session.get(f"{server}/api/v1/query", params={"query": query}) as response:
                        result = (await response.json())["data"]["result"]
                        return int(result[0]["value"][1]) if result else 0

                found = await eventually(count, "the gateway was scraped", retry_on=(aiohttp.ClientError,))
        assert found == len(samples)

    def test_series_of_a_key_end_with_it_and_those_of_accounts_stay(self) -> None:
        metrics = GatewayMetrics()
        fill(metrics, ["aaa", "bbb", "team/web"], ["credit"])
        assert metrics.list_keys() == ["aaa", "bbb"]
        metrics.update_keys([KeyBudget("aaa", 100, 40), KeyBudget("bbb")], metrics.list_keys())
        assert (names.GATEWAY_BUDGET_LEFT_TOKENS, (("key", "aaa"),)) in read_samples(metrics.render())
        metrics.update_keys([KeyBudget("bbb")], metrics.list_keys())
        assert read_labels(metrics.render(), "key") == {"bbb", "team/web"}
        fill(metrics, ["aaa"], ["credit"])  # what ran when it was revoked
        metrics.update_keys([KeyBudget("bbb")], metrics.list_keys())
        assert read_labels(metrics.render(), "key") == {"bbb", "team/web"}

    def test_a_key_that_calls_first_while_keys_are_read_keeps_its_series(self) -> None:
        metrics = GatewayMetrics()
        fill(metrics, ["aaa"], ["credit"])
        asked = metrics.list_keys()
        fill(metrics, ["bbb"], ["credit"])
        metrics.update_keys([], asked)
        assert read_labels(metrics.render(), "key") == {"bbb"}

    def test_series_of_who_does_not_call_and_of_models_that_are_gone_end(self) -> None:
        now = 1000.0
        metrics = GatewayMetrics(lambda: now)
        fill(metrics, ["team/web"], ["credit", "debit"])
        now += IDLE_SECONDS / 2
        fill(metrics, ["team/app", "team/job"], ["credit", "debit"])
        for model in ("credit", "debit"):
            metrics.set_pods(model, 1)
        now += IDLE_SECONDS / 2 + 1
        metrics.forget_idle({"credit"})
        text = metrics.render()
        assert read_labels(text, "key") == {"team/app", "team/job"}
        assert (names.GATEWAY_PODS, (("model", "debit"),)) not in read_samples(text)
        assert (names.GATEWAY_PODS, (("model", "credit"),)) in read_samples(text)

    def test_a_place_that_is_free_again_is_given_to_another_caller(self) -> None:
        metrics = GatewayMetrics()
        fill(metrics, [f"{number:012}" for number in range(MOST_PAIRS)], ["credit"])
        metrics.update_keys([], metrics.list_keys())
        fill(metrics, ["newcomer0000"], ["credit"])
        assert read_labels(metrics.render(), "key") == {"newcomer0000"}


async def test_budgets_are_those_of_valid_keys(volume: Volume) -> None:
    async with volume.open() as store:
        ids = {name: await issue(store, name, budget) for name, budget in (("app", 100), ("old", 50), ("free", None))}
        expiring = KeySpec("late", limits=Limits(budget_tokens=7), expires_at=store.clock.read() + 60)
        late = (await create_key(store, ADMIN, expiring)).record.id
        await store.ledger.reserve("r1", make_caller(ids["app"], Limits(budget_tokens=100)), "credit", 30)
        await revoke_key(store, ADMIN, ids["old"])
        volume.time.advance(61)
        known = [*ids.values(), late, "gone00000000"]
        found = {budget.id: budget for budget in await read_key_budgets(store, known)}
        assert found == {ids["app"]: KeyBudget(ids["app"], 100, 70), ids["free"]: KeyBudget(ids["free"])}


async def issue(store: TenantStore, name: str, budget: int | None) -> str:
    return (await create_key(store, ADMIN, KeySpec(name, limits=Limits(budget_tokens=budget)))).record.id


def test_names_are_as_prometheus_wants_them_and_all_are_exported() -> None:
    metrics = GatewayMetrics()
    fill(metrics, ["aaa"], ["credit"])
    metrics.update_keys([KeyBudget("aaa", 2, 1)], metrics.list_keys())
    metrics.set_data_state(DataReason.FULL)
    metrics.set_settings_validity(True)
    metrics.set_pods("credit", 1)
    metrics.set_load("credit", 1, 1)
    metrics.count_unsettled()
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    for name, family in families.items():
        exported = f"{name}_total" if family.type == "counter" else name
        assert re.fullmatch(r"r1plus_gateway_[a-z_]+", exported)
        assert family.documentation
        if family.type in ("histogram", "summary"):
            assert exported.endswith("_seconds")
    contract = {value for name, value in vars(names).items() if name.startswith("GATEWAY_")} - {
        names.GATEWAY_READY,
        names.GATEWAY_READY_PODS,
    }
    assert {f"{name}_total" if f.type == "counter" else name for name, f in families.items()} == contract
    present = {dict(labels)["reason"] for (name, labels), value in read_samples(metrics.render()).items() if name == names.GATEWAY_DATA_STATE and value}  # fmt: skip
    assert present == {"VolumeFull"}


SECRETS = ("Tell me about Zanzibar", "Stockholm-answer", "jane@example.com", "Zanzibar web shop", "no-such-model")


@pytest.mark.unit_slow
async def test_no_text_of_anybody_is_in_the_metrics_and_a_keys_series_end_with_it(tmp_path: Path) -> None:
    async with serving(FakeTriton(answer("Stockholm-answer"))) as pod, running_process(tmp_path, pod) as gateway:
        spec = {"name": "Zanzibar web shop", "scopes": ["end-users"], "limits": {"budget_tokens": 1000}}
        key = await gateway.create_key(**spec)
        key_id = key.split("_")[1]
        headers = {"Authorization": f"Bearer {key}", "x-r1plus-end-user": "jane@example.com"}
        async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
            for model, expected in (("credit", 200), ("no-such-model", 404), ("credit:nonsense", 404)):
                body = {"model": model, "prompt": "Tell me about Zanzibar"}
                async with session.post("/v1/generate", json=body) as response:
                    assert response.status == expected

        async def read() -> str:
            return (await gateway.read_probe("/metrics"))[1]

        async def has_budget() -> bool:
            budget = f'{names.GATEWAY_BUDGET_LEFT_TOKENS}{{key="{key_id}"}} '
            return budget in await read()

        await eventually(has_budget, "its budget is exported")
        text = await read()
        assert f'key="{key_id}",model="credit",outcome="answered"' in text
        assert f'{names.GATEWAY_DATA_STATE}{{reason="Ready"}} 1.0' in text
        assert [secret for secret in (*SECRETS, key.split("_")[2], "nonsense") if secret in text] == []
        await gateway.call_admin("DELETE", f"/keys/{key_id}")

        async def is_gone() -> bool:
            return key_id not in await read()

        await eventually(is_gone, "the key's series are gone")
