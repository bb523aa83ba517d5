"""The table of what a caller can take is true of the code: its figures are there, and its tests are."""

from pathlib import Path

import pytest

from bounds.table import Bound, BoundError, load_bounds, resolve, show
from support.named_tests import is_test

BOUNDS = load_bounds()


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda one: one.id)
def test_a_rows_figures_and_tests_are_there(bound: Bound) -> None:
    assert show(bound.bound, bound.unit) != "none"
    show(bound.owner_bound, bound.unit)
    assert [named for named in bound.tests if not is_test(named)] == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('id = "a"', "unknown or missing: resource, part, takers, bound, at_bound, first"),
        ('id = "a"\nbounds = 1', "unknown or missing: bounds, resource"),
        ("id =", "Invalid value"),
        (
            'id = "a"\nresource = "r"\npart = "gateways"\ntakers = ["key"]\nbound = "b"\nat_bound = "x"\nfirst = "open"',
            "part gateways",
        ),
        (
            'id = "a"\nresource = "r"\npart = "gateway"\ntakers = ["keys"]\nbound = "b"\nat_bound = "x"\nfirst = "open"',
            "takers keys",
        ),
        (
            'id = "a"\nresource = "r"\npart = "gateway"\ntakers = ["key"]\nbound = "b"\nat_bound = "x"\nfirst = "no"',
            "first no",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_place(row: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "rows.toml").write_text(f"[[row]]\n{row}\n")
    with pytest.raises(BoundError, match=problem) as refused:
        load_bounds(tmp_path)
    assert "rows.toml" in str(refused.value)


@pytest.mark.parametrize("path", ["bounds.table:NOTHING", "no_such_module:X", "bounds.table:PARTS"])
def test_a_bound_that_the_code_does_not_have_is_refused(path: str) -> None:
    with pytest.raises(BoundError, match=path.partition(":")[0]):
        resolve(path)


def test_a_figure_is_the_codes_own() -> None:
    assert show(
        ("r1plus_gateway.http.listening.connections:MOST_CONNECTIONS", "what the key's budget allows"), "connections"
    ) == ("4,096 connections, what the key's budget allows")
