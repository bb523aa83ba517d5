"""Many documents before both judges, and what they disagree on, made small."""

import asyncio
import copy
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fuzz.documents import Documents
from fuzz.judges import Server, Subject

IN_FLIGHT = 16
WEIGHTS = {
    "R1PlusDeployment.spec": 30,
    "R1PlusEngine.spec": 25,
    "R1PlusTenant.spec": 20,
    "R1PlusDeployment.status": 10,
    "R1PlusTenant.status": 5,
    "R1PlusDeployment.metadata.name": 5,
    "R1PlusEngine.metadata.name": 3,
    "R1PlusTenant.metadata.name": 2,
}
SHOWN = 20
"""Disagreements that are made small and told; the rest is counted."""
ATTEMPTS = 300
"""Requests spent on making one of them small."""


LEAST_SHARE = 0.2
"""Of either verdict: a run that only hears one has tested nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One document before the judges."""

    subject: Subject
    document: Any


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What the judges said of a document, in the end the smallest one that divides them."""

    case: Case
    server: str
    models: str

    def __str__(self) -> str:
        told = f"{self.case.document!r:.2000}"
        return f"{self.case.subject.name}: {told}\n  API server: {self.server:.600}\n  models:     {self.models:.600}"


@dataclass(slots=True)
class Result:
    """Counts of a run."""

    admitted: int = 0
    refused: int = 0
    seconds: float = 0.0
    disagreements: list[Disagreement] = field(default_factory=list)
    admitted_by_subject: Counter[str] = field(default_factory=Counter)

    @property
    def cases(self) -> int:
        """Documents judged."""
        return self.admitted + self.refused


def cases(subjects: tuple[Subject, ...], count: int, seed: int) -> Iterator[Case]:
    """The documents of a seed, one after the other."""
    rng = random.Random(seed)
    documents = {subject.name: Documents(rng, subject.schema) for subject in subjects}
    weights = [WEIGHTS[subject.name] for subject in subjects]
    for subject in rng.choices(subjects, weights, k=count):
        yield Case(subject, documents[subject.name].draw())


async def compare(server: Server, case: Case) -> tuple[bool, Disagreement | None]:
    """Whether the server admits it, and what the models hold against that."""
    asked = await server.judge(case.subject, case.document)
    try:
        read = case.subject.read(case.document)
        stored = case.subject.read(asked.read) if asked.admitted and read.admitted else None
    except Exception as error:  # noqa: BLE001 - a model that raises anything but ValidationError is what is looked for
        return asked.admitted, Disagreement(case, asked.why or "admitted", f"raised {error!r}")
    if asked.admitted != read.admitted:
        return asked.admitted, Disagreement(case, asked.why or "admitted", read.why or "accepted")
    if stored is not None and stored.read != read.read:
        return True, Disagreement(case, f"stores {asked.read}", f"read {read.read!r}, of what is stored {stored}")
    return asked.admitted, None


async def run(
    server: Server,
    subjects: tuple[Subject, ...],
    count: int,
    seed: int,
    progress: Callable[[Result], None] = lambda _: None,
) -> Result:
    """`count` documents, 16 in flight; what divides the judges is then made small."""
    result, began, todo = Result(), time.perf_counter(), cases(subjects, count, seed)

    async def worker() -> None:
        for case in todo:
            admitted, found = await compare(server, case)
            result.admitted += admitted
            result.refused += not admitted
            result.admitted_by_subject[case.subject.name] += admitted
            if found is not None:
                result.disagreements.append(found)
            if result.cases % 1000 == 0:
                progress(result)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(worker())
    result.disagreements[:SHOWN] = [await _smallest(server, one) for one in result.disagreements[:SHOWN]]
    result.seconds = time.perf_counter() - began
    return result


def problems(result: Result) -> list[str]:
    """Why the run is not good."""
    shares = {"admitted": result.admitted, "refused": result.refused}
    rare = [
        f"{name}: {count} of {result.cases}, less than {LEAST_SHARE:.0%}: the run has tested too little"
        for name, count in shares.items()
        if count < LEAST_SHARE * result.cases
    ]
    return [*(str(one) for one in result.disagreements[:SHOWN]), *rare]


async def _smallest(server: Server, found: Disagreement) -> Disagreement:
    """Take away whatever can go while the judges still disagree."""
    subject, left = found.case.subject, ATTEMPTS

    async def divides(document: Any) -> Disagreement | None:
        nonlocal left
        left -= 1
        return (await compare(server, Case(subject, document)))[1]

    while left > 0 and (smaller := await _first(divides, reductions(found.case.document), left)) is not None:
        found = smaller
    return found


async def _first(
    divides: Callable[[Any], Awaitable[Disagreement | None]], candidates: Iterator[Any], most: int
) -> Disagreement | None:
    for _, candidate in zip(range(most), candidates, strict=False):
        if (found := await divides(candidate)) is not None:
            return found
    return None


def reductions(document: Any) -> Iterator[Any]:
    """The document with one thing less: a field, an item, half a string; large things first."""
    if isinstance(document, str) and len(document) > 1:
        yield document[: len(document) // 2]
        yield document[len(document) // 2 :]
        yield document[1:]
        yield document[:-1]
    if not isinstance(document, dict | list):
        return
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    for key in keys:
        less = copy.copy(document)
        del less[key]
        yield less
    for key in keys:
        for smaller in reductions(document[key]):
            less = copy.copy(document)
            less[key] = smaller
            yield less
