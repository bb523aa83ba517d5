"""The container `build` of a Job that distils: what it leaves, what survives its pod, and what it refuses."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from r1plus_contract.engine.engine_fetch import (
    EXIT_PERMANENT,
    EXIT_RETRYABLE,
    FillPhase,
    FillProgress,
)
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Item
from r1plus_model_repo import built_engine
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.seal import seal
from r1plus_model_repo.kv_shape import read_kv_shape
from r1plus_training.distill_job import TrainingError
from support.golden_suites import files_of
from support.model import environment
from support.model.tiny_models import write_tiny
from support.model.training_volume import OPTIONS, TrainingVolume, ignore
from support.ports import free_port
from support.tables import for_each

pytestmark = pytest.mark.model


class KilledError(BaseException):
    """The pod is killed: nothing of the process runs any more."""


def count_layers(volume: TrainingVolume) -> int:
    return int(json.loads((volume.engine / "config.json").read_text())["num_hidden_layers"])


def digest_of(volume: TrainingVolume) -> str:
    return built_engine.compute_files_digest(volume.engine)


def test_the_student_is_a_sealed_engine_and_nothing_else_stays(place: TrainingVolume) -> None:
    progress = place.run()

    built = built_engine.read_built(place.engine)
    assert built is not None and built.key == place.order.build.key  # type: ignore[union-attr]
    assert built.files == digest_of(place)
    assert count_layers(place) == 3
    record = json.loads((place.engine / "distilled.json").read_text())
    assert (record["recipe"]["steps"], record["after"]["divergence"] < record["before"]["divergence"]) == (6, True)
    assert sorted(path.name for path in place.volume.iterdir()) == [".lock", ".source", "engine"]
    phases = [one.phase for one in progress]
    assert phases[0] is FillPhase.PREDICTING and phases[-1] is FillPhase.IMPORTING
    trained = [one for one in progress if one.phase is FillPhase.TRAINING]
    assert [(one.done, one.total) for one in trained] == [(step, 6) for step in range(1, 7)]
    assert all(one.loss and one.seconds_left is not None for one in trained)


def test_what_is_there_is_not_trained_again(place: TrainingVolume) -> None:
    place.run()
    before = digest_of(place)
    assert not place.fetch()
    assert not place.train()
    seal(place.order, place.volume, "pod-1", ignore)
    assert digest_of(place) == before


def test_a_student_of_its_own_is_trained(place: TrainingVolume) -> None:
    add_student(place)
    place.run()
    assert count_layers(place) == 2


def test_openvino_gets_the_student_in_the_precision_of_the_engine(place: TrainingVolume) -> None:
    place.options = replace(OPTIONS, backend="openvino", precision="Q8_0")
    place.run()
    assert read_kv_shape(place.engine).layers == 3
    assert json.loads((place.engine / "engine.json").read_text())["precision"] == "Q8_0"
    assert (place.engine / "distilled.json").is_file()


def kill_at(phase: FillPhase, done: int = 0) -> Callable[[FillProgress], None]:
    """Return a report that kills its pod there."""

    def report(progress: FillProgress) -> None:
        if progress.phase is phase and progress.done >= done:
            raise KilledError

    return report


@for_each("report", {
    "before the teacher predicts": kill_at(FillPhase.PREDICTING),
    "while the teacher predicts": kill_at(FillPhase.PREDICTING, 1),
    "after the first step": kill_at(FillPhase.TRAINING, 1),
    "after the last step": kill_at(FillPhase.TRAINING, 6),
    "before the student becomes an engine": kill_at(FillPhase.IMPORTING),
})  # fmt: skip
def test_the_next_pod_goes_on_where_one_was_killed(
    place: TrainingVolume, report: Callable[[FillProgress], None]
) -> None:
    whole = TrainingVolume(place.root / "whole", OPTIONS)
    shutil.copytree(place.root / "artifact", whole.root / "artifact")
    whole.run()
    place.fetch()
    with pytest.raises(KilledError):
        place.train("pod-1", report)
    place.run("pod-2")
    assert digest_of(place) == digest_of(whole)


@for_each("name, first_step", {
    "the checkpoint": ("state.safetensors", 1),
    "a prediction that is measured with": ("teacher/*", 4),
    "the recipe": ("recipe.json", 1),
    "the start": ("start.json", 4),
})  # fmt: skip
def test_the_next_pod_makes_again_what_a_power_cut_left_empty(
    place: TrainingVolume, name: str, first_step: int
) -> None:
    whole = TrainingVolume(place.root / "whole", OPTIONS)
    shutil.copytree(place.root / "artifact", whole.root / "artifact")
    whole.run()
    place.fetch()
    with pytest.raises(KilledError):
        place.train("pod-1", kill_at(FillPhase.TRAINING, 4))
    max((place.volume / ".training" / "work").glob(name)).write_bytes(b"")
    progress = place.run("pod-2")
    assert digest_of(place) == digest_of(whole)
    assert next(one.done for one in progress if one.phase is FillPhase.TRAINING) == first_step


def test_the_next_pod_does_not_repeat_steps(place: TrainingVolume) -> None:
    place.fetch()
    with pytest.raises(KilledError):
        place.train("pod-1", kill_at(FillPhase.TRAINING, 4))
    progress = place.run("pod-2")
    assert [one.done for one in progress if one.phase is FillPhase.TRAINING] == [4, 5, 6]
    assert len([one for one in progress if one.phase is FillPhase.PREDICTING]) == 1, "the teacher predicts once"


def test_a_pod_that_was_killed_before_the_seal_has_not_trained_in_vain(place: TrainingVolume) -> None:
    place.fetch()
    place.train("pod-1")
    progress = place.run("pod-2")
    assert [one.phase for one in progress] == [FillPhase.IMPORTING]
    assert place.engine.is_dir()


def test_a_pod_that_is_asked_to_stop_ends_with_a_code_that_is_retried(place: TrainingVolume) -> None:
    trained: list[FillProgress] = []
    place.fetch()
    with pytest.raises(TrainingError) as raised:
        place.train("pod-1", trained.append, lambda: bool(trained) and trained[-1].phase is FillPhase.TRAINING)
    assert raised.value.exit_code == EXIT_RETRYABLE
    assert str(raised.value).startswith("TrainingStopped: stopped after step 1 of 6")
    place.run("pod-2")
    assert place.engine.is_dir()


def test_a_pod_of_a_job_that_was_replaced_is_waited_for_also_while_it_imports(place: TrainingVolume) -> None:
    """It has two minutes to end, and the new Job's pod starts at once."""
    codes: list[int] = []

    def start_another_pod(progress: FillProgress) -> None:
        if progress.phase is FillPhase.IMPORTING:
            with pytest.raises(TrainingError, match="another pod trains on this volume") as raised:
                place.train("pod-2")
            codes.append(raised.value.exit_code)

    place.fetch()
    place.train("pod-1", start_another_pod)
    assert codes == [EXIT_RETRYABLE]
    seal(place.order, place.volume, "pod-1", ignore)
    assert count_layers(place) == 3


@for_each("code, exit_code, text", {
    "a full volume": (errno.ENOSPC, EXIT_PERMANENT, "raise spec.build.distill.storage"),
    "a volume that is away": (errno.EIO, EXIT_RETRYABLE, "check the volume"),
})  # fmt: skip
def test_an_error_of_the_volume_says_what_helps(
    place: TrainingVolume, monkeypatch: pytest.MonkeyPatch, code: int, exit_code: int, text: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code), "student.gguf")

    monkeypatch.setattr("r1plus_training.distill_job._place", fail)
    place.fetch()
    with pytest.raises(TrainingError, match=text) as raised:
        place.train()
    assert raised.value.exit_code == exit_code


def test_the_name_of_the_engine_is_not_of_its_files(place: TrainingVolume) -> None:
    """Two engines of one recipe share the volume, and the first name must not decide the files."""
    place.options = replace(OPTIONS, backend="openvino", precision="FP16", steps=1)
    other = TrainingVolume(place.root / "other", place.options, "bank-edge-next")
    shutil.copytree(place.root / "artifact", other.root / "artifact")
    place.run()
    other.run()
    assert place.order.build == other.order.build
    assert digest_of(place) == digest_of(other)


def refuse(place: TrainingVolume, text: str) -> None:
    place.fetch()
    with pytest.raises(TrainingError) as raised:
        place.train()
    assert raised.value.exit_code == EXIT_PERMANENT
    assert str(raised.value).startswith("TrainingRefused: ")
    assert text in str(raised.value)
    assert "--" not in str(raised.value), "an option of a command line is of no use here"
    assert not place.engine.exists()


def set_data(place: TrainingVolume, text: str) -> None:
    (place.root / "artifact" / "data.jsonl").write_text(text)


def add_student(place: TrainingVolume) -> Path:
    """Write a checkpoint of its own for the student; return its folder."""
    place.options = replace(OPTIONS, layers=None)
    return write_tiny(place.root / "artifact" / "student", place.root, seed=1, layers=2)


def add_foreign_student(place: TrainingVolume) -> None:
    """The same with another tokenizer."""
    path = add_student(place) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"].update({"a": 1, "b": 0})
    path.write_text(json.dumps(tokenizer))


def add_diverging_student(place: TrainingVolume) -> None:
    """The same with a gradient that is no number."""
    path = add_student(place) / "model.safetensors"
    weights = {key: tensor.float() for key, tensor in load_file(path).items()}
    weights["model.norm.weight"] *= 1e30
    save_file(weights, path, {"format": "pt"})


def ask_for_openvino(place: TrainingVolume) -> None:
    """Let the student be served by a backend that has no word for how this teacher's tokenizer splits text."""
    place.options = replace(OPTIONS, backend="openvino", precision="FP16")
    path = place.root / "artifact" / "teacher" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Lowercase"}}))


def question_of(suite: str) -> str:
    return json.dumps({"prompt": "What is the capital of Australia?", "answer": suite}) + "\n"


@for_each("spoil, text", {
    "lines of another form": (lambda p: set_data(p, '{"question": "?"}\n'), "spec.artifact: data.jsonl: line 1: has question"),
    "too few lines": (lambda p: set_data(p, '{"text": "a"}\n'), "spec.artifact: data.jsonl: 1 lines give"),
    "a question of a shipped suite": (lambda p: set_data(p, question_of("Canberra") * 3), "have questions of a golden suite"),
    "another tokenizer": (add_foreign_student, "spec.artifact: student/: tokenizer.json: "),
    "as many layers as the teacher": (
        lambda p: setattr(p, "options", replace(OPTIONS, layers=4)), "spec.build.distill.layers: 4 is not from 1 to 3",
    ),
    "more stored tokens than there are": (
        lambda p: setattr(p, "options", replace(OPTIONS, top=1024)), "spec.build.distill.top: 1024 is not from 1 to",
    ),
    "a length beyond the context": (
        lambda p: setattr(p, "options", replace(OPTIONS, length=8192)), "spec.build.distill.length: 8192 is more than",
    ),
    "a tokenizer that its backend has no word for": (
        ask_for_openvino, "spec.artifact: teacher/: tokenizer.json: pre_tokenizer: how it splits text is none of smollm, qwen2",
    ),
    "a gradient that is no number": (
        add_diverging_student, "spec.build.distill.learningRate: the training diverged at step 1 of 6",
    ),
})  # fmt: skip
def test_a_training_is_refused_with(
    place: TrainingVolume, spoil: Callable[[TrainingVolume], object], text: str
) -> None:
    spoil(place)
    refuse(place, text)


def test_a_question_of_the_suite_of_the_deployment_is_refused(place: TrainingVolume) -> None:
    question = json.loads((place.root / "artifact" / "data.jsonl").read_text().splitlines()[1])["prompt"]
    item = Item("item-0", "words", question, "contains", ("x",))
    files = files_of((item,))
    (place.root / "suite").mkdir()
    for name, text in files.texts().items():
        (place.root / "suite" / name).write_text(text)
    refuse(place, "(line 2 has bank-v1/item-0)")


def test_a_suite_that_cannot_be_read_is_refused(place: TrainingVolume) -> None:
    (place.root / "suite").mkdir()
    (place.root / "suite" / "suite.json").write_text("{}")
    refuse(place, "spec.accuracy.suite: ")


@for_each("name, text", {
    "teacher": ("teacher", "teacher/ has no files"),
    "data": ("data.jsonl", "data.jsonl is no file, or empty"),
})  # fmt: skip
def test_an_artifact_without_its_parts_is_refused_before_the_training(
    place: TrainingVolume, name: str, text: str
) -> None:
    path = place.root / "artifact" / name
    shutil.rmtree(path) if path.is_dir() else path.write_text("")
    with pytest.raises(FillError, match=text) as raised:
        place.fetch()
    assert raised.value.exit_code == EXIT_PERMANENT


def test_a_checkpoint_of_another_recipe_is_refused_with_what_differs(place: TrainingVolume) -> None:
    place.fetch()
    with pytest.raises(KilledError):
        place.train("pod-1", kill_at(FillPhase.TRAINING, 2))
    place.options = replace(OPTIONS, steps=7)
    refuse(place, "is of another recipe: steps 6 (here 7); delete the claim, and it is trained again")


def test_a_student_of_another_recipe_is_not_taken_for_this_one(place: TrainingVolume) -> None:
    place.fetch()
    with pytest.raises(KilledError):
        place.train("pod-1", kill_at(FillPhase.IMPORTING))
    place.options = replace(OPTIONS, seed=1)
    refuse(place, "is of another recipe; delete the claim, and it is trained again")


def test_another_version_of_the_trainer_begins_again(place: TrainingVolume) -> None:
    place.fetch()
    with pytest.raises(KilledError):
        place.train("pod-1", kill_at(FillPhase.TRAINING, 4))
    path = place.volume / ".training" / "work" / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trainer": 0}))
    progress = place.run("pod-2")
    assert [one.done for one in progress if one.phase is FillPhase.TRAINING] == [1, 2, 3, 4, 5, 6]


def test_a_volume_without_room_says_which_field_to_raise(
    place: TrainingVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    refuse(place, "raise spec.build.distill.storage, or lower steps or top")


@pytest.fixture
def container(place: TrainingVolume) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the container's own command for the volume, with a free port; it ends with the test."""
    place.fetch()
    started: list[subprocess.Popen[str]] = []

    def start(text: Callable[[str], str] = str) -> "subprocess.Popen[str]":
        (place.root / "order").mkdir()
        (place.root / "order" / "order.json").write_text(text(dumps(place.order)))
        (place.root / "termination-log").touch()
        folders = {"order-dir": "order", "volume": "volume", "suite": "suite", "termination-log": "termination-log"}
        words = [word for name, path in folders.items() for word in (f"--{name}", str(place.root / path))]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "r1plus_training.distill_job", *words, "--port", str(free_port())],
                env={**os.environ, "PYTHONPATH": str(environment.prepare()), "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


Start = Callable[..., "subprocess.Popen[str]"]


def test_the_container_leaves_the_engine_and_its_successor_has_nothing_to_do(
    place: TrainingVolume, container: Start
) -> None:
    process = container()
    _, output = process.communicate()
    assert (process.returncode, "Engine bank-edge is trained" in output) == (0, True), output
    seal(place.order, place.volume, os.uname().nodename, ignore)
    assert count_layers(place) == 3


def test_the_container_says_in_its_status_why_a_retry_cannot_help(place: TrainingVolume, container: Start) -> None:
    place.options = replace(OPTIONS, layers=4)
    process = container()
    process.communicate()
    assert process.returncode == EXIT_PERMANENT
    message = (place.root / "termination-log").read_text()
    assert message.startswith("TrainingRefused: spec.build.distill.layers: 4 is not from 1 to 3")


def test_the_container_says_that_its_image_is_of_another_version(place: TrainingVolume, container: Start) -> None:
    process = container(text=lambda order: order.replace('"temperature"', '"warmth"'))
    process.communicate()
    assert process.returncode == EXIT_PERMANENT
    message = (place.root / "termination-log").read_text()
    assert message.startswith("TrainingRefused: images.trainer: it has another version of r1plus than the operator: ")


def test_the_container_ends_its_step_when_its_pod_is_deleted(place: TrainingVolume, container: Start) -> None:
    place.options = replace(OPTIONS, steps=100_000)
    process = container()
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 1 of"):
            process.send_signal(signal.SIGTERM)
    assert process.wait() == EXIT_RETRYABLE
    assert (place.root / "termination-log").read_text().startswith("TrainingStopped: stopped after step ")
    assert (place.volume / ".training" / "work" / "state.safetensors").is_file()
