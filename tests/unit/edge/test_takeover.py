"""The first minutes of software that takes over: whom it answers, and when it gives way to what served before."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1plus_edge.bundle_install import CURRENT
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.handover import Handover, HandoverKind
from r1plus_edge.takeover import MOST_SECONDS, TakeOver
from r1plus_edge.trial import adopt_trial

STATUS = {"revision": "edge-1", "engine": "q4", "verdict": "Pass", "accuracy": "32/32"}


def make_controller(root: Path, *, has_pod: bool = False) -> Any:
    """Make what a take-over sees of a controller."""
    objects = SimpleNamespace(deployment={"status": STATUS})
    pod = object() if has_pod else None
    return SimpleNamespace(folder=DataFolder(root), objects=objects, serving_pod=pod, list_pods=list)


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
    controller = make_controller(tmp_path, has_pod=True)
    assert takeover.notice_pass(controller, is_serving=False) is None
    assert takeover.may_listen.is_set()
    assert takeover.notice_pass(controller, is_serving=True) is not None
    with asker, asker.makefile() as lines:
        assert json.loads(lines.readline())["kind"] == answer
    is_new = kind is HandoverKind.FORWARD
    assert (tmp_path / "software" / CURRENT).exists() is is_new
    assert sorted(one.name for one in folder.former.root.iterdir()) == ["objects.json", *["taking-over"] * (not is_new)]
    assert takeover.notice_pass(controller, is_serving=False) is None, "it is decided"


def test_after_ten_minutes_it_gives_way(tmp_path: Path) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.FORWARD), make_controller(tmp_path)
    assert takeover.notice_pass(controller, is_serving=False) is None
    with pytest.raises(EdgeError, match="it does not serve after 10 min"):
        takeover.notice_pass(controller, is_serving=False)
    assert not takeover.may_listen.is_set(), "callers wait for what served before"


def test_what_has_come_back_lets_callers_hear_after_ten_minutes_that_nothing_serves(tmp_path: Path) -> None:
    takeover, controller = make_takeover(tmp_path, HandoverKind.BACK), make_controller(tmp_path)
    for is_heard in (False, True):
        assert takeover.notice_pass(controller, is_serving=False) is None
        assert takeover.may_listen.is_set() is is_heard
