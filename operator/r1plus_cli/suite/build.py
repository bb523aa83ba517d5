"""`r1plus suite build` and `baseline`: a suite from candidates, and its figures, by asking engines.

The curator in r1plus_monitoring decides what is asked and kept; this module reads candidates and makes files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1plus_cli.errors import CliError, UsageError
from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.suites.suite import Item, Suite, SuiteSampling, encode_items
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_contract.suites.suite_check import read_items
from r1plus_contract.suites.suite_files import BASELINE_FILE, SuiteFiles
from r1plus_contract.suites.suite_reference import write_reference
from r1plus_model_repo.catalog.types import Tier
from r1plus_monitoring.curate import pipeline, record
from r1plus_monitoring.curate.asking import F32, NATIVE, Asker, AskingCondition
from r1plus_monitoring.curate.selection import NotEnoughItemsError, Shape
from r1plus_monitoring.scoring.replay import record as record_answers

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?-v[1-9][0-9]*"
MAX_NAME = 63
MOST_CANDIDATES = 64 * 1024 * 1024
"""Largest file of candidates, in bytes."""


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """Name and reference of a suite, from the options."""

    name: str
    family: str
    tier: str
    reference_engine: str

    def find_problems(self) -> list[str]:
        """Return all problems of the options."""
        problems = []
        if not re.fullmatch(NAME, self.name) or len(self.name) > MAX_NAME:
            problems.append(
                f"--name: {self.name!r:.80} must be lower-case letters, digits and '-', end with its version such as "
                f"-v1, and have at most {MAX_NAME} characters: it names a ConfigMap"
            )
        if self.tier not in list(Tier):
            problems.append(f"--tier: {self.tier!r:.40} is not one of {', '.join(Tier)}")
        for option, value in (("--family", self.family), ("--reference", self.reference_engine)):
            if not value.strip():
                problems.append(f"{option}: is empty")
        return problems


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """An engine that can be asked. `folder` has its files, if they are local."""

    asker: Asker
    folder: Path | None = None

    @property
    def precision(self) -> str:
        """Arithmetic to ask in: local files as the served backend computes, which sets its own."""
        return NATIVE if self.folder is None else F32


def read_candidates(path: Path) -> tuple[tuple[Item, ...], list[str]]:
    """Return candidates in the format of a suite's items, and every problem with file and line."""
    try:
        if path.stat().st_size > MOST_CANDIDATES:
            raise UsageError(f"{path}: {path.stat().st_size} bytes, at most {MOST_CANDIDATES} are read")
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    numbered_items, problems = read_items(text, str(path))
    if not numbered_items and not problems:
        problems.append(f"{path}: has no candidates; write one item a line, as in docs/suites.md")
    return tuple(item for _, item in numbered_items), problems


def build(
    candidates: Sequence[Item],
    sources: Sequence[AnswerSource],
    options: SuiteOptions,
    sampling: SuiteSampling,
    *,
    batch: int,
    shape: Shape,
    seed: int,
    progress: pipeline.Progress,
) -> SuiteFiles:
    """Ask every engine under every condition and keep what is right in all.

    The result is unsigned and has no baseline.
    """
    steps = [
        pipeline.CurationStep(options.reference_engine, source.asker, condition)
        for source in sources
        for condition in pipeline.selection_conditions(batch, source.precision)
    ]
    try:
        result = pipeline.select(candidates, steps, shape, seed, progress)
    except NotEnoughItemsError as error:
        raise CliError(str(error)) from error
    description = f"What {options.reference_engine} answers right in every condition asked."
    header = record.build_header(
        options.name, options.tier, description, options.reference_engine, sampling, result.items, options.family
    )
    answers = {name: (answer.text, answer.finish_reason) for name, answer in result.answers.items()}
    baseline = _build_baseline(header.sha256, options.reference_engine, sources[0], seed, result.selection)
    return SuiteFiles(
        header=record.format_json(header),
        items=encode_items(result.items),
        reference=write_reference(record_answers(result.items, answers, seed)),
        baseline=record.format_json(baseline),
    )


def measure(
    files: SuiteFiles, suite: Suite, engine: str, source: AnswerSource, *, batch: int, progress: pipeline.Progress
) -> tuple[SuiteFiles, tuple[Measurement, ...]]:
    """Return the suite with this engine's new figures, and the figures. The signature is removed."""
    old_baseline = _read_baseline(files, suite, source)
    old_figures = (*old_baseline.selection, *old_baseline.baseline, *old_baseline.cross, *old_baseline.served)
    conditions: Sequence[AskingCondition] = pipeline.fresh_conditions(batch, old_figures, source.precision)
    figures = pipeline.measure(engine, suite.items, source.asker, conditions, progress)
    if engine == suite.header.reference_engine:
        new_baseline = replace(old_baseline, baseline=figures)
    else:
        new_baseline = replace(
            old_baseline, cross=(*(one for one in old_baseline.cross if one.engine != engine), *figures)
        )
    return replace(files, baseline=record.format_json(new_baseline), signature=""), figures


def _read_baseline(files: SuiteFiles, suite: Suite, source: AnswerSource) -> record.Baseline:
    if not files.baseline:
        return _build_baseline(suite.header.sha256, suite.header.reference_engine, source, 0, ())
    try:
        return loads(record.Baseline, files.baseline)
    except ContractError as error:
        raise CliError(f"{BASELINE_FILE}: {error}") from error


def _build_baseline(
    suite: str, engine: str, source: AnswerSource, seed: int, selection: tuple[Measurement, ...]
) -> record.Baseline:
    return record.Baseline(
        suite=suite,
        engine=engine,
        engine_digest=digest_folder(source.folder) if source.folder else "",
        hardware=record.read_hardware() if source.folder else record.SERVED_ELSEWHERE,
        seed=seed,
        selection=selection,
        baseline=(),
    )
