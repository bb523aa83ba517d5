"""The folders of a distillation: a kill before the first step or after the last one, and folders that would be lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.engine.delivery import hash_file
from r1plus_model.errors import DistillationError, StorageError
from r1plus_model.training.distillation import DistillationRequest, distil
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.work_folder import Disk, check_room, measure_disk
from support.model.distil_process import make_request, run, tick
from support.model.tiny_models import write_data, write_tiny
from support.tables import for_each

pytestmark = pytest.mark.model


def place(inputs: Path, folder: Path) -> DistillationRequest:
    return replace(make_request(inputs, steps=2), out=folder / "student", work=folder / "work")


@for_each(
    "out, work",
    {
        "the student in the working folder": ("run/student", "run"),
        "the working folder in the student's": ("student", "student/work"),
        "one folder for both": ("run", "run"),
    },
)
def test_a_folder_that_would_go_with_the_other_is_refused(inputs: Path, tmp_path: Path, out: str, work: str) -> None:
    request = replace(place(inputs, tmp_path), out=tmp_path / out, work=tmp_path / work)

    with pytest.raises(DistillationError, match=r"work: .*: one is in the other, .*; give folders beside each other"):
        run(request)
    assert not list(tmp_path.iterdir())


MB = 10**6
DISKS: dict[str, tuple[Disk, Disk, str | None]] = {
    "one disk with room for both": (Disk(1, 5 * MB), Disk(1, 5 * MB), None),
    "one disk with room for either": (
        Disk(1, 4 * MB),
        Disk(1, 4 * MB),
        "work: run has 4.0 MB free, and 5.0 MB are needed",
    ),
    "two disks with room for one each": (Disk(1, 3 * MB), Disk(2, 2 * MB), None),
    "a disk without room for the state": (
        Disk(1, 2 * MB),
        Disk(2, 9 * MB),
        "work: run has 2.0 MB free, and 3.0 MB are",
    ),
    "a disk without room for the model": (Disk(1, 9 * MB), Disk(2, MB), "out: models has 1.0 MB free, and 2.0 MB are"),
}


@for_each("work, out, message", DISKS)
def test_room_is_checked_on(work: Disk, out: Disk, message: str | None) -> None:
    def check() -> None:
        check_room(
            Path("models/student"), Path("run"), 2 * MB, 3 * MB, {Path("run"): work, Path("models"): out}.__getitem__
        )

    if message is None:
        check()
        return
    with pytest.raises(StorageError, match=f"{message}.*; make room, or give a folder on another disk"):
        check()


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parents(tmp_path: Path) -> None:
    disk = measure_disk(tmp_path / "models" / "new")

    assert disk.device == tmp_path.stat().st_dev
    assert disk.free > 0


def test_a_run_that_is_stopped_before_its_first_step_goes_on(inputs: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    process = TrainingProcess(lines.append, tick(), lambda: any("measuring the student" in one for one in lines))
    with pytest.raises(DistillationError, match="stopped after step 0 of 2; the same command goes on"):
        distil(place(inputs, tmp_path), process)

    assert run(place(inputs, tmp_path))[0].folder.is_dir()


def test_a_kill_while_the_recipe_is_written_is_no_harm(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    request.work.mkdir()
    (request.work / ".recipe.json.part").write_text("{")

    assert run(request)[0].folder.is_dir()
    assert not request.work.exists()


LEFT: dict[str, list[str]] = {
    "all": ["recipe.json", "start.json", "state.safetensors", "teacher"],
    "its recipe": ["recipe.json"],
    "nothing but the folder": [],
}


@for_each("left", LEFT)
def test_the_same_command_ends_a_run_that_was_killed_after_its_student_was_there_with(
    inputs: Path, tmp_path: Path, left: list[str]
) -> None:
    request = place(inputs, tmp_path)
    stop_after_first_step(request)
    shutil.copytree(request.work, tmp_path / "copy")
    sha256 = run(request)[0].sha256
    (tmp_path / "copy").rename(request.work)
    for path in [path for path in request.work.iterdir() if path.name not in left]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    result, lines = run(request)
    assert result.sha256 == sha256 == hash_file(request.out / "model.safetensors")
    assert not request.work.exists()
    assert not [line for line in lines if line.startswith(("teacher", "step"))]


def test_a_student_of_another_recipe_is_not_taken_for_this_run(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    run(request)
    other = replace(request, recipe=replace(request.recipe, seed=1))
    other.work.mkdir()

    with pytest.raises(DistillationError, match=r"out: .* already exists; remove it, or give another name"):
        run(other)


def test_what_came_to_the_place_of_the_student_meanwhile_is_not_replaced(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)

    def report(line: str) -> None:
        if line == "measuring the student":
            request.out.mkdir()
            (request.out / "letter.txt").write_text("mine")

    with pytest.raises(DistillationError, match=r"out: .* already exists; remove it"):
        distil(request, TrainingProcess(report, tick()))
    assert (request.out / "letter.txt").read_text() == "mine"
    assert (request.work / "state.safetensors").is_file()

    shutil.rmtree(request.out)
    assert run(request)[0].folder.is_dir()


def test_a_working_folder_that_is_a_link_stays_and_the_run_ends_well(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    (tmp_path / "disk").mkdir()
    request.work.symlink_to(tmp_path / "disk")

    assert run(request)[0].folder.is_dir()
    assert request.work.is_symlink()
    assert not list(request.work.iterdir())


def test_an_out_that_cannot_be_written_is_refused_before_the_training(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(DistillationError, match=r"out: .*/file is no folder that can be written to; give another"):
        run(replace(request, out=file / "student"))

    request.out.symlink_to(tmp_path / "away")
    with pytest.raises(DistillationError, match=r"out: .* already exists; remove it"):
        run(request)
    assert not request.work.exists()


def stop_after_first_step(request: DistillationRequest) -> None:
    lines: list[str] = []
    with pytest.raises(DistillationError, match="stopped"):
        distil(request, TrainingProcess(lines.append, tick(), lambda: any("step 1" in one for one in lines)))


def test_a_student_that_would_be_served_with_other_prompts_is_refused(inputs: Path, tmp_path: Path) -> None:
    own = write_tiny(tmp_path / "own", tmp_path, layers=2)
    path = own / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": "{{ messages[0].content }}"}))
    request = place(inputs, tmp_path)
    request = replace(request, student=own, recipe=replace(request.recipe, layers=None))

    with pytest.raises(DistillationError, match=r"student: tokenizer_config.json: chat template: not the teacher's"):
        run(request)
    text = write_data(tmp_path / "text.jsonl", [{"text": f"hello world {number}"} for number in range(40)])
    assert run(replace(request, data=text))[0].folder.is_dir()
