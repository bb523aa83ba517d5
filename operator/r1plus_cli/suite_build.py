"""`r1plus suite build` and `baseline`: candidates become a suite, and a suite gets its figures, by asking engines.

The curator of the monitor's room decides what is asked and what is kept; here candidates are read and files are made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1plus_cli.errors import CliError, UsageError
from r1plus_contract.delivery import digest_of
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.suite import Item, Sampling, Suite, encode_items
from r1plus_contract.suite_baseline import Measured
from r1plus_contract.suite_check import read_items
from r1plus_contract.suite_files import BASELINE_FILE, SuiteFiles
from r1plus_contract.suite_reference import write_reference
from r1plus_model_repo.catalog.types import Tier
from r1plus_monitoring.curate import pipeline, record
from r1plus_monitoring.curate.asking import Asker, Condition
from r1plus_monitoring.curate.selection import NotEnoughItemsError, Shape
from r1plus_monitoring.scoring.replay import record as recorded

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?-v[1-9][0-9]*"
MAX_NAME = 63
MOST_CANDIDATES = 64 * 1024 * 1024
"""Bytes of a file of candidates."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a suite says of itself."""

    name: str
    family: str
    tier: str
    reference_engine: str

    def problems(self) -> list[str]:
        """What is wrong with it."""
        found = []
        if not re.fullmatch(NAME, self.name) or len(self.name) > MAX_NAME:
            found.append(
                f"--name: {self.name!r:.80} must be lower-case letters, digits and '-', end with its version such as "
                f"-v1, and have at most {MAX_NAME} characters: a ConfigMap bears it"
            )
        if self.tier not in list(Tier):
            found.append(f"--tier: {self.tier!r:.40} is not one of {', '.join(Tier)}")
        for option, value in (("--family", self.family), ("--reference", self.reference_engine)):
            if not value.strip():
                found.append(f"{option}: is empty")
        return found


@dataclass(frozen=True, slots=True)
class Source:
    """An engine that can be asked. `folder`: where its files are, if they are here."""

    asker: Asker
    folder: Path | None = None


def read_candidates(path: Path) -> tuple[tuple[Item, ...], list[str]]:
    """Candidates in the form of a suite's items, and every problem with file and line."""
    try:
        if path.stat().st_size > MOST_CANDIDATES:
            raise UsageError(f"{path}: {path.stat().st_size} bytes, at most {MOST_CANDIDATES} are read")
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    numbered, problems = read_items(text, str(path))
    if not numbered and not problems:
        problems.append(f"{path}: holds no candidate; one item a line, as in docs/suites.md")
    return tuple(item for _, item in numbered), problems


def build(
    candidates: Sequence[Item],
    sources: Sequence[Source],
    head: Head,
    sampling: Sampling,
    *,
    batch: int,
    shape: Shape,
    seed: int,
    progress: pipeline.Progress,
) -> SuiteFiles:
    """Ask every engine under every condition and keep what is right in all of them; not signed, no baseline yet."""
    steps = [
        pipeline.Step(head.reference_engine, source.asker, condition)
        for source in sources
        for condition in pipeline.selection_conditions(batch)
    ]
    try:
        made = pipeline.select(candidates, steps, shape, seed, progress)
    except NotEnoughItemsError as error:
        raise CliError(str(error)) from error
    description = f"What {head.reference_engine} answers right in every condition asked."
    header = record.build_header(
        head.name, head.tier, description, head.reference_engine, sampling, made.items, head.family
    )
    answers = {name: (answer.text, answer.finish_reason) for name, answer in made.answers.items()}
    baseline = _baseline(header.sha256, head.reference_engine, sources[0], seed, made.selection)
    return SuiteFiles(
        header=record.format_json(header),
        items=encode_items(made.items),
        reference=write_reference(recorded(made.items, answers, seed)),
        baseline=record.format_json(baseline),
    )


def measure(
    files: SuiteFiles, suite: Suite, engine: str, source: Source, *, batch: int, progress: pipeline.Progress
) -> tuple[SuiteFiles, tuple[Measured, ...]]:
    """The suite with this engine's figures on fresh repeats, in place of older ones; a signature is void and gone."""
    before = _read_baseline(files, suite, source)
    known = (*before.selection, *before.baseline, *before.cross, *before.served)
    conditions: Sequence[Condition] = pipeline.fresh_conditions(batch, known)
    found = pipeline.measure(engine, suite.items, source.asker, conditions, progress)
    if engine == suite.header.reference_engine:
        after = replace(before, baseline=found)
    else:
        after = replace(before, cross=(*(one for one in before.cross if one.engine != engine), *found))
    return replace(files, baseline=record.format_json(after), signature=""), found


def _read_baseline(files: SuiteFiles, suite: Suite, source: Source) -> record.Baseline:
    if not files.baseline:
        return _baseline(suite.header.sha256, suite.header.reference_engine, source, 0, ())
    try:
        return loads(record.Baseline, files.baseline)
    except ContractError as error:
        raise CliError(f"{BASELINE_FILE}: {error}") from error


def _baseline(suite: str, engine: str, source: Source, seed: int, selection: tuple[Measured, ...]) -> record.Baseline:
    return record.Baseline(
        suite=suite,
        engine=engine,
        engine_digest=digest_of(source.folder) if source.folder else "",
        hardware=record.read_hardware() if source.folder else record.SERVED_ELSEWHERE,
        seed=seed,
        selection=selection,
        baseline=(),
    )
