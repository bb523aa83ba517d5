"""What `serve` tells of the plan's conditions, for a person at its terminal."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from r1plus_contract.gateway import DataReason, DataState
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.progress import StartProgress, describe_schemas, describe_unready
from r1plus_edge.report import LineNarrator, Reporter, describe_data
from support.tables import for_each


class Notes(LineNarrator):
    """Keeps the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_a_condition_is_told_once_and_not_for_each_percent_of_a_gate(tmp_path: Path) -> None:
    notes = Notes()
    progress = StartProgress(Reporter(tmp_path / "status.json", notes), cast(Any, None), lambda: True)
    for message in ("edge-1 repeats the suite", *(f"edge-1 repeats the suite; {n} % are done" for n in (0, 10, 90))):
        progress._tell_conditions([f"QualityVerified: RollingBack: {message}"])
    assert notes.texts == [
        "QualityVerified: RollingBack: edge-1 repeats the suite",
        "QualityVerified: RollingBack: edge-1 repeats the suite; 0 % are done",
    ]


def test_a_problem_of_the_data_is_told_once_and_again_when_it_comes_back(tmp_path: Path) -> None:
    notes, ahead = Notes(), DataReason.CLOCK_AHEAD
    progress = StartProgress(Reporter(tmp_path / "status.json", notes), cast(Any, None), lambda: True)
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


@for_each("pod, shown", {
    "an engine that hangs": ({"has_been_ready": True}, ("triton is not ready: the engine hangs",)),
    "a pod that starts": ({"has_been_ready": False}, ()),
})  # fmt: skip
def test_why_a_pod_is_no_longer_ready_is_shown(pod: dict[str, Any], shown: tuple[str, ...]) -> None:
    def build(name: str, not_ready: str, pid: int | None = 1) -> SimpleNamespace:
        return SimpleNamespace(program=SimpleNamespace(name=name), not_ready=not_ready, has_started=True, pid=pid)

    containers = [
        build("engine", "it ended with status 0", None),
        build("triton", "the engine hangs"),
        build("monitor", ""),
    ]
    assert describe_unready([cast(Any, SimpleNamespace(containers=containers, **pod))]) == shown


@for_each("share, shown", {
    "the engine does not say": (None, ""),
    "nothing": (0.0, "0% of the memory for compiled ones used"),
    "much": (0.79, "79% of the memory for compiled ones used"),
    "full": (0.8, "80% of the memory for compiled ones used: emptied when nothing runs; some further ones may be refused"),
})  # fmt: skip
def test_the_memory_for_schemas_is_shown(share: float | None, shown: str) -> None:
    assert describe_schemas(share) == shown
