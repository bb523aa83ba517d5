"""A tenant's gateway with the operator's queue, caches and writes: what wakes its pass, and what the pass reads."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY, LABEL_GATEWAY
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.rbac import TOKEN_ISSUER_URLS
from r1plus_operator.observe.caches import TENANT_NAME
from r1plus_operator.observe.pod_projection import project_pod
from r1plus_operator.observe.token_issuer import TokenIssuerPoller, read_issuer
from r1plus_operator.plan.observation import GatewayView, Json, TenantView, TokenIssuer
from r1plus_operator.runtime.errors import ApiServerError
from support.operator.tenant_rig import Rig
from support.plan.tenant_world import CONFIG
from support.plan.world import World
from support.tables import for_each

KEY, CREDIT = ("team", TENANT_NAME), ("team", "credit")
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
    rig.asked_for()
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
        assert rig.queue.depth == 0, "the going of its CR has asked for the pass already"

    async def test_no_deployment_of_a_tenant_without_one(self) -> None:
        rig = await make_rig(gateway={})
        add_model(rig)
        await rig.work()
        rig.reconciler.follow_deployment(CREDIT)
        assert rig.queue.depth == 0

    async def test_its_pod(self) -> None:
        rig = await make_rig()
        rig.pod("team", f"{GATEWAY}-1", LABELS)
        assert rig.asked_for() == [KEY]
        observation = rig.observer.observe_tenant("team")
        assert observation is not None
        assert [pod.name for pod in observation.gateway.pods] == [f"{GATEWAY}-1"]

    async def test_other_keys_of_the_cluster(self) -> None:
        rig = await make_rig()
        rig.label("other")
        rig.asked_for()
        rig.observer.store_token_issuer(ISSUER)
        assert rig.asked_for() == []
        rig.observer.store_token_issuer(TokenIssuer(ISSUER.issuer, '{"keys":[{"kid":"b"}]}'))
        assert rig.asked_for() == [KEY]


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
