"""What the container of a distillation says of an error: fields of the R1PlusEngine, and a remedy of the cluster."""

import re
from pathlib import Path

import pytest

from r1plus_cli.errors import UsageError
from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, EXIT_RETRYABLE
from r1plus_model import errors
from r1plus_training.distill_job import TrainingError, translate_job_errors
from support.paths import TESTS
from support.tables import for_each

WORK = Path("/volume/.training/work")
SAID: dict[str, tuple[Exception, int, str]] = {
    "a folder of another recipe": (
        errors.ForeignFolderError(f"work: {WORK} is of another recipe: steps 6 (here 7)", "give another folder"),
        EXIT_PERMANENT,
        f"volume: {WORK} is of another recipe: steps 6 (here 7); delete the claim, and it is trained again",
    ),
    "a folder that another pod has": (
        errors.InterruptedDistillationError(f"work: {WORK}: another run has it", "wait, or give another folder"),
        EXIT_RETRYABLE,
        f"volume: {WORK}: another run has it; the next pod goes on",
    ),
    "a volume without room": (
        errors.StorageError(f"work: {WORK} has 1 MB free", "give a folder on another disk"),
        EXIT_PERMANENT,
        f"volume: {WORK} has 1 MB free; raise spec.build.distill.storage, or lower steps or top",
    ),
    "a file that stays damaged": (
        errors.DamagedWorkError(f"work: {WORK}/start.json: damaged", "remove its folder", WORK),
        EXIT_PERMANENT,
        f"volume: {WORK}/start.json: damaged; delete the claim, and it is trained again",
    ),
    "several options": (
        errors.DistillationError("layers: 4 is too many\nhard_weight: 2 is not from 0 to 1: it is a share"),
        EXIT_PERMANENT,
        "spec.build.distill.layers: 4 is too many\nspec.build.distill.hardWeight: 2 is not from 0 to 1: it is a share",
    ),
    "a value that looks like an option": (
        errors.DistillationError("data: line 1: has --length 3 or --layers; a line is text"),
        EXIT_PERMANENT,
        "spec.artifact: data.jsonl: line 1: has --length 3 or --layers; a line is text",
    ),
    "a suite that cannot be read": (
        UsageError("--suite: /suite: no header; give a folder with suite.json"),
        EXIT_PERMANENT,
        "spec.accuracy.suite: /suite: no header; give a folder with suite.json",
    ),
}


@for_each("error, exit_code, message", SAID)
def test_the_container_says_of(error: Exception, exit_code: int, message: str) -> None:
    with pytest.raises(TrainingError) as raised, translate_job_errors():
        raise error

    assert str(raised.value).partition(": ")[2] == message
    assert raised.value.exit_code == exit_code


def test_no_message_of_the_trainer_names_an_option_of_a_command() -> None:
    """The trainer has several callers, and each has its own words for a field."""
    named = {
        f"{path.name}: {text}"
        for path in (TESTS.parent / "addons" / "training" / "r1plus_model").glob("*.py")
        for text in re.findall(r"--[a-z][a-z-]+", path.read_text(encoding="utf-8"))
    }

    assert named <= {"checkpoints.py: --out"}, "that is of the command `r1plus engine convert`"
