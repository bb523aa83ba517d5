"""What came of an update, as the plan says it: in force, taken back, or on its way."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1plus_contract.verdict import Verdict
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.report import LineNarrator, Reporter
from r1plus_edge.update.request import UpdateRecord, UpdateRequest
from r1plus_edge.update.updater import Updater, _suspend, judge
from r1plus_edge.world import Installation
from support.plan.falls import rolled_back
from support.plan.world import NEXT, World, serve_world


def begin_gate(world: World) -> str:
    candidate = world.apply(**NEXT)
    world.start_pods(candidate).settle()
    return candidate


def gating() -> World:
    world = serve_world()
    begin_gate(world)
    return world


def not_seen_yet() -> World:
    return serve_world().change(**NEXT)


def fail() -> World:
    world = serve_world()
    world.gate(begin_gate(world), Verdict.FAIL, lost=3).settle()
    return world


def expire() -> World:
    world = gating()
    world.wait(3700.0).settle()
    return world


def take_over() -> World:
    world = serve_world()
    world.apply(**NEXT)
    world.bring_up()
    return world


def change_nothing() -> World:
    world = serve_world()
    world.apply(rollout={"drain": "5m"})
    return world


def ask_for_what_was_rolled_back() -> World:
    return rolled_back()[0]


def ask_for_what_is_not_there() -> World:
    world = serve_world()
    world.change(engine={"version": "9.9.9"}).settle()
    return world


RESULTS: dict[str, tuple[Callable[[], World], bool | None, str]] = {
    "no pass has seen it": (not_seen_yet, None, ""),
    "it is being gated": (gating, None, ""),
    "it failed its gate": (fail, False, "lost 3 of 4 items"),
    "it was not promoted in time": (expire, False, "DeadlineExceeded"),
    "it takes traffic": (take_over, True, "Pass, "),
    "it asks for what serves": (change_nothing, True, "Pass, "),
    "its accuracy had dropped before": (ask_for_what_was_rolled_back, False, "RolledBack"),
    "no such engine": (ask_for_what_is_not_there, False, "EngineNotFound"),
}


def deployment_of(world: World) -> dict[str, Any]:
    return {"metadata": {"generation": world.generation}, "status": world.status}


def judge_world(world: World, **about: Any) -> Any:
    return judge(deployment_of(world), {one.name: one for one in world.revisions()}, **about)


@pytest.mark.parametrize(("make", "is_in_force", "words"), RESULTS.values(), ids=RESULTS)
def test_an_update_is_what_the_plan_makes_of_it(
    make: Callable[[], World], is_in_force: bool | None, words: str
) -> None:
    world = make()
    result = judge_world(world)
    assert (result and result.is_in_force) == is_in_force
    if result is not None:
        assert words in result.text
        assert f"{world.selected()} (" in result.text


def test_a_candidate_that_ends_again_and_again_is_taken_back_with_its_last_words() -> None:
    result = judge_world(gating(), failing="triton ended with status 1, 3 times in a row")
    assert not result.is_in_force
    assert "triton ended with status 1" in result.text


def test_an_update_that_nothing_has_measured_yet_says_no_count() -> None:
    world = take_over()
    status = {name: value for name, value in world.status.items() if name not in ("verdict", "accuracy")}
    result = judge(deployment_of(world) | {"status": status}, {one.name: one for one in world.revisions()})
    assert result is not None
    assert result.text == f"No verdict, {world.selected()} ({world.status['engine']}) serves"


def test_an_update_in_place_has_not_arrived_before_its_pod_is_ready() -> None:
    assert judge_world(take_over(), is_up=False) is None


def test_file_and_suite_in_force_stay_by_whatever_path_its_asker_has_named_the_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.requests.mkdir(parents=True)
    for name in ("now", "before"):
        (folder.requests / f"{name}.yaml").touch()
        (folder.requests / name / "part-v1").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder.root)
    named = DataFolder(tmp_path / "link").requests
    record = UpdateRecord("", UpdateRequest(file=str(named / "now.yaml"), suite=str(named / "now" / "part-v1")))
    nothing: Any = None
    installation = Installation(folder, nothing, nothing)
    Updater(nothing, installation, nothing, record, nothing)._remove_other_files()
    assert sorted(one.name for one in folder.requests.iterdir()) == ["now", "now.yaml"]


class Asker(LineNarrator):
    descriptor = 0


def make_updater(tmp_path: Path, **about: Any) -> Updater:
    nothing: Any = None
    folder = DataFolder(tmp_path)
    reporter = Reporter(folder.status, LineNarrator())
    return Updater(nothing, Installation(folder, nothing, nothing), nothing, UpdateRecord(""), reporter, **about)


async def test_a_second_update_meanwhile_is_refused(tmp_path: Path) -> None:
    result = await make_updater(tmp_path, is_busy=True).run(UpdateRequest(engine="q8"), Asker())
    assert (result.is_in_force, "Another update is under way" in result.text) == (False, True)


async def test_an_update_that_the_disk_has_no_room_for_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "requests").touch()  # No folder can be there, as on a full disk.
    updater = make_updater(tmp_path)
    result = await updater.run(UpdateRequest(text="kind: R1PlusDeployment"), Asker())
    assert (result.is_in_force, "File exists" in result.text) == (False, True)
    assert (updater.is_busy, updater.record) == (False, UpdateRecord(""))


async def test_software_that_is_no_slot_is_refused(tmp_path: Path) -> None:
    result = await make_updater(tmp_path / "data").run(UpdateRequest(software=str(tmp_path)), Asker())
    assert (result.is_in_force, "no bundle was installed there to its end" in result.text) == (False, True)


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError], ids=["an error of ours", "cancelled"])
def test_what_was_stopped_for_a_trial_serves_again_however_that_ends(error: type[BaseException]) -> None:
    controller: Any = SimpleNamespace(is_suspended=False, wake=asyncio.Event())
    with pytest.raises(error), _suspend(controller, is_needed=True):
        assert controller.is_suspended
        controller.wake.clear()
        raise error
    assert (controller.is_suspended, controller.wake.is_set()) == (False, True)
