"""The isolation matrix: what counts as held, and that nothing does without a control that was seen first."""

import json
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from e2e.isolation.cases import CASES
from e2e.isolation.matrix import Matrix, Tally, Trial


@dataclass(frozen=True)
class Tried:
    """One trial: what its control saw, whether the attack was held, and why it is refused if it is."""

    seen: bool | None = None
    held: bool | None = None
    by: str = "alice"
    refused: str = ""

    def on(self, tally: Tally) -> None:
        trial = Trial(tally)
        with pytest.raises(AssertionError, match=self.refused) if self.refused else nullcontext():
            trial.by("alice", self.by)
            if self.seen is not None:
                trial.open("B reads its Secret", seen=self.seen)
            if self.held is not None:
                trial.shut("A reads it", held=self.held, said="HTTP 200")
        trial.end(passed=not self.refused)


HELD = Tried(seen=True, held=True)
LET_THROUGH = Tried(seen=True, held=False, refused="LET THROUGH: A reads it: HTTP 200")
ENDS: dict[str, tuple[tuple[Tried, ...], bool, bool]] = {
    "shut, and open to the control": ((HELD,), True, True),
    "twice so": ((HELD, HELD), True, True),
    "let through": ((LET_THROUGH,), False, True),
    "let through once": ((HELD, LET_THROUGH, HELD), False, True),
    "the control saw nothing": ((Tried(seen=False, refused="the control saw nothing"),), False, False),
    "by somebody else": ((Tried(by="admin", refused="an attack by admin, not by alice"),), False, False),
    "without a control": ((Tried(held=True, refused="say first what the control saw"),), False, False),
    "a control and no attack": ((Tried(seen=True),), False, True),
    "never tried": ((), False, False),
}


@pytest.mark.parametrize(("trials", "is_held", "seen"), ENDS.values(), ids=ENDS)
def test_a_vector_is_held_by_trials_that_end_well_alone(trials: tuple[Tried, ...], is_held: bool, seen: bool) -> None:
    tally = Tally()
    for trial in trials:
        trial.on(tally)
    assert (tally.held, tally.seen) == (is_held, seen)


def test_the_line_counts_every_vector_and_names_what_is_open() -> None:
    matrix = Matrix()
    assert not matrix.complete
    for tally in matrix.tallies.values():
        HELD.on(tally)
    line = json.loads(matrix.line())
    assert matrix.complete
    assert (line["vectors"], line["held"], line["controls_seen"]) == (37, 37, 37)
    assert "open" not in line
    LET_THROUGH.on(matrix.tallies[13])
    assert not matrix.complete
    assert json.loads(matrix.line())["open"] == [13]


def test_every_request_of_the_matrix_has_another_name() -> None:
    names = [(case.vector, case.what) for case in CASES]
    assert len(names) == len(set(names))
