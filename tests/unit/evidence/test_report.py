"""What is stale, missing, failed or not to be believed, and in which order it is measured again."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from evidence import report
from evidence.records import list_records, write_record
from evidence.report import Judgement, choose_refresh, judge_target, map_pages, print_report
from evidence.targets import HOME, Target, TargetError, find_target, load_targets
from support.evidence_records import make_record
from support.paths import TESTS
from support.toy_repository import ToyRepository

TARGET = Target("bench-x", "bench-x", (), ("tests/bench/speed.py",), (), 5.0)
PRODUCT = {
    "tests/bench/speed.py": "import r1plus_gateway\n",
    "gateway/r1plus_gateway.py": "",
    "docs/page.md": '<!-- [[[cog cog.outl(figure("bench-x", "ms")) ]]] -->\n<!-- [[[end]]] -->\n',
}


@pytest.fixture
def repository(tmp_path: Path) -> ToyRepository:
    return ToyRepository(tmp_path / "repository")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


def judge(records: Path, repository: ToyRepository) -> Judgement:
    # The files of a repository are read once in a process.
    report.list_files.cache_clear()
    return judge_target(TARGET, (), records / HOME, repository.root)


def test_a_target_without_a_record_is_missing(repository: ToyRepository, records: Path) -> None:
    repository.commit(PRODUCT)
    judgement = judge(records, repository)
    assert (judgement.state, judgement.minutes) == ("missing", 5.0)


def test_a_record_is_fresh_while_what_it_imports_stays(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT)), records)
    repository.commit({"docs/page.md": "changed"})
    judgement = judge(records, repository)
    assert (judgement.state, judgement.changed, judgement.minutes) == ("fresh", (), 2.0)


def test_a_record_is_stale_when_a_module_changed_that_it_imports(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT)), records)
    repository.commit({"gateway/r1plus_gateway.py": "LIMIT = 1"})
    judgement = judge(records, repository)
    assert (judgement.state, judgement.changed) == ("stale", ("gateway/r1plus_gateway.py",))
    assert judgement.share == 0.5


def test_a_change_that_is_not_committed_makes_it_stale_too(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT)), records)
    (repository.root / "gateway" / "r1plus_gateway.py").write_text("LIMIT = 1")
    assert judge(records, repository).state == "stale"


def test_a_change_that_was_taken_back_leaves_it_fresh(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT)), records)
    repository.commit({"gateway/r1plus_gateway.py": "LIMIT = 1"})
    repository.commit({"gateway/r1plus_gateway.py": ""})
    assert judge(records, repository).state == "fresh"


def test_a_file_that_is_gone_makes_it_stale(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT)), records)
    (repository.root / "tests" / "bench" / "speed.py").unlink()
    repository.commit({})
    assert judge(records, repository).state == "stale"


def test_a_failure_stays_one_until_it_is_measured_again(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT), result="FAILED"), records)
    assert judge(records, repository).state == "failed"


def test_figures_of_before_the_ledger_are_stale(repository: ToyRepository, records: Path) -> None:
    write_record(make_record(commit=repository.commit(PRODUCT), transcribed_from="docs/page.md"), records)
    judgement = judge(records, repository)
    assert (judgement.state, judgement.share) == ("stale", 1.0)


def test_a_record_that_cannot_be_believed_is_invalid(repository: ToyRepository, records: Path) -> None:
    file = write_record(make_record(commit=repository.commit(PRODUCT)), records)
    file.write_text(file.read_text().replace("1.5", "0.1"))
    judgement = judge(records, repository)
    assert judgement.state == "invalid"
    assert "edited by hand" in judgement.reason


def test_pages_are_those_that_print_a_figure(repository: ToyRepository) -> None:
    repository.commit({**PRODUCT, "README.md": "bench-x"})
    assert map_pages(repository.root) == {"bench-x": ("docs/page.md",)}


def judgement(name: str, state: str, minutes: float, share: float = 1.0, pages: int = 0) -> Judgement:
    target = Target(name, name, (), (), (), minutes)
    return Judgement(target, HOME, state, "", ("file",), share, minutes, ("page",) * pages)


JUDGEMENTS = [
    judgement("fresh", "fresh", 1),
    judgement("slow", "missing", 50),
    judgement("small-change", "stale", 5, share=0.05),
    judgement("large-change", "stale", 5, share=0.9),
    judgement("on-a-page", "stale", 5, share=0.9, pages=3),
    judgement("broken", "failed", 20),
]


def test_failures_come_first_then_doubt_times_pages_for_each_minute() -> None:
    order = [one.name for one in choose_refresh(JUDGEMENTS, 100)]
    assert order == ["broken", "on-a-page", "large-change", "slow", "small-change"]


def test_no_more_is_chosen_than_the_minutes_hold() -> None:
    assert [one.name for one in choose_refresh(JUDGEMENTS, 31)] == ["broken", "on-a-page", "large-change"]


def test_another_machines_records_are_not_measured_here() -> None:
    other = Judgement(TARGET, "h100", "stale", "", (), 1.0, 1.0)
    assert other.name == "bench-x@h100"
    assert choose_refresh([other], 60) == []


def test_the_last_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(JUDGEMENTS, 31, flakes_open=2)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["failed"] == ["broken"]
    assert figures["missing"] == ["slow"]
    assert figures["stale"] == ["small-change", "large-change", "on-a-page"]
    assert figures["flakes_open"] == 2
    assert figures["refresh"][0] == "make broken"


def test_every_target_is_one_of_the_makefile_and_its_files_exist() -> None:
    makefile = (TESTS.parent / "Makefile").read_text()
    targets = load_targets()
    assert len(targets) > 50
    for target in targets.values():
        assert f"\n{target.make}: " in makefile, target.name
        for path in (*target.entry, *target.also):
            assert (TESTS.parent / path).exists(), f"{target.name}: {path}"
        assert find_target(target.make, target.arguments, targets) is target


def test_what_is_typed_for_a_target_runs_it() -> None:
    """Make's own words: a dry run of what `make evidence` prints comes to the target's recipe."""
    for target in load_targets().values():
        dry = subprocess.run([*shlex.split(target.command), "-n"], cwd=TESTS.parent, capture_output=True, text=True)
        assert re.search(rf"ledger run {target.make} |runner .*--record {target.make}$", dry.stdout, re.MULTILINE), (
            target.name
        )


def test_every_target_of_the_makefile_that_records_has_a_table() -> None:
    rules = re.findall(r"^([a-z0-9-]+): .*\n((?:\t.*\n)+)", (TESTS.parent / "Makefile").read_text(), re.MULTILINE)
    recorded = {target for target, recipe in rules if "$(LEDGER)" in recipe}
    assert len(recorded) > 40
    assert recorded <= {target.make for target in load_targets().values()}


def test_records_of_the_repository_can_be_believed() -> None:
    assert report.check_records() == []
    assert all(file.suffix == ".json" for file in list_records())


TABLES = {
    "an unknown field": ('[x]\nentry = ["a"]\nminutes = 1\nhours = 2\n', r"\[x\] hours: no such field; known are"),
    "a field of another kind": ('[x]\nentry = "a"\nminutes = 1\n', r"\[x\] entry: 'a' is a str"),
    "a missing field": ("[x]\nminutes = 1\n", r"\[x\]: entry is missing"),
}


@pytest.mark.parametrize(("text", "message"), TABLES.values(), ids=TABLES)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "targets.toml"
    file.write_text(text)
    with pytest.raises(TargetError, match=message):
        load_targets(file)
