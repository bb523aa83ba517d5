"""Workers that train one student together: the steps of one worker, and what survives the loss of each."""

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, EXIT_RETRYABLE
from r1plus_model.errors import DistillationError
from r1plus_model.training.workers import read_workers
from support.model.training_volume import OPTIONS, TrainingVolume
from support.model.worker_processes import WorkerProcesses, use_workers
from support.tables import for_each
from support.waiting import wait_until

pytestmark = pytest.mark.model
STEPS = 60
RUNTIME = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "job-node-0-0.job", "PET_MASTER_PORT": "29500"}


@pytest.fixture
def place(place: TrainingVolume) -> TrainingVolume:
    """Long enough that a worker can be killed in the middle."""
    place.options = replace(OPTIONS, steps=STEPS)
    return place


def weights_of(student: Path) -> dict[str, torch.Tensor]:
    return load_file(student / "model.safetensors")


def train_to_the_end(workers: WorkerProcesses) -> None:
    """Start every worker, and wait until all have ended well."""
    for rank, process in enumerate([workers.start(rank) for rank in range(workers.count)]):
        assert process.wait() == 0, workers.log(rank)


def train(place: TrainingVolume, count: int) -> Path:
    """Return the student of so many workers that nothing happens to, beside the volume."""
    with use_workers(place, count) as workers:
        train_to_the_end(workers)
        return workers.student.rename(place.root / f"student-of-{count}")


@for_each("count, batch", {
    "two": (2, 4),
    "two with several parts of a step each": (2, 8),
    "three, one of which has nothing to do in any step": (3, 4),
})  # fmt: skip
def test_workers_take_the_steps_of_one(place: TrainingVolume, count: int, batch: int) -> None:
    """The same but for rounding: far less than what the steps change."""
    place.options = replace(place.options, batch=batch)
    alone, together = (train(place, number) for number in (1, count))
    for name, weight in weights_of(alone).items():
        other = weights_of(together)[name]
        assert torch.allclose(weight, other, rtol=1e-3, atol=2e-5), (name, (weight - other).abs().max())
    records = [json.loads((student / "distilled.json").read_text()) for student in (alone, together)]
    assert records[0]["recipe"] == records[1]["recipe"]
    assert records[0]["after"]["divergence"] == pytest.approx(records[1]["after"]["divergence"], abs=2e-3)
    assert records[0]["after"]["divergence"] < 0.99 * records[0]["before"]["divergence"]


@for_each("rank", {"the leader": 0, "another": 1})
def test_a_worker_that_is_killed_costs_no_step(place: TrainingVolume, rank: int) -> None:
    expected = digest_folder(train(place, 2))
    with use_workers(place) as workers:
        both = [workers.start(number) for number in (0, 1)]
        killed_at = wait_until(lambda: workers.steps if workers.steps >= 5 else None, "five steps are saved")
        both[rank].send_signal(signal.SIGKILL)
        assert both[rank].wait() == -signal.SIGKILL
        assert killed_at < STEPS
        both[rank] = workers.start(rank)
        assert [process.wait() for process in both] == [0, 0], workers.log(1 - rank)
        assert "another worker is gone" in workers.log(1 - rank)
        assert digest_folder(workers.student) == expected


def test_the_leader_saves_when_another_worker_is_lost(place: TrainingVolume) -> None:
    place.options = replace(OPTIONS, steps=100_000)
    with use_workers(place) as workers:
        leader, other = (workers.start(number, save_seconds=1e9) for number in (0, 1))
        wait_until(lambda: "step 1 of" in workers.log(0), "a step is done")
        assert workers.steps == 0
        other.kill()
        wait_until(lambda: workers.steps, "the leader has saved")
        assert leader.poll() is None


def test_a_worker_that_should_stop_ends_after_its_step_and_the_other_waits_for_its_successor(
    place: TrainingVolume,
) -> None:
    with use_workers(place) as workers:
        leader, other = (workers.start(number) for number in (0, 1))
        wait_until(lambda: workers.steps, "a step is saved")
        other.send_signal(signal.SIGTERM)
        assert other.wait() == EXIT_RETRYABLE
        assert "TrainingStopped: stopped after step" in workers.log(1)
        assert workers.start(1).wait() == 0
        assert leader.wait() == 0
        assert "another worker stopped after step" in workers.log(0)


def test_who_comes_after_the_last_step_waits_for_nobody(place: TrainingVolume) -> None:
    with use_workers(place) as workers:
        train_to_the_end(workers)
        before = digest_folder(workers.student)
        for rank in (1, 0):
            assert workers.start(rank).wait() == 0, workers.log(rank)
        assert digest_folder(workers.student) == before


def test_the_leader_alone_writes_the_student_when_all_steps_are_done(place: TrainingVolume) -> None:
    """It was killed between the last checkpoint and the student, and the others have ended."""
    expected = digest_folder(train(place, 2))
    with use_workers(place) as workers:
        leader, other = (workers.start(number) for number in (0, 1))
        wait_until(lambda: workers.steps == STEPS or workers.student.exists(), "all steps are done", period_s=0.001)
        leader.kill()
        leader.wait()
        assert other.wait() == 0, workers.log(1)
        assert workers.start(0).wait() == 0, workers.log(0)
        assert digest_folder(workers.student) == expected


def test_predictions_that_are_empty_or_damaged_are_made_again(place: TrainingVolume) -> None:
    expected = digest_folder(train(place, 2))
    with use_workers(place) as workers:
        both = [workers.start(number) for number in (0, 1)]
        wait_until(lambda: workers.steps, "a step is saved")
        for process in both:
            process.kill()
            process.wait()
        for path in (workers.work / "teacher").iterdir():
            path.write_bytes(b"")
        (workers.work / "teacher" / "0000003.safetensors").write_bytes(b"no tensors")
        train_to_the_end(workers)
        assert digest_folder(workers.student) == expected


def test_a_refusal_of_the_leader_is_in_its_status(place: TrainingVolume) -> None:
    place.options = replace(OPTIONS, layers=4)
    with use_workers(place) as workers:
        leader, _ = (workers.start(number) for number in (0, 1))
        assert leader.wait() == EXIT_PERMANENT
    message = (place.root / "termination-0").read_text()
    assert message.startswith("TrainingRefused: spec.build.distill.layers: 4 is not from 1 to 3")


@for_each("variables, text", {
    "none": ({}, "runtime: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT not set in the container"),
    "no rank": ({**RUNTIME, "PET_NODE_RANK": ""}, "runtime: PET_NODE_RANK not set in the container"),
    "a rank that is no number": ({**RUNTIME, "PET_NODE_RANK": "one"}, "runtime: PET_NODE_RANK=one is no number"),
    "a port that is none": (
        {**RUNTIME, "PET_MASTER_PORT": "70000"}, "runtime: PET_MASTER_PORT=70000 is not from 1 to 65535; name a",
    ),
    "a rank above the count": ({**RUNTIME, "PET_NODE_RANK": "2"}, "PET_NODE_RANK=2 is not below PET_NNODES=2"),
})  # fmt: skip
def test_a_runtime_that_describes_no_workers_is_refused(variables: Mapping[str, str], text: str) -> None:
    with pytest.raises(DistillationError) as raised:
        read_workers(variables)
    assert text in str(raised.value)


def test_a_container_without_the_runtimes_variables_names_the_field(place: TrainingVolume) -> None:
    with use_workers(place) as workers:
        assert workers.start(0, PET_MASTER_ADDR="").wait() == EXIT_PERMANENT
    message = (place.root / "termination-0").read_text()
    assert message.startswith("TrainingRefused: spec.build.distill.runtimeRef: PET_MASTER_ADDR not set")
