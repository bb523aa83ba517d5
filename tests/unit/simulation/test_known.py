"""Defects that the simulation has found: each schedule breaks its promise until the defect is mended, and never again."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from simulation.mutants import MUTANTS
from simulation.promises import NAMES
from simulation.schedule import read_schedule
from support.paths import TESTS
from support.simulation.command import read_figures, run_simulation
from support.tables import for_each

KNOWN = TESTS / "simulation" / "known"
DEFECTS: dict[str, dict[str, Any]] = tomllib.loads((KNOWN / "defects.toml").read_text())
SEEDS = 8
"""A seed takes some seven seconds of one core. More: `make simulate`."""


def list_unmended() -> frozenset[str]:
    """Return the invariants that known defects break until they are mended."""
    return frozenset(
        name for defect in DEFECTS.values() if not defect["mended"] for name in (defect["breaks"], *defect["also"])
    )


@for_each("name", {f"{name}: {defect['title']}": name for name, defect in DEFECTS.items()})
def test_a_known_defect_breaks_its_promise_until_it_is_mended(name: str) -> None:
    defect, file = DEFECTS[name], KNOWN / f"{name}.json"
    schedule, notes = read_schedule(file)
    assert notes["breaks"] == defect["breaks"]
    done = run_simulation("--schedule", str(file), "--only", defect["breaks"])
    found = [violation["invariant"] for violation in read_figures(done)["violations"]]
    assert found == ([] if defect["mended"] else [defect["breaks"]]), done.stdout
    assert done.returncode == bool(found), done.stderr
    assert schedule.happenings


def test_every_file_that_is_kept_is_listed() -> None:
    assert {file.stem for file in KNOWN.glob("*.json")} == set(DEFECTS)


def test_the_same_schedule_is_the_same_run() -> None:
    file = str(KNOWN / "M2.json")
    first, second = (run_simulation("--schedule", file, "--digest").stdout for _ in range(2))
    assert "seed" in first
    assert [line for line in first.splitlines() if line.startswith("seed")] == [
        line for line in second.splitlines() if line.startswith("seed")
    ]


def test_a_failure_names_seed_promise_and_what_was_written() -> None:
    name = "a rollback is forgotten"
    mutant = MUTANTS[name]
    told = run_simulation("--mutant", name, "--only", mutant.breaks).stdout
    assert "promise: " in told
    assert "found: " in told
    assert mutant.breaks in told
    assert "schedule" in told.partition("seconds")[2]


@pytest.mark.unit_slow
@for_each("seed", {f"seed {seed}": seed for seed in range(1, SEEDS + 1)})
def test_a_seed_breaks_no_promise(seed: int) -> None:
    only = ",".join(name for name in NAMES if name not in list_unmended())
    done = run_simulation("--seed", str(seed), "--only", only)
    figures = read_figures(done)
    assert figures["violations"] == [], done.stdout
    assert figures["seeds"] == 1
    assert figures["tried"]["only_the_leader_writes"] > 100


@for_each(
    ("arguments", "message"),
    {
        "a seed that is no number": (("--seed", "seven"), "invalid int value: 'seven'"),
        "no seeds": (("--seeds", "0"), "--seeds: 0 must be 1 or more"),
        "an unknown invariant": (("--only", "all_is_well"), "all_is_well is no invariant"),
        "no file": (("--schedule", "absent.json"), "absent.json: no schedule"),
    },
)
def test_bad_input_is_refused(arguments: tuple[str, ...], message: str) -> None:
    done = run_simulation(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_schedule_of_an_older_simulation_is_refused_with_its_version(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"version": 0}')
    done = run_simulation("--schedule", str(tmp_path / "old.json"))
    assert done.returncode == 2
    assert "a schedule of version 0" in done.stderr
