"""From an engine to a folder that generates text: checked, made, asked a sample of the golden suite, put in place.

The steps: check everything that can be wrong; write the checkpoint; make the target's folder of it; let the engine and
the folder answer the same items; compare. The folder appears when it has passed. Called by `r1plus engine export`.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, Final

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item, Suite
from r1plus_contract.suites.suite_baseline import read_figures
from r1plus_export.answering import ExportAsker, check_sampling, run_child, sample_items
from r1plus_export.errors import ExportError
from r1plus_export.source import ExportedEngine, open_engine, place_checkpoint
from r1plus_export.targets import (
    F32,
    ExportTarget,
    check_architecture,
    check_packages,
    choose_precision,
    find_target,
)
from r1plus_model.sampling.answer_end import cut_at
from r1plus_model_repo.importing.folder_files import CONFIG
from r1plus_model_repo.importing.package.folders import create_scratch, lock_folder, stage_folder
from r1plus_monitoring.curate import asking
from r1plus_monitoring.curate.asking import AskingCondition, CandidateAnswer, ProcessAsker
from r1plus_monitoring.scoring.scorers import score

RECORD_FILE: Final = "export.json"
LEAST_ITEMS: Final = 10
"""Of a sample: fewer would let most losses of accuracy pass."""
_TOGETHER: Final = 16
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and where to."""

    engine: str
    """A folder, or the name of a shipped engine."""
    target: str
    out: Path
    """Appears when it has passed."""
    cache: Path
    """Keeps what a shipped engine is made of."""
    find_suite: Callable[[ExportedEngine], tuple[Suite, str]]
    """Returns the golden suite, and the text of its `baseline.json`, which may be empty."""
    weights: Path | None = None
    items: int = 50
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What the engine and the export answered to the same items."""

    suite: str
    suite_sha256: str
    items: int
    engine_correct: int
    export_correct: int
    same_answers: int | None
    """Items to which both gave the same text; None: the engine's texts are not known here."""
    engine_source: str
    """`asked`, or `recorded`: in the suite's baseline, where the engine does not run on this machine."""


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export."""

    folder: Path
    bytes: int
    result: SampleResult


@dataclass(frozen=True, slots=True)
class _EngineAnswers:
    correct: frozenset[str]
    texts: Mapping[str, str] | None


def export_engine(request: ExportRequest, progress: Callable[[str], None]) -> Export:
    """Make the folder.

    Raises:
        ExportError: the request cannot be exported, or the export answers worse than the engine. Nothing is left.
        ImportingError: the weights cannot be fetched or converted.
        ModuleNotFoundError: packages of the target are missing.
    """
    target = find_target(request.target)
    precision = choose_precision(target, request.precision)
    _check_request(request)
    check_packages(target)
    engine = open_engine(request.engine, request.cache / "engines", progress)
    if engine.is_checkpoint:
        check_architecture(target, json.loads((engine.files / CONFIG).read_text(encoding="utf-8")))
        if request.precision and target.maker is None:
            raise ExportError("--precision: the engine is a checkpoint, whose numbers stay as they are; leave it out")
    suite, baseline = request.find_suite(engine)
    check_sampling(suite)
    _check_room(request.out, engine, target)
    items = sample_items(suite, request.items)
    recorded = read_recorded(engine, suite, baseline, items) if engine.is_checkpoint else None
    with lock_folder(request.out.absolute().parent), create_scratch(request.out) as scratch:
        checkpoint = scratch / "checkpoint"
        place_checkpoint(
            engine,
            request.weights,
            checkpoint,
            precision if target.maker is None else F32,
            request.cache / "engines",
            progress,
        )
        check_architecture(target, json.loads((checkpoint / CONFIG).read_text(encoding="utf-8")))
        answers = recorded or _ask_engine(engine, suite, items, progress)
        if not answers.correct:
            raise ExportError(
                f"--suite: {suite.header.name}: {engine.name} has none of {len(items)} items right, so no loss could be"
                " seen; give a suite that it passes"
            )
        with stage_folder(request.out) as folder:
            _make(target, checkpoint, folder, precision, progress)
            result = _measure(target, engine, folder, suite, items, answers, progress)
            _write_record(folder, engine, target, precision, result)
    return Export(request.out, sum(one.stat().st_size for one in request.out.rglob("*") if one.is_file()), result)


def _check_request(request: ExportRequest) -> None:
    if request.out.exists() or request.out.is_symlink():
        raise ExportError(f"--out: {request.out} already exists; remove it, or give another folder")
    if not request.out.absolute().parent.is_dir():
        raise ExportError(f"--out: {request.out.absolute().parent} is not a folder; create it first")
    if request.items < LEAST_ITEMS:
        raise ExportError(f"--items: {request.items} is not at least {LEAST_ITEMS}: fewer would show little; give more")


def _check_room(out: Path, engine: ExportedEngine, target: ExportTarget) -> None:
    needed = engine.spec.architecture.parameters * target.bytes_per_parameter + 2**26
    free = shutil.disk_usage(out.absolute().parent).free
    if free < needed:
        raise ExportError(
            f"--out: {out.absolute().parent} has {free / 2**20:.0f} MiB free, and the export takes up to"
            f" {needed / 2**20:.0f} MiB while it is made; make room, or give a folder on another disk"
        )


def _ask_engine(
    engine: ExportedEngine, suite: Suite, items: Sequence[Item], progress: Callable[[str], None]
) -> _EngineAnswers:
    """Ask the engine's own files, in the arithmetic of what serves."""
    progress(f"asking {engine.name} {len(items)} of the {len(suite.items)} items of {suite.header.name}")
    try:
        condition = AskingCondition(_TOGETHER, 0, asking.F32)
        answers = ProcessAsker(engine.files, suite.header.sampling).ask(items, condition)
    except RuntimeError as error:
        raise ExportError(f"ENGINE: {engine.name}: it did not answer: {error}; check its files") from error
    texts = {name: answer.text for name, answer in answers.items()}
    return _EngineAnswers(_find_correct(items, answers), texts)


def read_recorded(engine: ExportedEngine, suite: Suite, baseline: str, items: Sequence[Item]) -> _EngineAnswers:
    """Return what the suite's baseline says of an engine that does not run here, under its best condition."""
    figures = read_figures(baseline) if baseline else None
    recorded = (*figures.baseline, *figures.cross, *figures.served) if figures else ()
    own = [one for one in recorded if one.engine == engine.name and one.items == len(suite.items)]
    own = [one for one in own if len(one.lost) == one.items - one.correct]
    if figures is None or figures.suite != suite.header.sha256 or not own:
        raise ExportError(
            f"ENGINE: {engine.name}: {engine.spec.backend.value} is not asked on this machine, and the baseline of"
            f" {suite.header.name} has no answers of it, so its own score is not known; measure it with r1plus suite"
            f" baseline SUITE --engine {engine.name} --deployment NAME"
        )
    best = max(own, key=lambda one: one.correct)
    return _EngineAnswers(frozenset(item.id for item in items) - frozenset(best.lost), None)


def _find_correct(items: Sequence[Item], answers: Mapping[str, CandidateAnswer]) -> frozenset[str]:
    """Judge as the gate does."""
    return frozenset(
        item.id
        for item in items
        if score(item, answers[item.id].text, answers[item.id].finish_reason) == OutcomeLabel.CORRECT
    )


def _make(
    target: ExportTarget, checkpoint: Path, folder: Path, precision: str, progress: Callable[[str], None]
) -> None:
    if target.maker is None:
        for path in checkpoint.iterdir():
            path.replace(folder / path.name)
        return
    progress(f"writing {target.name} in {precision}")
    run_child(target.maker, (str(checkpoint), str(folder), precision), "", progress)


def _measure(
    target: ExportTarget,
    engine: ExportedEngine,
    folder: Path,
    suite: Suite,
    items: Sequence[Item],
    known: _EngineAnswers,
    progress: Callable[[str], None],
) -> SampleResult:
    """Let the folder answer; raise ExportError with figures if fewer of its answers are right than of the engine's."""
    progress(f"asking the export the same {len(items)} items")
    condition = AskingCondition(1, 0, asking.F32)
    answers = ExportAsker(target.module, folder, suite.header.sampling, progress).ask(items, condition)
    correct = _find_correct(items, answers)
    texts = known.texts
    same = (
        None
        if texts is None
        else sum(answers[item.id].text == cut_at(texts[item.id], suite.header.sampling.stop) for item in items)
    )
    result = SampleResult(
        suite.header.name,
        suite.header.sha256,
        len(items),
        len(known.correct),
        len(correct),
        same,
        "recorded" if texts is None else "asked",
    )
    if len(correct) < len(known.correct):
        lost = sorted(known.correct - correct)
        told = ", ".join(f"{name} ({answers[name].text!r:.60})" for name in lost[:_MOST_NAMED])
        more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
        raise ExportError(
            f"--to {target.name}: {len(correct)} of {len(items)} items of {suite.header.name} are right, and"
            f" {len(known.correct)} of {engine.name}, so the export answers worse than its engine and was not kept;"
            f" lost: {told}{more}; export in a higher --precision, or an engine in F16 of the same model"
        )
    return result


def _write_record(
    folder: Path, engine: ExportedEngine, target: ExportTarget, precision: str, result: SampleResult
) -> None:
    distributions = packages_distributions()
    record: dict[str, Any] = {
        "engine": engine.name,
        "engineVersion": engine.spec.version,
        "engineSha256": digest_folder(engine.files),
        "target": target.name,
        "precision": "as the checkpoint" if engine.is_checkpoint and target.maker is None else precision,
        "packages": {name: version(distributions[name][0]) for name in target.packages},
        "sample": asdict(result),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
