"""A tenant's gateway with the operator's queue, caches and writes: what wakes its pass, and what the pass reads."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from r1plus_contract import metrics, names
from r1plus_contract.gateway import DATA_PATH, GATEWAY, LABEL_GATEWAY, DataReason, DataState
from r1plus_contract.jsonable import dumps
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.rbac import TOKEN_ISSUER_URLS
from r1plus_operator.observe.keys import DeploymentKey, TenantKey
from r1plus_operator.observe.monitors.monitor_poller import DATA_STATE_SECONDS, MonitorPoller
from r1plus_operator.observe.monitors.pooled_detectors import Pools
from r1plus_operator.observe.pod_projection import project_pod
from r1plus_operator.observe.token_issuer import TokenIssuerPoller, read_issuer
from r1plus_operator.plan.observation import GatewayView, Json, TenantView, TokenIssuer
from r1plus_operator.runtime.errors import ApiServerError
from support.http_server import serving
from support.operator.tenant_rig import Rig
from support.plan.tenant_world import CONFIG
from support.plan.world import World
from support.tables import for_each

KEY, CREDIT = TenantKey("team"), DeploymentKey("team", "credit")
ISSUER = TokenIssuer("https://issuer.example", '{"keys":[{"kid":"a"}]}')
LABELS = {names.LABEL_MANAGED_BY: names.MANAGED_BY, LABEL_GATEWAY: "true"}


def make_cr(**spec: Any) -> Json:
    meta = {"name": "credit", "namespace": "team", "uid": "u-1", "generation": 1, "resourceVersion": "5"}
    return {"metadata": meta, "spec": {"tier": "full", **spec}, "status": {}}


async def make_rig(gateway: Json | None = None) -> Rig:
    """Return a tenant with a gateway whose passes are done; the API server has told its issuer."""
    rig = Rig(replace(CONFIG, gateway_image="registry.local/gateway:1"))
    rig.label("team")
    rig.give("team", {"gateway": {"enabled": True} if gateway is None else gateway})
    rig.observer.store_token_issuer(ISSUER)
    await rig.work()
    rig.enqueued.take()
    return rig


def add_model(rig: Rig) -> None:
    """Let the deployment serve: its CR, its revision and its headless Service are known."""
    view = TenantView("True", Reason.ISOLATION_ENFORCED, "", gateway=GatewayView())
    world = World({"tier": "full"}, tenant=view)
    world.bring_up()
    rig.observer.ingest("ADDED", make_cr())
    for (kind, name), obj in world.children.items():
        if kind == "ControllerRevision" or name == "credit-pods":
            rig.say("ADDED", kind, obj)


class TestWhatWakesIt:
    """The tenant's pass is enqueued when the gateway must be told something."""

    async def test_a_deployment_that_serves_changes_or_goes(self) -> None:
        rig = await make_rig()
        add_model(rig)
        rig.reconciler.follow_deployment(CREDIT)
        assert await rig.work() >= 1
        rig.reconciler.follow_deployment(CREDIT)
        assert rig.queue.depth == 0, "nothing has changed since"
        rig.observer.ingest("MODIFIED", make_cr(access={"namespaces": ["shop"]}))
        await rig.work()
        rig.reconciler.follow_deployment(CREDIT)
        assert await rig.work() >= 1
        rig.observer.forget(CREDIT, "u-1")
        await rig.work()
        rig.reconciler.follow_deployment(CREDIT)
        assert await rig.work() >= 1
        rig.reconciler.follow_deployment(CREDIT)
        assert rig.queue.depth == 0, "the gateway has been told"

    async def test_no_deployment_of_a_tenant_without_one(self) -> None:
        rig = await make_rig(gateway={})
        add_model(rig)
        await rig.work()
        rig.reconciler.follow_deployment(CREDIT)
        assert rig.queue.depth == 0

    async def test_its_pod(self) -> None:
        rig = await make_rig()
        rig.pod("team", f"{GATEWAY}-1", LABELS)
        assert rig.enqueued.take() == [KEY]
        observation = rig.observer.observe_tenant("team")
        assert observation is not None
        assert [pod.name for pod in observation.gateway.pods] == [f"{GATEWAY}-1"]

    async def test_other_keys_of_the_cluster(self) -> None:
        rig = await make_rig()
        rig.label("other")
        rig.enqueued.take()
        rig.observer.store_token_issuer(ISSUER)
        assert rig.enqueued.take() == []
        rig.observer.store_token_issuer(TokenIssuer(ISSUER.issuer, '{"keys":[{"kid":"b"}]}'))
        assert rig.enqueued.take() == [KEY]


async def test_a_model_is_what_its_headless_service_selects() -> None:
    rig = await make_rig()
    add_model(rig)
    model = rig.observer.observe_model(CREDIT)
    assert model is not None
    assert model.host == "credit-pods.team.svc"
    service = rig.cluster.objects["Service", "team", "credit-pods"]
    foreign = {**service, "metadata": {**service["metadata"], "ownerReferences": []}}
    rig.say("MODIFIED", "Service", foreign)
    assert rig.observer.observe_model(CREDIT) is None, "a Service that is not the deployment's leads anywhere"


async def test_a_model_whose_revision_lost_its_mark_stays() -> None:
    rig = await make_rig()
    add_model(rig)
    model = rig.observer.observe_model(CREDIT)
    assert model is not None
    (revision,) = [obj for (kind, _, _), obj in rig.cluster.objects.items() if kind == "ControllerRevision"]
    rig.say("DELETED", "ControllerRevision", revision)
    assert rig.observer.observe_model(CREDIT) == model


async def test_a_container_that_somebody_added_is_taken_out() -> None:
    rig = await make_rig()
    live = rig.cluster.objects["Deployment", "team", GATEWAY]
    rig.say("ADDED", "Deployment", live)
    await rig.work()
    spec = live["spec"]["template"]["spec"]
    more = {**spec, "containers": [*spec["containers"], {"name": "sidecar", "image": "evil:1"}]}
    template = {**live["spec"]["template"], "spec": more}
    rig.say("MODIFIED", "Deployment", {**live, "spec": {**live["spec"], "template": template}})
    rig.cluster.log.clear()
    await rig.work()
    assert f"patch Deployment team/{GATEWAY}" in rig.cluster.log


SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"}


@for_each("conditions, expected", {
    "its node has not begun": ([], None),
    "its node mounts volumes": ([SCHEDULED, {"type": "PodReadyToStartContainers", "status": "False"}], 100.0),
    "they are mounted": ([SCHEDULED, {"type": "PodReadyToStartContainers", "status": "True"}], None),
    "it has no node": ([{"type": "PodReadyToStartContainers", "status": "False"}], None),
})  # fmt: skip
def test_a_pod_tells_since_when_it_waits_for_its_volumes(conditions: list[Json], expected: float | None) -> None:
    meta = {"name": "x", "namespace": "team", "uid": "1", "labels": LABELS}
    pod = project_pod({"metadata": meta, "spec": {}, "status": {"conditions": conditions}})
    assert pod is not None
    assert pod.is_gateway
    assert pod.facts.volumes_pending_since == expected


class FakeApi:
    """Says what a test says."""

    def __init__(self, **answers: Json) -> None:
        self.answers: dict[str, Json] = dict(zip(TOKEN_ISSUER_URLS, answers.values(), strict=True)) if answers else {}
        self.stored: list[TokenIssuer] = []

    async def read_path(self, path: str) -> Json:
        if path not in self.answers:
            raise ApiServerError(503, "ServiceUnavailable", "etcd is away")
        return self.answers[path]

    def store_token_issuer(self, issuer: TokenIssuer) -> None:
        self.stored.append(issuer)


async def test_issuer_and_keys_are_read_at_the_start() -> None:
    api = FakeApi(discovery={"issuer": "https://issuer.example"}, jwks={"keys": [{"kid": "a"}]})
    poller = TokenIssuerPoller(api, api, random.Random(1))
    task = asyncio.create_task(poller.run())
    await poller.first_round.wait()
    task.cancel()
    assert api.stored == [ISSUER]


async def test_a_failure_keeps_the_last_answer_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    poller = TokenIssuerPoller(api, api, random.Random(1))
    assert not await poller.poll()
    assert not await poller.poll()
    assert (api.stored, len(caplog.records)) == ([], 1)


@for_each("discovery, jwks, cause", {
    "no issuer": ({}, {"keys": [{}]}, "issuer: None"),
    "an issuer with a line end": ({"issuer": "a\nb"}, {"keys": [{}]}, "is not an issuer"),
    "no keys": ({"issuer": "a"}, {}, "keys: is empty"),
    "keys that fill a ConfigMap": ({"issuer": "a"}, {"keys": ["k" * 300_000]}, "exceed"),
})  # fmt: skip
def test_what_is_no_issuer_is_refused(discovery: Json, jwks: Json, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        read_issuer(discovery, jwks)


class Poll:
    """A gateway's pod with its internal port on loopback, polled by hand."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.text = ""
        """What it answers; empty: an error."""
        self.asked = 0

    async def answer(self, _: web.Request) -> web.Response:
        """Answer as a gateway's internal port does."""
        self.asked += 1
        return web.Response(text=self.text) if self.text else web.Response(status=503)

    def add_pod(self, ip: str = "127.0.0.1", **meta: Any) -> None:
        """Let the gateway have a pod."""
        owner = {"kind": "ReplicaSet", "name": f"{GATEWAY}-7d9f", "uid": "rs1", "controller": True}
        head = {"name": f"{GATEWAY}-1", "namespace": "team", "uid": "p1", "labels": LABELS, "ownerReferences": [owner]}
        self.rig.say("ADDED", "Pod", {"metadata": head | meta, "spec": {}, "status": {"podIP": ip}})
        self.rig.enqueued.take()

    async def once(self, says: str) -> DataState | None:
        """Poll while it answers this; return what a pass reads of it."""
        return (await self.at_times((says, 0.0)))[0]

    async def at_times(self, *answers: tuple[str, float]) -> list[DataState | None]:
        """Poll with one poller, while it answers this at that second; return what a pass reads of it each time."""
        pools, states, now = Pools(lambda: 0.0, lambda key, pool: None), [], 0.0
        async with serving(web.get(DATA_PATH, self.answer)) as url, aiohttp.ClientSession() as session:
            port, rand = int(url.rpartition(":")[2]), random.Random(1)
            poller = MonitorPoller(self.rig.observer, pools, 10.0, rand, 1, clock=lambda: now, gateway_port=port)
            for self.text, at in answers:
                now = at
                await poller.poll_all(session)
                observation = self.rig.observer.observe_tenant("team")
                assert observation is not None
                states.append(observation.gateway.data_states.get(f"{GATEWAY}-1"))
        return states


FULL = DataState(DataReason.FULL, "Enlarge the volume")


class TestWhatItReports:
    """The state of its data reaches the pass, and its condition the metrics."""

    async def test_a_state_is_read_once_and_wakes_the_tenant_when_it_changes(self) -> None:
        rig = await make_rig()
        rig.say("ADDED", "Deployment", rig.cluster.objects["Deployment", "team", GATEWAY])
        poll = Poll(rig)
        poll.add_pod()
        assert await poll.once(dumps(FULL)) == FULL
        assert rig.enqueued.take() == [KEY]
        assert await poll.once(dumps(FULL)) == FULL
        assert rig.enqueued.take() == []
        assert await poll.once("") is None, "one that does not answer reports nothing"
        assert rig.enqueued.take() == [KEY]
        await rig.work()
        assert rig.registry.get_sample_value(metrics.GATEWAY_READY, {"namespace": "team"}) == 0

    async def test_an_answer_that_is_missing_changes_nothing_for_a_minute(self) -> None:
        rig = await make_rig()
        rig.say("ADDED", "Deployment", rig.cluster.objects["Deployment", "team", GATEWAY])
        poll = Poll(rig)
        poll.add_pod()
        states = await poll.at_times((dumps(FULL), 0.0), ("", DATA_STATE_SECONDS - 1), ("", DATA_STATE_SECONDS))
        assert states == [FULL, FULL, None]

    @for_each("answer", {
        "no JSON": "<html>",
        "an unknown reason": '{"reason": "Odd", "message": ""}',
        "a document without end": '{"reason": "' + "x" * 100_000 + '"}',
        "a list": "[]",
    })  # fmt: skip
    async def test_nonsense_is_no_report(self, answer: str) -> None:
        rig = await make_rig()
        rig.say("ADDED", "Deployment", rig.cluster.objects["Deployment", "team", GATEWAY])
        poll = Poll(rig)
        poll.add_pod()
        assert await poll.once(answer) is None
        assert poll.asked == 1

    @for_each("meta, asked", {
        "the gateway's own": ({}, 1),
        "nobody's": ({"ownerReferences": []}, 0),
        "another ReplicaSet's": ({"ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d9f", "uid": "x", "controller": True}]}, 0),
        "a deployment's as well": ({"labels": LABELS | {names.LABEL_DEPLOYMENT: "credit"}}, 0),
        "of a namespace without a gateway": ({"namespace": "other"}, 0),
    })  # fmt: skip
    async def test_a_pod_that_only_has_the_label_is_not_asked(self, meta: Json, asked: int) -> None:
        rig = await make_rig()
        rig.say("ADDED", "Deployment", rig.cluster.objects["Deployment", "team", GATEWAY])
        poll = Poll(rig)
        poll.add_pod(**meta)
        assert await poll.once(dumps(FULL)) == (FULL if asked else None)
        assert poll.asked == asked

    async def test_the_metrics_go_with_the_gateway(self) -> None:
        rig = await make_rig()
        assert rig.registry.get_sample_value(metrics.GATEWAY_READY, {"namespace": "team"}) == 0
        assert rig.registry.get_sample_value(metrics.GATEWAY_READY_PODS, {"namespace": "team"}) == 0
        rig.pod("team", f"{GATEWAY}-1", LABELS)
        await rig.work()
        assert rig.registry.get_sample_value(metrics.GATEWAY_READY_PODS, {"namespace": "team"}) == 1
        rig.give("team", {"gateway": {"enabled": False}})
        await rig.work()
        assert rig.registry.get_sample_value(metrics.GATEWAY_READY, {"namespace": "team"}) is None
        assert rig.registry.get_sample_value(metrics.GATEWAY_READY_PODS, {"namespace": "team"}) is None
