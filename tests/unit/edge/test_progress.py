"""What `serve` tells of the plan's conditions, for a person at its terminal."""

from pathlib import Path
from typing import Any, cast

from r1plus_contract.gateway import DataReason, DataState
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.progress import Progress
from r1plus_edge.report import LineNarrator, Reporter, describe_data


class Notes(LineNarrator):
    """Keeps the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_a_condition_is_told_once_and_not_for_each_percent_of_a_gate(tmp_path: Path) -> None:
    notes = Notes()
    progress = Progress(Reporter(tmp_path / "status.json", notes), cast(Any, None), lambda: True)
    for message in ("edge-1 repeats the suite", *(f"edge-1 repeats the suite; {n} % are done" for n in (0, 10, 90))):
        progress._tell_conditions([f"QualityVerified: RollingBack: {message}"])
    assert notes.texts == [
        "QualityVerified: RollingBack: edge-1 repeats the suite",
        "QualityVerified: RollingBack: edge-1 repeats the suite; 0 % are done",
    ]


def test_a_problem_of_the_data_is_told_once_and_again_when_it_comes_back(tmp_path: Path) -> None:
    notes, ahead = Notes(), DataReason.CLOCK_AHEAD
    progress = Progress(Reporter(tmp_path / "status.json", notes), cast(Any, None), lambda: True)
    for state in (
        DataState(DataReason.STARTING, "wait"),
        DataState(ahead, "24 more hours"),
        None,  # The gateway does not answer for a moment.
        DataState(ahead, "23 more hours"),
        DataState(DataReason.READY, "can be used"),
        DataState(ahead, "24 more hours"),
    ):
        progress._tell_data(state, describe_data(state, DataFolder(tmp_path)))
    assert notes.texts == ["DataReady: ClockAhead: 24 more hours"] * 2
