"""Updates on record: what the next start serves by, whatever the crash that ended the last one."""

from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_edge.update import UpdateRecord, UpdateRequest, load_record, save_record, settle_interrupted
from support.plan.world import NEXT, serve_world

ENGINE, FILE = UpdateRequest(engine="q8"), UpdateRequest(file="/data/requests/1.yaml")
CANDIDATE = "the name that the plan gave it"
SETTLED: dict[str, tuple[UpdateRecord, bool, UpdateRequest]] = {
    "nothing was ever updated": (UpdateRecord("o"), False, UpdateRequest()),
    "an update is in force": (UpdateRecord("o", ENGINE), True, ENGINE),
    "killed before the plan had made a candidate": (UpdateRecord("o", pending=ENGINE), False, UpdateRequest()),
    "killed while the candidate was gated": (
        UpdateRecord("o", pending=ENGINE, candidate=CANDIDATE),
        False,
        UpdateRequest(),
    ),
    "killed after the switch, before that was on record": (
        UpdateRecord("o", pending=ENGINE, candidate=CANDIDATE),
        True,
        ENGINE,
    ),
    "a second update was killed: the first one stays": (
        UpdateRecord("o", ENGINE, pending=FILE, candidate=CANDIDATE),
        False,
        ENGINE,
    ),
}


@pytest.mark.parametrize(("record", "has_switched", "serves"), SETTLED.values(), ids=SETTLED)
def test_after_a_crash_what_has_taken_traffic_serves(
    record: UpdateRecord, has_switched: bool, serves: UpdateRequest
) -> None:
    world = serve_world()
    candidate = world.apply(**NEXT)
    if has_switched:
        world.bring_up()
    if record.candidate:
        record = replace(record, candidate=candidate)
    settled = settle_interrupted(record, {one.name: one for one in world.revisions()})
    assert (settled.in_force, settled.pending) == (serves, None)


def test_a_record_holds_for_the_options_that_it_was_made_on(tmp_path: Path) -> None:
    path = tmp_path / "update.json"
    save_record(path, UpdateRecord("these", ENGINE))
    assert load_record(path, "these").in_force == ENGINE
    assert load_record(path, "others") == UpdateRecord("others")


@pytest.mark.parametrize("text", ["", "{", '{"origin": 1}'], ids=["empty", "half", "of another form"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "update.json").write_text(text)
    assert load_record(tmp_path / "update.json", "these") == UpdateRecord("these")


def test_an_update_adds_to_the_one_before_it_and_a_file_replaces_its_engine() -> None:
    both = UpdateRequest(suite="part-v1").on_top_of(ENGINE)
    assert both == UpdateRequest(engine="q8", suite="part-v1")
    assert FILE.on_top_of(both) == UpdateRequest(file=FILE.file, suite="part-v1")
