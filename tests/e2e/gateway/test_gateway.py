"""What happens to clients of a tenant's gateway that ask all the time: through promotion, rollback, kills and removal.

`make e2e STORY=gateway`. The tests run in this order on one tenant; the last two change where its gateway keeps its data.
"""

import time

import openai
import pytest

from e2e import gateways, story
from e2e.asking import Asker
from e2e.command_line import run_r1plus
from e2e.gateway.conftest import BAKE_SECONDS, MODEL, NAMESPACE, ServedTenant
from e2e.gateway.postgresql import PostgreSql
from e2e.gateways import ApiKey
from e2e.inside import Caller
from e2e.kube import Kube
from e2e.parts import Parts
from e2e.waiting import wait_for
from r1plus_contract.gateway import (
    ANNOTATION_DIRECT_ACCESS,
    GATEWAY,
    GATEWAY_ADMIN,
    GATEWAY_KEY,
    GATEWAY_SERVICE,
    PORT_API,
    name_pods_service,
)
from r1plus_contract.names import PORT_GRPC

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(3600)]

PATIENT = 12
"""Tries by which OpenAI's client waits a minute."""


def test_promotion_and_rollback_fail_no_request(served: ServedTenant, url: str, key: ApiKey) -> None:
    kube, name = served.kube, served.name
    served.until_answers(url, key)
    first = story.serving_revision(kube, name)
    with served.asker(url, key) as short, served.stream_asker(url, key) as long:
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > BAKE_SECONDS + 2, "the first revision can be gone back to")
        served.tenant.change(name, context={"maxTokens": 1000})
        second = wait_for(lambda: _other_revision(kube, served, first), "traffic moves", served.tenant.evidence(name))
        wait_for(lambda: short.newest.revision == second, f"answers name {second}", short.summary)
        run_r1plus(kube, "rollback", MODEL, "-n", NAMESPACE, "--reason", "a test")
        wait_for(lambda: short.newest.revision == first, f"answers name {first} again", short.summary)
        long.more_answers(1)
    print(f"short answers: {short.summary()}\nstreams: {long.summary()}")
    assert short.failures == []
    assert long.failures == []
    assert short.revisions | long.revisions <= {first, second, ""}
    assert {evidence.verdict for evidence in short.evidence} <= {"Pass", "unverified"}


KILLS: dict[str, tuple[str, ...]] = {"deleted": (), "killed": ("--grace-period=0", "--force")}


@pytest.mark.parametrize("words", KILLS.values(), ids=KILLS)
def test_a_client_that_tries_again_does_not_notice_that_the_only_pod_was(
    served: ServedTenant, url: str, key: ApiKey, words: tuple[str, ...]
) -> None:
    kube = served.kube
    served.until_answers(url, key)
    (pod,) = gateways.gateway_pods(kube, NAMESPACE)
    used = gateways.read_usage(kube, NAMESPACE)
    with served.asker(url, key, retries=PATIENT) as patient, served.asker(url, key) as impatient:
        impatient.more_answers()
        began = time.monotonic()
        kube.kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=false", *words)
        served.until_ready_pods(1, without=pod["metadata"]["uid"])
        impatient.more_answers()
        gap = time.monotonic() - began
        patient.more_answers()
    print(f"answers again {gap:.0f} s after; {patient.summary()}; without tries: {impatient.summary()}")
    assert patient.failures == []
    served.until_ready()
    assert sum(gateways.read_usage(kube, NAMESPACE).values()) > sum(used.values())
    assert "records are whole" in run_r1plus(kube, "audit", "-n", NAMESPACE).stdout


def test_direct_access_is_closed_and_opened_and_the_gateway_answers_meanwhile(
    served: ServedTenant, url: str, key: ApiKey, built: Parts
) -> None:
    caller = Caller(served.kube, NAMESPACE, built.refs["monitor"])

    model = served.kube.get("pods", NAMESPACE, story.until_pod(served.kube, served.name))
    (gateway,) = gateways.gateway_pods(served.kube, NAMESPACE)
    assert model is not None
    to_model, to_gateway = (model["status"]["podIP"], PORT_GRPC), (gateway["status"]["podIP"], PORT_API)
    served.until_answers(url, key)
    with served.asker(url, key) as asker:
        assert caller.outcome(caller.start(*to_model)) == "connected"
        served.configure(enabled=True, directAccess=False)
        wait_for(lambda: _is_closed(served.kube), "direct access is closed")
        assert caller.outcome(caller.start(*to_model, control=to_gateway)) == "shut out"
        served.configure(enabled=True)
        wait_for(lambda: not _is_closed(served.kube), "direct access is open")
        assert caller.outcome(caller.start(*to_model)) == "connected"
    assert asker.failures == []


GONE = (
    ("deployments", GATEWAY),
    ("services", GATEWAY_SERVICE),
    ("services", name_pods_service(MODEL)),
    ("configmaps", GATEWAY),
    ("networkpolicies", GATEWAY),
    ("podmonitors", GATEWAY),
)
KEPT = (
    ("persistentvolumeclaims", GATEWAY),
    ("secrets", GATEWAY_KEY),
    ("services", MODEL),
    ("serviceaccounts", GATEWAY),
    ("serviceaccounts", GATEWAY_ADMIN),
)
"""The model's Service, the data, and accounts that may do nothing."""


def test_switched_off_all_goes_but_its_data_and_switched_on_again_old_keys_work(
    served: ServedTenant, key: ApiKey
) -> None:
    kube = served.kube
    assert _list_existing(kube, *GONE, *KEPT) == [*GONE, *KEPT]
    served.configure(enabled=False)
    disabled = gateways.until_condition(
        kube, NAMESPACE, "the gateway is switched off", lambda one: bool(one["reason"] == "Disabled"), print
    )
    wait_for(lambda: not _list_existing(kube, *GONE), "all goes", lambda: str(_list_existing(kube, *GONE)))
    wait_for(lambda: not gateways.gateway_pods(kube, NAMESPACE), "its pod goes")
    assert _list_existing(kube, *KEPT) == [*KEPT]
    assert GATEWAY_KEY in disabled["message"]
    with served.target.reach(NAMESPACE, MODEL, PORT_GRPC) as address, Asker(address) as direct:
        direct.more_answers(1)
    assert direct.failures == []

    served.configure(enabled=True)
    served.until_ready()
    with gateways.reach(served.target, NAMESPACE) as url:
        served.until_answers(url, key)


def test_two_pods_on_postgresql_fail_no_request_when_either_goes(served: ServedTenant, database: PostgreSql) -> None:
    kube = served.kube
    served.configure_shared(database, "t_8f3a")
    served.until_ready()
    key = gateways.create_key(kube, NAMESPACE, "clients")
    with gateways.reach(served.target, NAMESPACE) as url:
        served.until_answers(url, key)
        # By default OpenAI's client tries a request three times.
        with (
            served.asker(url, key, retries=2) as short,
            served.stream_asker(url, key, retries=2) as long,
        ):
            for pod in gateways.gateway_pods(kube, NAMESPACE):
                short.more_answers()
                gateways.evict(kube, NAMESPACE, pod["metadata"]["name"])
                served.until_ready_pods(2, without=pod["metadata"]["uid"])
                short.more_answers()
                long.more_answers(1)
    print(f"short answers: {short.summary()}\nstreams: {long.summary()}")
    assert short.failures == []
    assert long.failures == []
    assert "records are whole" in run_r1plus(kube, "audit", "-n", NAMESPACE).stdout


def test_two_pods_never_exceed_one_budget(served: ServedTenant) -> None:
    budget = 400
    key = gateways.create_key(served.kube, NAMESPACE, "small", "--budget", str(budget))
    with gateways.reach(served.target, NAMESPACE) as url:
        askers = [served.asker(url, key, pause_s=0.0) for _ in range(6)]
        for asker in askers:
            asker.start()
        wait_for(lambda: all(asker.failures for asker in askers), "the budget is used up")
        for asker in askers:
            asker.stop()
        with gateways.open_client(url, key.secret) as client, pytest.raises(openai.RateLimitError):
            gateways.ask(client, MODEL)
    used = gateways.read_usage(served.kube, NAMESPACE)[key.id]
    print(f"{used} of {budget} tokens used; {[asker.answered for asker in askers]} answers")
    assert 0 < used <= budget


def _other_revision(kube: Kube, served: ServedTenant, first: str) -> str | None:
    revision = story.serving_revision(kube, served.name)
    return revision if revision != first else None


def _is_closed(kube: Kube) -> bool:
    """Whether the model's network policy lets in the gateway alone."""
    policy = kube.get("networkpolicies", NAMESPACE, GATEWAY) or {}
    return ANNOTATION_DIRECT_ACCESS in (policy.get("metadata", {}).get("annotations") or {})


def _list_existing(kube: Kube, *names: tuple[str, str]) -> list[tuple[str, str]]:
    return [(plural, name) for plural, name in names if kube.get(plural, NAMESPACE, name) is not None]
