"""Updates on record: what the next start serves by, whatever the crash that ended the last one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.update.request import (
    UpdateRecord,
    UpdateRequest,
    keep_texts,
    load_record,
    read_suite_texts,
    save_record,
    settle_interrupted,
)
from support.edge.suites import write_part
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


def test_texts_are_kept_where_the_next_starts_find_them(tmp_path: Path) -> None:
    suite = write_part(tmp_path / "part-v1")
    asked = UpdateRequest(suite="part-v1", text="kind: R1PlusDeployment", suite_texts=read_suite_texts(suite))
    kept = keep_texts(asked, tmp_path / "requests")
    assert Path(kept.file).read_text() == "kind: R1PlusDeployment"
    assert (Path(kept.suite).name, read_suite_texts(Path(kept.suite))) == ("part-v1", asked.suite_texts)
    assert (kept.text, kept.suite_texts) == ("", {})
    assert all(path.stat().st_mode & 0o077 == 0 for path in (Path(kept.file), *Path(kept.suite).iterdir()))
    assert keep_texts(asked, tmp_path / "requests") == kept


SUITES = {
    "a path": UpdateRequest(suite="../../etc", suite_texts={"suite.json": ""}),
    "a parent": UpdateRequest(suite="..", suite_texts={"suite.json": ""}),
    "no name": UpdateRequest(suite_texts={"suite.json": ""}),
    "another file": UpdateRequest(suite="part-v1", suite_texts={"../key": ""}),
}


@pytest.mark.parametrize("asked", SUITES.values(), ids=SUITES)
def test_a_suite_leaves_its_folder_by_no_name(tmp_path: Path, asked: UpdateRequest) -> None:
    with pytest.raises(EdgeRequestError, match="is no name of a suite, or has other files"):
        keep_texts(asked, tmp_path / "requests")
    assert list(tmp_path.iterdir()) == []


def test_a_suite_larger_than_any_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text(" " * 20_000)
    with pytest.raises(ValueError, match=r"suite\.json has more than 16384 bytes"):
        read_suite_texts(tmp_path)


FULL = """
import resource, sys
from pathlib import Path
from r1plus_edge.update.request import UpdateRecord, UpdateRequest, save_record
path = Path(sys.argv[1])
save_record(path, UpdateRecord("these", UpdateRequest(engine="q8")))
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    save_record(path, UpdateRecord("these", UpdateRequest(engine="q4")))
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.unit_slow
def test_without_room_the_record_stays_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "update.json"
    said = subprocess.check_output([sys.executable, "-c", FULL, path], text=True)
    assert said == "File too large\n"
    assert load_record(path, "these").in_force == ENGINE
