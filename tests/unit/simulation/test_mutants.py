"""Every invariant of the simulation is able to fail: a change of the operator or its monitors breaks it, and is found."""

from simulation.mutants import MUTANTS
from simulation.promises import NAMES
from support.simulation.command import read_figures, run_simulation
from support.tables import for_each


@for_each("name", {name: name for name in MUTANTS})
def test_a_mutant_is_found_by_the_invariant_that_it_breaks(name: str) -> None:
    breaks = MUTANTS[name].breaks
    done = run_simulation("--mutant", name, "--only", breaks)
    assert [one["invariant"] for one in read_figures(done)["violations"]] == [breaks], done.stdout + done.stderr


def test_every_invariant_has_a_mutant() -> None:
    assert {mutant.breaks for mutant in MUTANTS.values()} == set(NAMES)
