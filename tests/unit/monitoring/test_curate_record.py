"""What the curator writes is what the monitor reads; an item can be dropped, with its reason, and the hash moves."""

import argparse
from pathlib import Path

import pytest

from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_monitoring.curate import record
from r1plus_monitoring.curate.__main__ import build_parser, drop

ITEMS = tuple(
    Item(id=f"a-{n}", stratum="a", prompt=f"Question {n}?", scorer="contains", answers=("yes",)) for n in range(3)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "toy-full-v2"
    head = record.build_header("toy-full-v2", "full", "A toy.", "toy-f16", SuiteSampling(stop=(".",)), ITEMS, "toy")
    record.write_suite(target, head, ITEMS)
    measured = Measurement("toy-f16", "batch 16, order 1", 3, 2, {"a": "2/3"}, ("a-1",))
    record.write_baseline(
        target,
        record.Baseline(
            suite=head.sha256,
            engine="toy-f16",
            engine_digest="0" * 64,
            hardware=record.MeasurementHost("a processor", bfloat16=False, threads=2, openvino_genai="1"),
            seed=1,
            selection=(measured,),
            baseline=(measured,),
        ),
    )
    return target


def dropping(folder: Path, *ids: str) -> argparse.Namespace:
    return build_parser().parse_args(["drop", "--suite", str(folder), "--reason", "flipped", *ids])


def test_a_written_suite_reads_back_with_the_version_of_its_name(folder: Path) -> None:
    suite = record.read_suite(folder)
    assert suite.items == ITEMS
    assert (suite.header.version, suite.header.items) == ("2.0.0", 3)


def test_a_dropped_item_is_gone_and_its_reason_is_kept(folder: Path) -> None:
    before = record.read_suite(folder).header.sha256
    (folder / "suite.sig").write_text("{}")
    (folder / "reference.jsonl").write_text("{}")
    drop(dropping(folder, "a-1"))
    assert sorted(path.name for path in folder.iterdir()) == ["baseline.json", "items.jsonl", "suite.json"]
    suite, baseline = record.read_suite(folder), record.read_baseline(folder)
    assert [item.id for item in suite.items] == ["a-0", "a-2"]
    assert suite.header.sha256 != before
    assert baseline.suite == suite.header.sha256
    assert baseline.dropped == (record.DroppedItem("a-1", "flipped"),)


def test_dropping_an_item_that_is_not_there_names_it_and_changes_nothing(folder: Path) -> None:
    before = record.read_suite(folder)
    with pytest.raises(SystemExit, match="toy-full-v2: no such items: a-9"):
        drop(dropping(folder, "a-1", "a-9"))
    assert record.read_suite(folder) == before


def test_the_hardware_is_named_by_class() -> None:
    here = record.read_hardware()
    assert here.threads >= 1
    assert "family" in here.processor
