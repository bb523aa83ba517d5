"""How a plan is carried out: in which order, with which proof, and what a refusal leads to."""

from typing import Any

import pytest

from r1plus_operator.controllers.applier import Applier, OwnerGoneError
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import Json
from r1plus_operator.runtime.errors import ApiError, ConflictError, InvalidError, NotFoundError
from support.operator.writes import Server

STATUS = {"suite": "s"}


def child(kind: str, **meta: str) -> Json:
    return {"kind": kind, "metadata": {"name": "c", "namespace": "t", **meta}}


NEW, SEEN = child("Service"), child("Service", uid="s")
TOLD = "R1PlusDeployment/status credit"
GONE = ("Deployment", "old", "u-old")
STRAY = ("Service", "c", ({"op": "remove", "path": "/spec/ports/1"},))


@pytest.mark.parametrize(
    ("plan", "before", "log"),
    [
        (Plan(status=STATUS), STATUS, []),
        (Plan(status=STATUS), {}, [TOLD]),
        (Plan(apply=((NEW,),), status=STATUS), STATUS, [TOLD, "Service c"]),
        (Plan(apply=((SEEN,),), status=STATUS), STATUS, ["Service c"]),
        (Plan(delete=(GONE,), status=STATUS), STATUS, ["delete Deployment old u-old"]),
        (
            Plan(delete=(GONE,), cut=(("old-1", "u-1"),), status=STATUS),
            STATUS,
            ["delete Deployment old u-old", "delete Pod old-1 u-1 within 45 s"],
        ),
        (
            Plan(((STRAY),), ((SEEN, child("ConfigMap", uid="m")), (NEW,)), (GONE,), STATUS, (Event("Promoted", "m", "now"),)),
            {},
            [TOLD, "patch Service c", "Service c", "ConfigMap c", "Service c", "delete Deployment old u-old", "Event Promoted"],
        ),
        (
            Plan(apply=((SEEN,),), delete=(GONE,), status=STATUS, moves_traffic=True),
            {"suite": "before"},
            ["Service c", TOLD, "delete Deployment old u-old"],
        ),
        (Plan(apply=((NEW,),), status=STATUS, moves_traffic=True), {"suite": "before"}, [TOLD, "Service c", TOLD]),
        (Plan(apply=((NEW,),), status=STATUS, moves_traffic=True), {}, [TOLD, "Service c"]),
    ],
    ids=[
        "what is so already is not written",
        "a new status is",
        "before a child can come into being the status proves that its owner is there",
        "a child that is only repaired needs no proof",
        "nor does a deletion",
        "pods are cut after their Deployment, which would replace them",
        "status, what others put in the way, stages, deletions, news",
        "a promotion is in the status once the Service has it",
        "before a child can come into being the former status proves that its owner is there",
        "a first status is the proof itself",
    ],
)  # fmt: skip
async def test_the_order_of_writes(plan: Plan, before: Json, log: list[str]) -> None:
    server = Server()
    await server.run(plan, **before)
    assert server.log == log


async def test_a_promotion_that_the_service_did_not_get_is_not_in_the_status() -> None:
    server = Server(Service=InvalidError(422, "Invalid", ""))
    with pytest.raises(InvalidError):
        await server.run(Plan(apply=((SEEN,),), status=STATUS, moves_traffic=True), suite="before")
    assert server.log == ["Service c"]


async def test_what_was_written_is_learned() -> None:
    server = Server()
    await server.run(Plan(apply=((NEW,),), delete=(GONE,), status=STATUS))
    assert server.learned == [f"status of u: {STATUS}", "Service c", "Deployment t/old is gone"]


@pytest.mark.parametrize("error", [NotFoundError(404, "NotFound", ""), ConflictError(409, "Conflict", "")])
async def test_no_child_is_made_for_an_owner_that_is_gone(error: ApiError) -> None:
    server = Server(R1PlusDeployment_status=error)
    with pytest.raises(OwnerGoneError):
        await server.run(Plan(apply=((NEW,),), status=STATUS))
    assert server.log == [TOLD]


async def test_after_a_refused_stage_no_other_begins() -> None:
    server = Server(ConfigMap=InvalidError(422, "Invalid", "no"))
    plan = Plan(apply=((child("ConfigMap"), NEW), (child("Deployment"),)), status=STATUS)
    with pytest.raises(InvalidError):
        await server.run(plan)
    assert server.log == [TOLD, "ConfigMap c", "Service c"]


async def test_a_child_that_is_another_by_now_fails_the_pass() -> None:
    server = Server(Service=ConflictError(409, "Conflict", "uid"))
    with pytest.raises(ConflictError):
        await server.run(Plan(apply=((SEEN,),)))
    assert server.learned == []


async def test_what_cannot_be_taken_out_does_not_keep_ours_from_being_applied() -> None:
    server = Server(patch_Service=InvalidError(422, "Invalid", "it has changed"))
    await server.run(Plan(clear=(STRAY,), apply=((SEEN,),)))
    assert server.log == ["patch Service c", "Service c"]


OUT = ("bad", ({"op": "test", "path": "/metadata/uid", "value": "u"},))


async def test_a_bad_pod_is_out_of_traffic_before_anything_else_is_written() -> None:
    server = Server()
    told = (Event("PodQuarantined", "m", "now", pod="bad"),)
    out = await server.run(Plan(relabel=(OUT,), apply=((NEW,),), status=STATUS, notes=told))
    assert server.log == [TOLD, "patch Pod bad", "Service c", "Event PodQuarantined"]
    assert out == {"bad"}


@pytest.mark.parametrize("error", [NotFoundError(404, "NotFound", ""), InvalidError(422, "Invalid", "test failed")])
async def test_a_pod_that_is_another_by_now_is_left_to_the_next_pass(error: ApiError) -> None:
    server = Server(patch_Pod=error)
    told = (Event("PodQuarantined", "m", "now", pod="bad"), Event("Promoted", "m", "now"))
    out = await server.run(Plan(relabel=(OUT,), apply=((SEEN,),), notes=told))
    assert server.log == ["patch Pod bad", "Service c", "Event Promoted"]
    assert out == frozenset(), "whoever took it out has told it and counted it"


async def test_a_deletion_of_what_is_gone_already_is_done() -> None:
    server = Server(delete_Deployment=NotFoundError(404, "NotFound", ""))
    await server.run(Plan(delete=(GONE,)))
    assert server.learned == ["Deployment t/old is gone"]


async def test_news_that_is_lost_fails_nothing() -> None:
    server = Server(Event=ApiError(500, "InternalError", ""))
    await server.run(Plan(notes=(Event("Promoted", "m", "now"),)))
    assert server.log == ["Event Promoted"]


async def test_no_event_is_written_in_a_namespace_that_is_terminating() -> None:
    server = Server()
    server.is_terminating = True
    plan = Plan(apply=((SEEN,),), notes=(Event("Promoted", "m", "now"), Event("RolledBack", "m", "now")))
    await server.run(plan)
    assert server.log == ["Service c"]


def test_the_fake_is_a_writer_and_a_learner() -> None:
    server: Any = Server()
    assert Applier(server, server)
