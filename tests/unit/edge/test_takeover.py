"""The first minutes of software that takes over: whom it answers, and when it gives way to what served before."""

import json
import socket
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1plus_contract.verdict import Gate, GateProgress, MonitorReport, Phase, Verdict
from r1plus_edge.bundle.install import CURRENT
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.update.handover import Handover, HandoverKind
from r1plus_edge.update.takeover import MOST_SECONDS, TakeOver
from r1plus_edge.update.trial import adopt_trial
from r1plus_edge.world import World
from support.plan.world import CONFIG, NODE, serve_world

STATUS = {"revision": "edge-1", "engine": "q4", "verdict": "Pass", "accuracy": "32/32"}


WORLD = World((), {}, NODE, CONFIG, {}, {})
REFUSAL = {"type": "CapacityFits", "status": "False", "reason": "NoNodeFits", "message": "it takes 3 GiB"}


def make_controller(
    root: Path,
    *,
    is_ready: bool = False,
    has_pod: bool = True,
    report: MonitorReport | None = None,
    gate: Gate = Gate.ENFORCE,
) -> Any:
    """Make what a take-over sees of a controller: one pod, and what its monitor reports."""
    pod = SimpleNamespace(name="edge-1", is_terminating=False, containers=())
    return SimpleNamespace(
        folder=DataFolder(root),
        objects=SimpleNamespace(deployment={"status": STATUS | {"conditions": [REFUSAL]}}),
        world=WORLD,
        serving_pod=pod if is_ready else None,
        list_pods=lambda: [pod] if has_pod else [],
        reports={pod.name: report} if report else {},
        request=SimpleNamespace(spec=SimpleNamespace(accuracy=SimpleNamespace(gate=gate))),
    )


def make_report(phase: Phase, verdict: Verdict, message: str, **about: Any) -> MonitorReport:
    return MonitorReport("edge-1", "identity", phase, verdict, "SomeReason", message, **about)


def make_takeover(root: Path, kind: HandoverKind, answer: socket.socket | None = None) -> TakeOver:
    own = root / "software/new"
    own.mkdir(parents=True)
    handover = Handover(kind, problem="it was lame", asker=answer.detach() if answer else 0)
    return TakeOver(handover, clock=iter((0.0, MOST_SECONDS, MOST_SECONDS + 1)).__next__, own=own)


ANSWERS = {HandoverKind.FORWARD: "InForce", HandoverKind.BACK: "Refused"}


@pytest.mark.parametrize(("kind", "answer"), ANSWERS.items(), ids=ANSWERS)
def test_once_it_serves_who_asked_hears_so_and_the_next_start_runs_the_new_one(
    tmp_path: Path, kind: HandoverKind, answer: str
) -> None:
    own, asker = socket.socketpair()
    takeover = make_takeover(tmp_path, kind, own)
    folder = DataFolder(tmp_path)
    for part in (folder, folder.trial):
        part.root.mkdir(exist_ok=True)
        part.objects.write_text("{}")
    adopt_trial(folder, own=str(takeover.own))
    controller = make_controller(tmp_path, is_ready=True)
    assert takeover.notice_pass(controller, is_serving=False) is None
    assert takeover.may_listen.is_set()
    assert takeover.notice_pass(controller, is_serving=True) is not None
    with asker, asker.makefile() as lines:
        assert json.loads(lines.readline())["kind"] == answer
    is_new = kind is HandoverKind.FORWARD
    assert (tmp_path / "software" / CURRENT).exists() is is_new
    assert sorted(one.name for one in folder.former.root.iterdir()) == ["objects.json", *["taking-over"] * (not is_new)]
    assert takeover.notice_pass(controller, is_serving=False) is None, "it is decided"


def has_readmitted(world: World) -> bool:
    """Whether the plan lets in place a pod in that fails its short check, in this world."""
    planned = serve_world(rollout={"strategy": "InPlace"})
    planned.config = world.config
    planned.settle()
    return planned.monitor_settings().restored != ""


@pytest.mark.parametrize("kind", ANSWERS)
def test_in_place_it_lets_in_what_fails_its_short_check_only_where_nothing_else_can_serve(
    tmp_path: Path, kind: HandoverKind
) -> None:
    takeover, controller = make_takeover(tmp_path, kind), make_controller(tmp_path, is_ready=True)
    controller.world = takeover.restrict(WORLD)
    assert has_readmitted(controller.world) is (kind is HandoverKind.BACK)
    takeover.notice_pass(controller, is_serving=False)
    assert has_readmitted(controller.world) is (kind is HandoverKind.BACK), "it does not serve yet"
    takeover.notice_pass(controller, is_serving=True)
    assert has_readmitted(controller.world), "from then on it is the one that serves"


def test_after_ten_minutes_it_gives_way(tmp_path: Path) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.FORWARD), make_controller(tmp_path)
    assert takeover.notice_pass(controller, is_serving=False) is None
    with pytest.raises(EdgeError, match="it does not serve after 10 min"):
        takeover.notice_pass(controller, is_serving=False)
    assert not takeover.may_listen.is_set(), "callers wait for what served before"


GATING = make_report(Phase.GATING, Verdict.NO_DATA, "asked 3 of 32", progress=GateProgress(3, 32, ""))
CHECKING = replace(GATING, progress=GateProgress(3, 7, "", is_short_check=True))
BLOCKED = make_report(Phase.BLOCKED, Verdict.NO_DATA, "the suite is gone")
REPORTS: dict[str, tuple[MonitorReport, str]] = {
    "its monitor cannot score": (BLOCKED, "cannot check the engine: SomeReason: the suite is gone"),
    "its short check failed, and a whole gate follows": (GATING, "answers otherwise than in its trial"),
    "that gate has no result": (make_report(Phase.GATING, Verdict.INCONCLUSIVE, ""), "answers otherwise"),
    "it failed the gate": (
        make_report(Phase.WATCHING, Verdict.FAIL, "lost 9 of 32"),
        "has failed the gate: SomeReason: lost 9 of 32",
    ),
    "its model is loaded": (make_report(Phase.WAITING_FOR_MODEL, Verdict.NO_DATA, ""), ""),
    "its short check goes on": (CHECKING, ""),
    "it is admitted before its gate, as Observe has it": (replace(GATING, admitted=True), ""),
    "it passed": (make_report(Phase.WATCHING, Verdict.PASS, "", admitted=True), ""),
}


@pytest.mark.parametrize(("report", "problem"), REPORTS.values(), ids=REPORTS)
def test_it_gives_way_as_soon_as_its_monitor_does_not_admit_it(
    tmp_path: Path, report: MonitorReport, problem: str
) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.FORWARD), make_controller(tmp_path, report=report)
    with pytest.raises(EdgeError, match=problem) if problem else nullcontext():
        assert takeover.notice_pass(controller, is_serving=False) is None
    assert not takeover.may_listen.is_set()


def test_with_observe_a_monitor_that_cannot_score_admits_its_engine_once_it_is_loaded(tmp_path: Path) -> None:
    takeover = make_takeover(tmp_path, HandoverKind.FORWARD)
    controller = make_controller(tmp_path, report=BLOCKED, gate=Gate.OBSERVE)
    assert takeover.notice_pass(controller, is_serving=False) is None


def test_it_gives_way_where_the_plan_starts_nothing(tmp_path: Path) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.FORWARD), make_controller(tmp_path, has_pod=False)
    with pytest.raises(EdgeError, match="the plan starts nothing: CapacityFits: NoNodeFits: it takes 3 GiB"):
        takeover.notice_pass(controller, is_serving=False)


def test_what_has_come_back_and_is_refused_lets_callers_hear_at_once_that_nothing_serves(tmp_path: Path) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.BACK), make_controller(tmp_path, report=BLOCKED)
    assert takeover.notice_pass(controller, is_serving=False) is None
    assert takeover.may_listen.is_set()


def test_what_has_come_back_lets_callers_hear_after_ten_minutes_that_nothing_serves(tmp_path: Path) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.BACK), make_controller(tmp_path)
    for is_heard in (False, True):
        assert takeover.notice_pass(controller, is_serving=False) is None
        assert takeover.may_listen.is_set() is is_heard
