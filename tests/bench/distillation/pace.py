"""How long the parts of a training take, kept in a file: what a killed one has taken counts when it goes on.

Processor seconds beside seconds: on a machine that other work keeps busy, they say what a training costs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.jsonable import dumps, loads


class Part(StrEnum):
    """What is counted: examples that the teacher predicts, or steps of the training."""

    TEACHER = "teacher"
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Pace:
    """So many examples or steps have taken so long."""

    count: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    """Of all threads of the process."""

    def __add__(self, other: "Pace") -> "Pace":
        return Pace(
            self.count + other.count,
            self.seconds + other.seconds,
            self.processor_seconds + other.processor_seconds,
        )

    def scale(self, count: int) -> "Pace":
        """Return what so many take at this pace; nothing if there is no pace."""
        factor = count / self.count if self.count else 0.0
        return Pace(count, self.seconds * factor, self.processor_seconds * factor)


@dataclass(frozen=True, slots=True)
class _Paces:
    """The content of the file."""

    teacher: Pace = Pace()
    training: Pace = Pace()


@dataclass(slots=True)
class Stopwatch:
    """Takes the time between the first and the last note of a part. The first step, which warms up, is not in it."""

    file: Path
    clock: Callable[[], float] = time.monotonic
    processor_clock: Callable[[], float] = time.process_time
    _before: _Paces = field(init=False)
    _first: dict[Part, Pace] = field(init=False, default_factory=dict)
    _paces: dict[Part, Pace] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._before = loads(_Paces, self.file.read_text("utf-8")) if self.file.is_file() else _Paces()

    def note(self, part: Part, done: int) -> None:
        """Note that so many are done."""
        first = self._first.setdefault(part, Pace(done, self.clock(), self.processor_clock()))
        self._paces[part] = Pace(
            done - first.count, self.clock() - first.seconds, self.processor_clock() - first.processor_seconds
        )
        replace_text(self.file, dumps(_Paces(**{one.value: self.get_pace(one) for one in Part})))

    def get_pace(self, part: Part) -> Pace:
        """Return the pace of a part, over all runs."""
        before: Pace = getattr(self._before, part.value)
        return before + self._paces.get(part, Pace())


def match_steps(pace: Pace, processor_seconds: float) -> int:
    """Return how many steps take so many processor seconds at this pace; at least one."""
    return max(1, round(processor_seconds * pace.count / pace.processor_seconds))
