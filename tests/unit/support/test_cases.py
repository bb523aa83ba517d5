"""Comparing two listings of test cases."""

from pathlib import Path

import pytest

from support.cases import main

ONE, TWO, THREE = "t/test_a.py::test_one", "t/test_a.py::test_two", "t/test_a.py::test_of[a b::c]"


def compare(folder: Path, before: list[str], after: list[str], *mappings: str) -> int:
    """Write two listings as pytest prints them, and a mapping file per text, and compare."""
    listings = [folder / "before.txt", folder / "after.txt"]
    for listing, ids in zip(listings, (before, after), strict=True):
        listing.write_text("\n".join([*ids, "", f"{len(ids)} tests collected in 0.10s", ""]))
    files = [folder / f"{number}.tsv" for number in range(len(mappings))]
    for file, text in zip(files, mappings, strict=True):
        file.write_text(text)
    options = ["--mapping", *map(str, files)] if files else []
    return main([*map(str, listings), *options])


@pytest.mark.parametrize(
    ("after", "mappings", "code", "printed"),
    [
        pytest.param(
            [ONE, TWO], [], 0, "2 kept, 0 renamed, 0 guarded by another, 0 lost, 0 wrong mappings, 0 new", id="all kept"
        ),
        pytest.param([ONE], [], 1, f"Lost: {TWO}\n", id="one is lost"),
        pytest.param([ONE, TWO, THREE], [], 0, f"New: {THREE}\n", id="one is new"),
        pytest.param([ONE, THREE], [f"{TWO}\t{THREE}\n"], 0, "1 kept, 1 renamed", id="one is renamed"),
        pytest.param([ONE], [f"{TWO}\tguarded by: {ONE}\n"], 0, "1 guarded by another", id="one repeated another"),
        pytest.param(
            [ONE], [f"{TWO}\tguarded by: {THREE}\n"], 1, f"missing: {TWO}\t{THREE}", id="its guard is missing"
        ),
        pytest.param([ONE], [f"{TWO}\t{THREE}\n"], 1, "1 wrong mappings", id="its new name is missing"),
        pytest.param(
            [ONE, "t/b.py::x"], [f"{TWO}\t{THREE}\n", f"{THREE}\tt/b.py::x\n"], 0, "1 renamed", id="renamed twice"
        ),
        pytest.param([ONE], [f"{TWO}\t{THREE}\n{THREE}\t{TWO}\n"], 1, "1 wrong mappings", id="renamed in a circle"),
        pytest.param(
            [ONE, THREE, "t/b.py::x"],
            [f"{TWO}\t{THREE}\n{TWO}\tt/b.py::x\n"],
            0,
            "1 kept, 1 renamed, 0 guarded by another, 0 lost, 0 wrong mappings, 0 new",
            id="one is split into two",
        ),
        pytest.param(
            [ONE, THREE],
            [f"{TWO}\t{THREE}\n", f"{TWO}\tt/b.py::x\n"],
            1,
            f"missing: {TWO}\tt/b.py::x",
            id="half of a split one is missing",
        ),
        pytest.param(
            [ONE, TWO, THREE],
            [f"{TWO}\t{THREE}\n"],
            0,
            "2 kept, 0 renamed, 0 guarded by another, 0 lost, 0 wrong mappings, 0 new",
            id="one is split and keeps its name",
        ),
        pytest.param(
            [ONE, TWO],
            [f"{TWO}\t{TWO}\n{TWO}\t{THREE}\n"],
            1,
            f"missing: {TWO}\t{THREE}",
            id="one keeps its name without its other half",
        ),
    ],
)
def test_every_case_must_be_somewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], after: list[str], mappings: list[str], code: int, printed: str
) -> None:
    assert compare(tmp_path, [ONE, TWO], after, *mappings) == code
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "mapping", "complaint"),
    [
        pytest.param([], "", "no test ids", id="a listing without ids"),
        pytest.param([ONE, ONE], "", f"listed twice: {ONE}", id="an id that is listed twice"),
        pytest.param([ONE], f"{ONE} {TWO}", "0.tsv:1: not `old id<TAB>new id`", id="a mapping without a tab"),
        pytest.param([ONE], f"{ONE}\t\n", "0.tsv:1: not `old id<TAB>new id`", id="a mapping to nothing"),
        pytest.param(
            [ONE],
            f"{ONE}\t{TWO}\n{ONE}\tguarded by: {THREE}",
            f"0.tsv:2: both renamed and guarded: {ONE}",
            id="an id that is renamed and guarded",
        ),
    ],
)
def test_what_cannot_be_read_ends_the_comparison(
    tmp_path: Path, before: list[str], mapping: str, complaint: str
) -> None:
    with pytest.raises(SystemExit, match=complaint.replace("[", r"\[")):
        compare(tmp_path, before, [ONE, TWO, THREE], mapping)
