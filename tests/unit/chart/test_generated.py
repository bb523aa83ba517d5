"""The chart's generated files are what the code says, and what is stale is found."""

import shutil
from pathlib import Path

import pytest
import yaml

from r1plus_operator.api import generate, reference
from support.chart import CHART, ROOT


def test_nothing_generated_is_stale() -> None:
    assert generate.list_differences(ROOT) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with nothing but the sources and fresh generated files."""
    for room in (generate.CATALOG, generate.SUITES):
        (tmp_path / room).mkdir(parents=True)
    (tmp_path / generate.CATALOG / "family.yaml").write_text("# a family\n")
    suite = tmp_path / generate.SUITES / "family-v1"
    suite.mkdir()
    (suite / "suite.json").write_text("{}")
    (suite / "items.jsonl").write_text('{"id":"é"}\n')
    for source in (reference.VALUES, reference.VALUES_SCHEMA, reference.METRICS, reference.NAMES):
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, tmp_path / source)
    generate.write(tmp_path)
    return tmp_path


def test_what_was_just_written_is_not_stale(copy: Path) -> None:
    assert generate.main(["--check", f"--root={copy}"]) == 0


CRD = generate.CHART / "crds" / "r1plus.ai_r1plusdeployments.yaml"
ITEMS = generate.CHART / "files" / "suites" / "family-v1" / "items.jsonl"


@pytest.mark.unit_slow
def test_an_edited_file_an_absent_one_and_a_left_over_one_are_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / CRD).write_text("edited")
    (copy / ITEMS).unlink()
    left = generate.CHART / "files" / "catalog" / "gone.yaml"
    (copy / left).write_text("left")
    assert generate.main(["--check", f"--root={copy}"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"{CRD}: differs; run: make generate",
        f"{ITEMS}: is absent; run: make generate",
        f"{left}: is left over; run: make generate",
    ]
    generate.write(copy)
    assert generate.list_differences(copy) == []


def test_a_page_that_people_write_stays_beside_the_generated_ones(copy: Path) -> None:
    written, left = (copy / reference.PAGES / name for name in ("written.md", "gone.md"))
    written.write_text("# Written by hand\n")
    left.write_text(f"{reference.GENERATED}# Generated once\n")
    generate.write(copy)
    assert (written.exists(), left.exists()) == (True, False)


def test_versions_of_chart_project_and_images_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    project = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert project == f'version = "{chart["appVersion"]}"'
    tags = {values["images"][name].rsplit(":", 1)[1] for name in ("operator", "monitor", "triton")}
    assert tags == {chart["appVersion"]}
