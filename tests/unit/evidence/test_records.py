"""A record is believed only if this project wrote it, of a commit in this history, and not in the future."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evidence.records import RecordError, check_record, describe_machine, read_record, write_record
from support.evidence_records import make_record
from support.toy_repository import ToyRepository

RECORD = make_record()
NOW = datetime(2026, 12, 1, 10, 5, tzinfo=UTC)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = write_record(RECORD, tmp_path)
    assert file == tmp_path / "two-cores" / "bench-x.json"
    assert read_record(file) == RECORD
    assert list(file.parent.iterdir()) == [file]


def edit(text: str) -> str:
    return text.replace("1.5", "1.4")


def edit_with_a_digest_of_another(text: str) -> str:
    return json.dumps({**json.loads(text), "result": "FAILED"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(edit, "edited by hand", id="a figure was changed by hand"),
        pytest.param(edit_with_a_digest_of_another, "edited by hand", id="the result was changed by hand"),
        pytest.param(lambda text: text[: len(text) // 2], "cut", id="it is cut"),
        pytest.param(lambda text: "", "cut", id="it is empty"),
        pytest.param(lambda text: "[]", "cut", id="it is no object"),
        pytest.param(lambda text: text.replace('"seconds"', '"second"'), "other fields", id="a field has another name"),
        pytest.param(lambda text: text.replace('"sha256"', '"sha1"'), "other fields", id="it has no digest"),
    ],
)
def test_a_damaged_record_is_refused_with_its_remedy(
    tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    file = write_record(RECORD, tmp_path)
    file.write_text(damage(file.read_text()))
    with pytest.raises(RecordError, match=message) as refused:
        read_record(file)
    assert "run `make bench-x` again" in str(refused.value)


def test_a_record_that_was_moved_to_another_machine_is_refused(tmp_path: Path) -> None:
    file = write_record(RECORD, tmp_path)
    moved = tmp_path / "h100" / file.name
    moved.parent.mkdir()
    file.rename(moved)
    with pytest.raises(RecordError, match="it is of two-cores/bench-x"):
        read_record(moved)


@pytest.fixture
def repository(tmp_path: Path) -> ToyRepository:
    return ToyRepository(tmp_path / "repository")


def test_a_record_of_an_ancestor_is_believed(repository: ToyRepository) -> None:
    commit = repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    check_record(replace(RECORD, commit=commit), NOW, repository.root)


def test_a_record_of_another_branch_is_refused(repository: ToyRepository) -> None:
    repository.commit({"a": "1"})
    repository.git("switch", "--quiet", "--create", "other")
    commit = repository.commit({"a": "2"})
    repository.git("switch", "--quiet", "main")
    with pytest.raises(RecordError, match=f"commit {commit} is no ancestor of HEAD"):
        check_record(replace(RECORD, commit=commit), NOW, repository.root)


def test_a_record_of_an_unknown_commit_is_refused(repository: ToyRepository) -> None:
    repository.commit({"a": "1"})
    with pytest.raises(RecordError, match="is no ancestor"):
        check_record(RECORD, NOW, repository.root)


def test_a_shallow_clone_can_not_say_so_and_believes(repository: ToyRepository, tmp_path: Path) -> None:
    repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    repository.git("clone", "--quiet", "--depth=1", repository.root.as_uri(), str(tmp_path / "clone"))
    check_record(RECORD, NOW, tmp_path / "clone")


def test_a_record_of_the_future_is_refused(repository: ToyRepository) -> None:
    record = replace(RECORD, commit=repository.commit({"a": "1"}))
    check_record(record, NOW - timedelta(minutes=10), repository.root)
    with pytest.raises(RecordError, match="in the future: set the clock"):
        check_record(record, NOW - timedelta(hours=1), repository.root)


def test_a_machines_name_that_is_no_folders_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1PLUS_MACHINE", "../h100")
    with pytest.raises(RecordError, match=r"R1PLUS_MACHINE: '\.\./h100' is no short name"):
        describe_machine()
    monkeypatch.setenv("R1PLUS_MACHINE", "h100")
    assert describe_machine().name == "h100"
