"""The isolation matrix: what counts as held, and that nothing does without a control that was seen first."""

import json
from collections.abc import Callable

import pytest

from e2e.isolation.cases import CASES
from e2e.isolation.matrix import NAMES, NOT_APPLICABLE, Matrix, Tally, Trial


def held(tally: Tally) -> None:
    trial = Trial(tally)
    trial.by("alice", "alice")
    trial.open("B reads its Secret", seen=True)
    trial.shut("A reads it", held=True)
    trial.end(passed=True)


def let_through(tally: Tally) -> None:
    trial = Trial(tally)
    trial.by("alice", "alice")
    trial.open("B reads its Secret", seen=True)
    with pytest.raises(AssertionError, match="LET THROUGH: A reads it: HTTP 200"):
        trial.shut("A reads it", held=False, said="HTTP 200")
    trial.end(passed=False)


def blind(tally: Tally) -> None:
    trial = Trial(tally)
    trial.by("alice", "alice")
    with pytest.raises(AssertionError, match="the control saw nothing"):
        trial.open("B reads its Secret", seen=False)
    trial.end(passed=False)


def somebody_else(tally: Tally) -> None:
    trial = Trial(tally)
    with pytest.raises(AssertionError, match="an attack by admin, not by alice"):
        trial.by("alice", "admin")
    trial.end(passed=False)


def attack_first(tally: Tally) -> None:
    trial = Trial(tally)
    trial.by("alice", "alice")
    with pytest.raises(AssertionError, match="say first what the control saw"):
        trial.shut("A reads it", held=True)
    trial.end(passed=False)


def nothing_tried(tally: Tally) -> None:
    trial = Trial(tally)
    trial.by("alice", "alice")
    trial.open("B reads its Secret", seen=True)
    trial.end(passed=True)


ENDS: dict[str, tuple[tuple[Callable[[Tally], None], ...], bool, bool]] = {
    "shut, and open to the control": ((held,), True, True),
    "twice so": ((held, held), True, True),
    "let through": ((let_through,), False, True),
    "let through once": ((held, let_through, held), False, True),
    "the control saw nothing": ((blind,), False, False),
    "by somebody else": ((somebody_else,), False, False),
    "without a control": ((attack_first,), False, False),
    "a control and no attack": ((nothing_tried,), False, True),
    "never tried": ((), False, False),
}


@pytest.mark.parametrize(("trials", "is_held", "seen"), ENDS.values(), ids=ENDS)
def test_a_vector_is_held_by_trials_that_end_well_alone(
    trials: tuple[Callable[[Tally], None], ...], is_held: bool, seen: bool
) -> None:
    tally = Tally()
    for trial in trials:
        trial(tally)
    assert (tally.held, tally.seen) == (is_held, seen)


def test_the_line_counts_every_vector_and_names_what_does_not_apply_and_what_is_open() -> None:
    matrix = Matrix()
    assert not matrix.complete
    for tally in matrix.tallies.values():
        held(tally)
    line = json.loads(matrix.line())
    assert matrix.complete
    assert (line["vectors"], line["held"], line["controls_seen"]) == (37, 24, 24)
    assert line["held"] + len(line["not_applicable"]) == 37
    assert all(one["name"] == NAMES[one["n"]] and one["reason"] for one in line["not_applicable"])
    assert "open" not in line
    let_through(matrix.tallies[13])
    assert not matrix.complete
    assert json.loads(matrix.line())["open"] == [13]


def test_what_does_not_apply_is_what_the_data_base_the_door_and_the_keys_bring() -> None:
    assert sorted(NOT_APPLICABLE) == [14, 16, *range(17, 26), 35, 37]


def test_every_request_of_the_matrix_has_another_name() -> None:
    names = [(case.vector, case.what) for case in CASES]
    assert len(names) == len(set(names))
    assert not {case.vector for case in CASES} & NOT_APPLICABLE.keys()
