"""How a candidate is asked: the conditions under which an item must stay right, and the interface to the engine.

The curator (pipeline.py) sees only `Asker`. The real one starts a process per condition, so that every condition is
also a restart: state that an engine keeps between answers cannot make two conditions agree.
"""

import os
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.inference import FinishReason
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.suites.suite import Item, SuiteSampling

CHILD: Final = "r1plus_monitoring.curate.genai"
NATIVE: Final = "native"
"""The arithmetic that the engine chooses on this processor: bfloat16 where it can."""
F32: Final = "f32"
"""32-bit arithmetic, which the served backend sets on every processor."""


@dataclass(frozen=True, slots=True)
class AskingCondition:
    """One way of asking: how many at once, in which order, in which arithmetic."""

    batch: int
    order: int
    """Seed of the order; batch and order together decide which items share a batch."""
    precision: str = NATIVE

    @property
    def name(self) -> str:
        """Name of the condition in reports."""
        where = "" if self.precision == NATIVE else f", {self.precision}"
        return f"batch {self.batch}, order {self.order}{where}"


@dataclass(frozen=True, slots=True)
class CandidateAnswer:
    """One answer of the engine."""

    text: str
    finish_reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """Standard input of a child process."""

    engine: str
    condition: AskingCondition
    sampling: SuiteSampling
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class ChildReply:
    """Its standard output: an answer per item, in the order of the items."""

    answers: tuple[CandidateAnswer, ...]


class Asker(Protocol):
    """An engine that can be asked."""

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        """Return answers by item id, one for every item."""


class ProcessAsker:
    """Asks an engine folder in a process of its own. Used by `__main__`."""

    def __init__(self, engine: Path, sampling: SuiteSampling) -> None:
        """`engine` holds OpenVINO IR, as the served pod has it."""
        self._engine = engine
        self._sampling = sampling

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        """Ask in a child process. Raise RuntimeError with the end of its stderr when it fails."""
        shuffled_items = shuffle(items, condition.order)
        request = ChildRequest(str(self._engine), condition, self._sampling, shuffled_items)
        # Outside of CI jobs OpenVINO writes an id under $HOME/intel at import, and reports it to Google Analytics.
        env = os.environ | {"CI": "true"}
        child = subprocess.run(
            [sys.executable, "-m", CHILD], input=dumps(request), capture_output=True, text=True, check=False, env=env
        )
        if child.returncode != 0:
            raise RuntimeError(f"{CHILD}: exit status {child.returncode}: {child.stderr.strip()[-2000:]}")
        reply = loads(ChildReply, child.stdout)
        if len(reply.answers) != len(shuffled_items):
            raise RuntimeError(f"{CHILD}: {len(reply.answers)} answers to {len(shuffled_items)} items")
        return {item.id: answer for item, answer in zip(shuffled_items, reply.answers, strict=True)}


@dataclass(frozen=True, slots=True)
class RecordedAnswers:
    """A file of `RecordedAsker`: what was asked, and the answers to it."""

    request: ChildRequest
    engine_digest: str
    answers: tuple[CandidateAnswer, ...]


class RecordedAsker:
    """Asks, and keeps the answers of each condition in a folder: a curation that was interrupted goes on there."""

    def __init__(self, engine: Path, sampling: SuiteSampling, folder: Path, asker: Asker) -> None:
        """`folder` may be new. `asker` asks the engine; answers of other files, items or sampling are asked again."""
        self._engine, self._sampling, self._folder, self._asker = engine, sampling, folder, asker
        self._digest = digest_folder(engine)

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        """Return the recorded answers, or ask and record them."""
        ordered_items = tuple(sorted(items, key=lambda item: item.id))
        request = ChildRequest(self._engine.name, condition, self._sampling, ordered_items)
        path = self._folder / f"{re.sub('[^a-z0-9]+', '-', condition.name)}.json"
        if path.is_file():
            record = loads(RecordedAnswers, path.read_text(encoding="utf-8"))
            if record.request == request and record.engine_digest == self._digest:
                return {item.id: answer for item, answer in zip(ordered_items, record.answers, strict=True)}
        answers = self._asker.ask(items, condition)
        record = RecordedAnswers(request, self._digest, tuple(answers[item.id] for item in ordered_items))
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(dumps(record), encoding="utf-8")
        part.replace(path)
        return answers


def shuffle(items: Sequence[Item], seed: int) -> tuple[Item, ...]:
    """Shuffle items; the result depends on the items and the seed, not on their former order."""
    permutation = sorted(items, key=lambda item: item.id)
    random.Random(seed).shuffle(permutation)  # noqa: S311 - an order, not a secret
    return tuple(permutation)


def choose_finish_reason(stopped: bool) -> str:
    """Return the contract's word for why a generation ended."""
    return FinishReason.STOP if stopped else FinishReason.LENGTH
