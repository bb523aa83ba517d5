"""Under which conditions `r1plus suite` asks an engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from r1plus_cli.suite.build import AnswerSource, SuiteOptions, build, measure
from r1plus_contract.suites.suite import Item, SuiteSampling, load_suite
from r1plus_monitoring.curate.asking import F32, NATIVE, AskingCondition, CandidateAnswer
from r1plus_monitoring.curate.selection import Shape

CANDIDATES = tuple(
    Item(f"{name}-{number:02}", name, f"{name} {number}?", "contains", ("yes",)) for name in "ab" for number in range(8)
)


class RightEngine:
    """Is right about everything."""

    def __init__(self) -> None:
        self.precisions: set[str] = set()

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        self.precisions.add(condition.precision)
        return {item.id: CandidateAnswer("yes, it is", "stop", 3) for item in items}


def quiet(_line: str) -> None:
    pass


@pytest.mark.parametrize(
    ("is_local", "precision"),
    [
        pytest.param(True, F32, id="files on this machine, in the arithmetic of what serves"),
        pytest.param(False, NATIVE, id="a server, in its own"),
    ],
)
def test_an_engine_is_asked_in_one_arithmetic(tmp_path: Path, is_local: bool, precision: str) -> None:
    (tmp_path / "model").write_text("weights")
    engine = RightEngine()
    source = AnswerSource(engine, tmp_path if is_local else None)
    shape = Shape(size=12, min_size=8, min_strata=2, min_per_stratum=3)
    options = SuiteOptions("bank-v1", "bank", "edge", "bank-edge")
    files = build(CANDIDATES, [source], options, SuiteSampling(), batch=4, shape=shape, seed=1, progress=quiet)
    assert engine.precisions == {precision}

    engine.precisions.clear()
    suite = load_suite(files.header, files.items)
    measure(files, suite, "bank-edge", source, batch=4, progress=quiet)
    assert engine.precisions == {precision}
