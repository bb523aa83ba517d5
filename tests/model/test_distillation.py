"""Distillation of a tiny teacher: what it learns, that it is the same each time, and that a kill changes nothing."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from r1plus_contract.engine.delivery import hash_file
from r1plus_model.checkpoint import load_model
from r1plus_model.checkpoints import open_checkpoint
from r1plus_model.errors import DistillationError
from r1plus_model.training.distillation import DistillationRequest, distil
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.pruning import choose_layers, measure_influence
from r1plus_model.training.work_folder import Disk
from r1plus_model_repo.importing.package.folders import lock_folder
from support.model import environment
from support.model.distil_process import SMALL, make_request, run
from support.model.tiny_models import LAYERS, change_weight, write_data, write_gguf, write_tiny
from support.paths import TESTS
from support.tables import for_each

pytestmark = pytest.mark.model
SAVED_EACH_STEP, SAVED_AT_THE_END = 0.0, 1e9


@pytest.fixture(scope="module")
def whole_student(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's checkpoint of a run that nothing interrupted."""
    request = place(inputs, tmp_path_factory.mktemp("finished"))
    return run(request)[0].folder


def place(inputs: Path, folder: Path, **values: Any) -> DistillationRequest:
    """Return a request whose results lie in `folder`."""
    request = make_request(inputs, **values)
    return replace(request, out=folder / "student", work=folder / "work")


def hash_weights(folder: Path) -> str:
    return hash_file(folder / "model.safetensors")


# What it makes.


def test_the_student_is_a_checkpoint_of_fewer_layers_with_the_tokenizer_of_its_teacher(
    inputs: Path, whole_student: Path
) -> None:
    student = open_checkpoint(whole_student, "student")

    assert student.shape == replace(open_checkpoint(inputs / "teacher", "teacher").shape, layers=SMALL["layers"])
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (whole_student / name).read_bytes() == (inputs / "teacher" / name).read_bytes()
    assert load_model(whole_student).compute_states(torch.tensor([[1, 2]])).isfinite().all()


def test_the_record_says_what_was_distilled_and_how_near_it_came(inputs: Path, whole_student: Path) -> None:
    record = json.loads((whole_student / "distilled.json").read_text())

    assert record["recipe"]["teacher"] == open_checkpoint(inputs / "teacher", "teacher").digest
    assert record["recipe"]["data"] == hash_file(inputs / "data.jsonl")
    assert len(record["keptLayers"]) == SMALL["layers"]
    assert record["trainedTokens"] > 0
    assert record["after"]["divergence"] < record["before"]["divergence"]


def test_the_working_folder_is_gone_at_the_end(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path, steps=2)
    run(request)

    assert not request.work.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]


def test_a_student_learns_what_its_teacher_says(inputs: Path, tmp_path: Path) -> None:
    result, lines = run(place(inputs, tmp_path, steps=60, batch=8), save_seconds=SAVED_AT_THE_END)

    assert result.record.after.divergence < 0.5 * result.record.before.divergence
    assert [line for line in lines if line.startswith("step 60 of 60: loss ")]


def test_a_student_of_labels_alone_learns_the_text_and_not_its_teacher(inputs: Path, tmp_path: Path) -> None:
    soft, _ = run(place(inputs, tmp_path / "soft", steps=60), save_seconds=SAVED_AT_THE_END)
    hard, _ = run(place(inputs, tmp_path / "hard", steps=60, hard_weight=1.0), save_seconds=SAVED_AT_THE_END)

    assert hard.record.after.perplexity < soft.record.after.perplexity
    assert soft.record.after.divergence < hard.record.after.divergence


def test_layers_that_change_nothing_are_cut_first(inputs: Path) -> None:
    model = load_model(inputs / "teacher")
    with torch.no_grad():
        for matrix in (model.layers[1].self_attn.o_proj, model.layers[1].mlp.down_proj):
            matrix.weight.zero_()
    influence = measure_influence(model, [[5, 6, 7, 8], [9, 10]])

    assert influence[1] == pytest.approx(0, abs=1e-6)
    assert choose_layers(influence, LAYERS - 1) == (0, 2, 3)


def test_a_student_of_its_own_is_trained_from_its_own_weights(inputs: Path, tmp_path: Path) -> None:
    own = write_tiny(tmp_path / "own", tmp_path, seed=3, layers=2)
    request = replace(place(inputs, tmp_path, layers=None, steps=2), student=own)
    result, _ = run(request)

    assert open_checkpoint(result.folder, "student").shape.layers == 2
    assert result.record.kept_layers == ()


# The same each time.


def test_the_same_recipe_gives_the_same_weights(inputs: Path, whole_student: Path, tmp_path: Path) -> None:
    result, _ = run(place(inputs, tmp_path), save_seconds=SAVED_AT_THE_END)

    assert result.sha256 == hash_weights(whole_student)


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "temperature": {"temperature": 1.0},
    "share of labels": {"hard_weight": 0.5},
    "learning rate": {"learning_rate": 1e-4},
    "number of steps": {"steps": 5},
}


@for_each("values", CHANGES)
def test_another_student_comes_of_another(
    inputs: Path, whole_student: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    result, _ = run(place(inputs, tmp_path, **values))

    assert result.sha256 != hash_weights(whole_student)
    assert result.record.key != json.loads((whole_student / "distilled.json").read_text())["key"]


KILLS: dict[str, dict[str, Any]] = {
    "before anything is computed": {"kill_line": "reading"},
    "while the teacher predicts": {"kill_call": 9},
    "before the student is measured": {"kill_line": "measuring the student before"},
    "in the first step": {"kill_line": "step 1 of"},
    "in the middle": {"kill_line": "step 4 of"},
    "in the middle, without a state since the start": {"kill_line": "step 4 of", "save_seconds": SAVED_AT_THE_END},
    "in the last step": {"kill_line": "step 6 of"},
    "after the training": {"kill_line": "measuring the student"},
}


@for_each("kill", KILLS)
def test_the_same_weights_come_after_a_kill(
    inputs: Path, whole_student: Path, tmp_path: Path, kill: dict[str, Any]
) -> None:
    for name in ("teacher", "data.jsonl"):
        (tmp_path / name).symlink_to(inputs / name)
    order = json.dumps({"folder": str(tmp_path), **kill})
    path = os.pathsep.join([str(TESTS), str(environment.prepare())])
    child = subprocess.run(
        [sys.executable, "-m", "support.model.distil_process", order],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (tmp_path / "student").exists()
    result, _ = run(make_request(tmp_path))
    assert result.sha256 == hash_weights(whole_student)
    assert not (tmp_path / "work").exists()


def test_a_run_that_is_asked_to_stop_keeps_its_steps_and_goes_on(
    inputs: Path, whole_student: Path, tmp_path: Path
) -> None:
    request = place(inputs, tmp_path)
    lines: list[str] = []
    ticks = iter(range(10**6))
    process = TrainingProcess(
        lines.append, lambda: 20.0 * next(ticks), lambda: any("step 3" in line for line in lines), 1e9
    )
    with pytest.raises(DistillationError, match="stopped after step 3 of 6; the same command goes on"):
        distil(request, process)

    result, lines = run(request)
    assert not [line for line in lines if line.startswith("step 3")]
    assert [line for line in lines if line.startswith("step 4")]
    assert result.sha256 == hash_weights(whole_student)


def test_the_teacher_predicts_once(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    lines: list[str] = []
    with pytest.raises(DistillationError, match="stopped"):
        stop_after_first_step(request, lines)
    assert [line for line in lines if line.startswith("teacher:")]

    _, lines = run(request)
    assert not [line for line in lines if line.startswith("teacher:")]


def stop_after_first_step(request: DistillationRequest, lines: list[str]) -> None:
    ticks = iter(range(10**6))
    distil(
        request,
        TrainingProcess(lines.append, lambda: 20.0 * next(ticks), lambda: any("step 1" in line for line in lines), 1e9),
    )


# What goes wrong on the way.


@pytest.fixture
def one_step(inputs: Path, tmp_path: Path) -> DistillationRequest:
    """A request whose working folder has one step."""
    request = place(inputs, tmp_path)
    with pytest.raises(DistillationError, match="stopped"):
        stop_after_first_step(request, [])
    return request


def test_a_working_folder_of_another_recipe_is_refused_with_what_differs(one_step: DistillationRequest) -> None:
    other = replace(one_step, recipe=replace(one_step.recipe, temperature=2.0, steps=7))

    with pytest.raises(
        DistillationError,
        match=r"of another recipe: temperature 3.0 \(here 2.0\), steps 6 \(here 7\); give another folder, or remove this one",
    ):
        run(other)
    assert (one_step.work / "state.safetensors").is_file()


def test_a_state_of_another_recipe_is_refused(one_step: DistillationRequest, inputs: Path, tmp_path: Path) -> None:
    other = place(inputs, tmp_path / "other", seed=5)
    with pytest.raises(DistillationError, match="stopped"):
        stop_after_first_step(other, [])
    shutil.copyfile(other.work / "state.safetensors", one_step.work / "state.safetensors")

    message = r"state.safetensors: a state of another training: recipe [0-9a-f]{12} \(here [0-9a-f]{12}\); give another"
    with pytest.raises(DistillationError, match=message):
        run(one_step)


DAMAGES: dict[str, tuple[str, bytes | None]] = {
    "cut off": ("state.safetensors", None),
    "empty": ("state.safetensors", b""),
    "other bytes": ("state.safetensors", b"\xff" * 4096),
    "a pickle": ("state.safetensors", b"\x80\x04\x95" + b"x" * 100),
    "a cut prediction of the teacher": ("teacher/0000001.safetensors", None),
    "a recipe that is cut off": ("recipe.json", None),
    "a start of nothing": ("start.json", b""),
}


@for_each("name, content", DAMAGES)
def test_a_damaged_file_is_named_which_is(one_step: DistillationRequest, name: str, content: bytes | None) -> None:
    path = one_step.work / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)

    with pytest.raises(DistillationError, match=rf"{path}: damaged: .*; remove"):
        run(one_step)


def test_a_folder_with_other_files_is_no_working_folder(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    request.work.mkdir()
    (request.work / "letter.txt").write_text("mine")

    with pytest.raises(DistillationError, match=r"work: .* has files and no recipe.json; give an empty folder"):
        run(request)
    assert (request.work / "letter.txt").read_text() == "mine"


def test_two_runs_do_not_share_a_working_folder(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path)
    with (
        lock_folder(request.work),
        pytest.raises(DistillationError, match=r"work: .*: another run has it; wait for that, or give another folder"),
    ):
        run(request)


@contextmanager
def limit_files(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: a write beyond it fails, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL: dict[str, tuple[int, str]] = {
    "the teacher predicts": (1000, "what the teacher predicts cannot be written: .*; make room"),
    "a state is saved": (10**6, "the state after step 1 cannot be written: .*; make room"),
}


@for_each("size, message", FULL)
def test_a_disk_that_is_full_stops_the_run_and_costs_nothing_that_is_done_when(
    inputs: Path, whole_student: Path, tmp_path: Path, size: int, message: str
) -> None:
    request = place(inputs, tmp_path)
    with limit_files(size), pytest.raises(DistillationError, match=message):
        run(request)

    assert not request.out.exists()
    assert run(request)[0].sha256 == hash_weights(whole_student)


def test_text_alone_asks_the_teacher_for_what_is_held_out_only(inputs: Path, tmp_path: Path) -> None:
    _, soft = run(place(inputs, tmp_path / "soft", steps=1))
    _, hard = run(place(inputs, tmp_path / "hard", steps=1, hard_weight=1.0))

    assert "teacher: example 1 of 6" in soft
    assert "teacher: example 1 of 2" in hard


def test_a_training_that_diverges_stops_with_figures_and_writes_no_student(inputs: Path, tmp_path: Path) -> None:
    own = write_tiny(tmp_path / "own", tmp_path)
    change_weight(own, "model.norm.weight", 1e30)
    request = replace(place(inputs, tmp_path, layers=None), student=own)

    with pytest.raises(DistillationError) as caught:
        run(request)
    assert "the training diverged at step 1 of 6: loss" in str(caught.value)
    assert "gradient inf, learning rate 3.00e-04; the first step." in str(caught.value)
    assert "Give a lower learning rate" in str(caught.value)
    assert not request.out.exists()
    assert not (request.work / "state.safetensors").exists()


NO_NUMBERS: dict[str, tuple[str, str]] = {
    "a teacher": ("teacher", "teacher: what it predicts is no number, .* get its checkpoint again"),
    "a student": ("student", "student: what it predicts is no number; give"),
}


@for_each("role, message", NO_NUMBERS)
def test_no_numbers_are_refused_from(inputs: Path, tmp_path: Path, role: str, message: str) -> None:
    broken = write_tiny(tmp_path / "broken", tmp_path)
    change_weight(broken, "model.embed_tokens.weight", math.nan)
    request = place(inputs, tmp_path, layers=None)
    other = broken if role == "student" else inputs / "teacher"

    with pytest.raises(DistillationError, match=message):
        run(replace(request, teacher=broken if role == "teacher" else request.teacher, student=other))


# Requests that are refused before anything is computed.


def refuse(request: DistillationRequest, message: str, process: TrainingProcess | None = None) -> None:
    """Expect the message, no line about computing, and nothing left behind but an empty working folder."""
    lines: list[str] = []
    with pytest.raises(DistillationError, match=message):
        distil(request, process or TrainingProcess(lines.append, lambda: 0.0))
    assert not [line for line in lines if line.startswith(("teacher:", "step"))]
    assert not request.work.exists() or not list(request.work.iterdir())


def test_a_student_that_exists_is_not_overwritten(inputs: Path, whole_student: Path, tmp_path: Path) -> None:
    before = hash_weights(whole_student)
    refuse(
        replace(place(inputs, tmp_path), out=whole_student), "out: .* already exists; remove it, or give another name"
    )

    assert hash_weights(whole_student) == before


TOKENIZERS: dict[str, tuple[str, Any]] = {
    "a token under another number": ("model", lambda part: part["vocab"].update({"a": 1, "b": 0})),
    "another merge": ("model", lambda part: part["merges"].pop()),
    "another special token": ("added_tokens", lambda part: part[0].update(content="<|end|>")),
    "another way to split": ("pre_tokenizer", lambda part: part["pretokenizers"].pop(0)),
}


@for_each("part, change", TOKENIZERS)
def test_a_student_is_refused_with_another_tokenizer_that_has(
    inputs: Path, tmp_path: Path, part: str, change: Any
) -> None:
    own = write_tiny(tmp_path / "own", tmp_path, layers=2)
    content = json.loads((own / "tokenizer.json").read_text())
    change(content[part])
    (own / "tokenizer.json").write_text(json.dumps(content))

    message = f"student: tokenizer.json: {part}: differs from the teacher's, .* take a student of the same family"
    refuse(replace(place(inputs, tmp_path, layers=None), student=own), message)


def test_a_student_without_tokenizer_json_is_refused(inputs: Path, tmp_path: Path) -> None:
    own = write_tiny(tmp_path / "own", tmp_path, layers=2)
    (own / "tokenizer.json").unlink()
    (own / "vocab.json").write_text("{}")
    (own / "merges.txt").write_text("")

    refuse(
        replace(place(inputs, tmp_path, layers=None), student=own), "student: .*tokenizer.json is missing: only such"
    )


def test_a_token_that_the_teacher_has_no_embedding_for_is_refused(inputs: Path, tmp_path: Path) -> None:
    """The checkpoint's vocabulary is complete without it: it was added to the tokenizer later."""
    teacher = Path(shutil.copytree(inputs / "teacher", tmp_path / "teacher"))
    path = teacher / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    like = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [like | {"id": 267, "content": "<last>"}, like | {"id": 268, "content": "<new>"}]
    path.write_text(json.dumps(tokenizer))
    data = write_data(tmp_path / "data.jsonl", [{"text": f"hello <new> {number}"} for number in range(30)])

    message = (
        r"teacher: tokenizer.json: '<new>' is token 268, and the model has 268 \(vocab_size\); give the model's own"
    )
    refuse(replace(place(inputs, tmp_path), teacher=teacher, data=data), message)


def test_a_disk_without_room_is_refused_before_anything_is_computed(inputs: Path, tmp_path: Path) -> None:
    little = TrainingProcess(lambda line: None, lambda: 0.0, measure_disk=lambda folder: Disk(0, 10**6))

    message = r"work: .* has 1\.0 MB free, and [4-9]\.\d MB are needed: [\d.]+ MB for .* make room, or give a folder on another disk"
    refuse(place(inputs, tmp_path), message, little)


def test_a_disk_without_room_for_the_student_alone_is_refused_before_anything_is_computed(
    inputs: Path, tmp_path: Path
) -> None:
    request = place(inputs, tmp_path)
    little = TrainingProcess(
        lambda line: None,
        lambda: 0.0,
        measure_disk=lambda folder: Disk(0, 10**9) if folder == request.work else Disk(1, 10**5),
    )

    message = r"out: .* has 0\.1 MB free, and 0\.\d MB are needed for the trained model; make room, or give a folder on"
    refuse(request, message, little)


def test_a_disk_that_has_room_is_enough(inputs: Path, tmp_path: Path) -> None:
    request = place(inputs, tmp_path, steps=2)
    distil(request, TrainingProcess(lambda line: None, lambda: 0.0, measure_disk=lambda folder: Disk(0, 10**7)))
    assert request.out.is_dir()


def test_a_length_beyond_the_context_is_refused(inputs: Path, tmp_path: Path) -> None:
    refuse(place(inputs, tmp_path, length=600), "length: 600 is more than the context of the models")


def test_a_gguf_file_is_no_teacher_and_the_message_says_how_to_make_one(inputs: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path)

    refuse(
        replace(place(inputs, tmp_path), teacher=file), "teacher: .* is a file, .*; r1plus engine convert .* --out DIR"
    )


BROKEN: dict[str, tuple[str, Any, str]] = {
    "another architecture": ("config.json", {"model_type": "gpt2"}, "teacher: model_type: 'gpt2' is not llama"),
    "quantised weights": ("config.json", {"quantization_config": {"bits": 4}}, "teacher: "),
    "no weights": ("model.safetensors", None, "teacher: .*safetensors: missing"),
    "code of its own": ("config.json", {"auto_map": {"x": "y"}}, "teacher: .*auto_map: .* never trusted"),
    "weights that are cut off": ("model.safetensors", 1000, "teacher: "),
    "layers that are missing": (
        "config.json",
        {"num_hidden_layers": 5},
        "teacher: .*num_hidden_layers: 5, the tensors are",
    ),
}


@for_each("name, change, message", BROKEN)
def test_a_teacher_is_refused_with(inputs: Path, tmp_path: Path, name: str, change: Any, message: str) -> None:
    teacher = shutil.copytree(inputs / "teacher", tmp_path / "teacher")
    path = teacher / name
    if change is None:
        path.unlink()
    elif isinstance(change, int):
        path.write_bytes(path.read_bytes()[:change])
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    refuse(replace(place(inputs, tmp_path), teacher=teacher), message)


def test_a_folder_that_is_not_there_is_no_teacher(inputs: Path, tmp_path: Path) -> None:
    refuse(replace(place(inputs, tmp_path), teacher=tmp_path / "none"), "teacher: ")
