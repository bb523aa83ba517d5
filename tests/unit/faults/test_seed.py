"""What `make faults` runs unless it is asked for less: all that the sample of `make test` and of the long tests has."""

from faults import singles
from faults.calls import OF_EVENTS, OF_WRITES
from faults.seed import Asked


def test_all_kinds_of_faults_and_all_single_ones_are_run() -> None:
    asked = Asked()
    assert {*asked.faults(kill=False), *asked.faults(kill=True)} == {*OF_WRITES, *OF_EVENTS}
    assert set(singles.QUICK) <= {single for chain in asked.chains for single in chain}
    assert asked.sample == 1.0
