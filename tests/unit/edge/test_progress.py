"""What `serve` tells of the plan's conditions, for a person at its terminal."""

from pathlib import Path
from typing import Any, cast

from r1plus_edge.progress import Progress
from r1plus_edge.report import LineNarrator, Reporter


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
