"""Training by verifiable reward on a tiny model: what is kept, what is learnt, and that a kill changes nothing."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from r1plus_contract.engine.delivery import hash_file
from r1plus_contract.suites.suite import Item, load_suite
from r1plus_model.checkpoint import load_model
from r1plus_model.checkpoints import open_checkpoint
from r1plus_model.errors import DistillationError
from r1plus_model.sampling.constrained_sampling import AnswerSampler, PromptEncoder, open_sampler
from r1plus_model.sampling.continuous_batch import TorchBatch
from r1plus_model.sampling.token_sampling import TorchSampling
from r1plus_model.training.drawn_answers import merge_right, read_draws
from r1plus_model.training.loop import TrainingProcess
from r1plus_model.training.packing import BranchCache, compute_packed_states
from r1plus_model.training.reinforcement import ReinforcementRequest, reinforce
from r1plus_model.training.reward_tasks import RewardTask
from r1plus_model.training.work_folder import Disk
from support.golden_suites import files_of
from support.model import environment
from support.model.reinforce_process import (
    HELD_OUT,
    MOST_NEW_TOKENS,
    SMALL,
    TRAINING,
    build_task,
    evaluate,
    make_request,
    run,
)
from support.model.tiny_models import change_weight, write_data, write_tiny
from support.paths import TESTS
from support.tables import for_each

pytestmark = pytest.mark.model


SEED = "seed"


@pytest.fixture(scope="module")
def questions(inputs: Path) -> Path:
    """A folder with a tiny model and questions."""
    write_data(inputs / "training.jsonl", list(TRAINING))
    write_data(inputs / "held-out.jsonl", list(HELD_OUT))
    return inputs


@pytest.fixture(scope="module")
def trained(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that nothing interrupted."""
    return run(make_request(questions, tmp_path_factory.mktemp("whole")))[0].folder


@pytest.fixture(scope="module")
def sampler(inputs: Path) -> AnswerSampler:
    model = load_model(inputs / "teacher")
    encoder = PromptEncoder(inputs / "teacher", model.shape.context, model.shape.vocabulary)
    tasks = [build_task(one["prompt"], Fraction(one["answer"])) for one in TRAINING]
    return open_sampler(
        model, [encoder.encode(one.prompt, one.grammar, "data") for one in tasks], encoder.end, MOST_NEW_TOKENS
    )


def hash_weights(folder: Path) -> str:
    return hash_file(folder / "model.safetensors")


# Texts of one beginning.

BEGINNING, RESTS = [5, 9, 3, 7, 7], [[4, 8], [6], [11, 2, 5]]


def test_texts_of_one_beginning_get_the_states_that_each_gets_alone(inputs: Path) -> None:
    model = load_model(inputs / "teacher")
    packed = compute_packed_states(model, BEGINNING, RESTS)
    alone = [model.compute_states(torch.tensor([BEGINNING + rest]))[0, len(BEGINNING) :] for rest in RESTS]

    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_texts_of_one_beginning_have_the_gradients_that_each_has_alone(inputs: Path) -> None:
    gradients = []
    for is_packed in (True, False):
        model = load_model(inputs / "teacher").train()
        if is_packed:
            states = compute_packed_states(model, BEGINNING, RESTS)
        else:
            rows = [model.compute_states(torch.tensor([BEGINNING + rest]))[0, len(BEGINNING) :] for rest in RESTS]
            states = torch.cat(rows)
        states.square().sum().backward()  # type: ignore[no-untyped-call, unused-ignore]
        gradients.append({name: one.grad for name, one in model.named_parameters()})

    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-3, rtol=1e-3)


BEGINNINGS: dict[str, list[int]] = {"a beginning": BEGINNING, "nothing": []}


@for_each("beginning", BEGINNINGS)
def test_continuations_get_the_states_that_a_whole_text_gets_after(inputs: Path, beginning: list[int]) -> None:
    model = load_model(inputs / "teacher").eval()
    with torch.inference_mode():
        cache = BranchCache(model, beginning)
        for _ in range(2):  # What came before is forgotten.
            first = cache.begin(RESTS, 2)
            second = cache.extend([1, 4], [9, 10])
            third = cache.extend([4], [3])
        texts = [beginning + RESTS[0], beginning + RESTS[0] + [9], beginning + RESTS[2] + [10, 3]]
        last = [model.compute_states(torch.tensor([text]))[0, -1] for text in texts]

    for states, expected in ((first[1], last[0]), (second[0], last[1]), (third[0], last[2])):
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)


# Drawing.


def test_answers_are_those_that_the_backend_torch_draws(sampler: AnswerSampler) -> None:
    numbers = range(len(sampler.prompts))
    drawn = sampler.draw(numbers, 2, 1.0, SEED)

    batch = TorchBatch(sampler.model, 4, 256, sorted(sampler.end.end_ids))
    written: dict[Any, list[int]] = {}
    for number in numbers:
        for sample in range(2):
            sampling: TorchSampling = sampler._choose_sampling(number, sample, 1.0, SEED)
            batch.add((number, sample), sampler.prompts[number].tokens, sampling)
            written[number, sample] = []
    ended: set[Any] = set()
    while len(ended) < len(written):
        for made in batch.step():
            assert made.token is not None
            written[made.request_id].append(made.token)
            if made.reason is not None:
                ended.add(made.request_id)
    for (number, sample), tokens in written.items():
        answer = drawn[number][sample]
        assert tuple(tokens[: len(answer.tokens)]) == answer.tokens
        assert evaluate(answer.text) is not None


def test_a_draw_does_not_depend_on_what_is_drawn_with_it(sampler: AnswerSampler) -> None:
    (alone,) = sampler.draw([3], 4, 1.0, SEED)

    assert alone == sampler.draw(range(5), 4, 1.0, SEED)[3]
    assert alone != sampler.draw([3], 4, 1.0, "another")[0]


# What is kept.


def stop_in_training(request: ReinforcementRequest) -> None:
    lines: list[str] = []
    process = TrainingProcess(lines.append, lambda: 0.0, lambda: any("training on" in line for line in lines))
    with pytest.raises(DistillationError, match="stopped after step 0 of"):
        reinforce(request, process)


def test_exactly_the_right_answers_are_kept(questions: Path, tmp_path: Path) -> None:
    request = make_request(questions, tmp_path)
    stop_in_training(request)
    draws = read_draws(request.work / "drawn-1.jsonl")
    right = merge_right(draws)

    assert len(draws) == len(TRAINING)
    for draw in draws:
        assert sum(one.count for one in draw.answers) == SMALL["samples"]
        answer = Fraction(TRAINING[draw.question]["answer"])
        expected = {one.tokens for one in draw.answers if evaluate(one.text) == answer}
        assert set(right.get(draw.question, [])) == expected
    assert 0 < sum(map(len, right.values())) < sum(len(draw.answers) for draw in draws)


REWARDS: dict[str, tuple[str, str, bool]] = {
    "the expression": (" 11 + 40\n", "51", True),
    "another right one": ("40 + 11", "51", True),
    "a wrong one": (" 11 * 40\n", "51", False),
    "an exact fraction": ("11 / 33", "1/3", True),
    "a fraction that was rounded": ("11 / 33", "0.3333333333333333", False),
    "no expression": ("eleven", "51", False),
    "the empty expression": ("", "51", False),
    "spaces alone": (" \n", "51", False),
}


@for_each("text, answer, is_right", REWARDS)
def test_a_reward_is_given_for(text: str, answer: str, is_right: bool) -> None:
    task = build_task("11 and 40", Fraction(answer))
    assert task.is_right(text) is is_right


def test_an_empty_text_has_no_reward_whatever_evaluates_it() -> None:
    task = replace(build_task("11 and 40", Fraction(0)), evaluate=lambda text: Fraction(0))
    assert task.is_right("nothing")
    assert not task.is_right(" \n")


# What it makes.


def test_a_model_learns_from_its_own_right_answers(questions: Path, tmp_path: Path) -> None:
    result, lines = run(make_request(questions, tmp_path, rounds=3, steps=40))
    record = result.record

    assert record.rounds[2].right > 2 * record.rounds[0].right
    assert record.change.after > record.change.before
    assert record.change.questions == len(HELD_OUT)
    assert record.change.after - record.change.before == record.change.gained - record.change.lost
    assert record.rounds[-1].held_out_right == record.change.after
    assert f"after round 3: {record.change.after} of {len(HELD_OUT)} held-out questions right" in lines


def test_the_result_is_a_checkpoint_with_its_record(questions: Path, trained: Path) -> None:
    record = json.loads((trained / "reinforced.json").read_text())

    assert open_checkpoint(trained, "model").shape == open_checkpoint(questions / "teacher", "model").shape
    assert record["recipe"]["model"] == open_checkpoint(questions / "teacher", "model").digest
    assert record["recipe"]["data"] == hash_file(questions / "training.jsonl")
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]


# The same each time.


def test_the_same_recipe_gives_the_same_weights(questions: Path, trained: Path, tmp_path: Path) -> None:
    assert run(make_request(questions, tmp_path))[0].sha256 == hash_weights(trained)


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "temperature": {"temperature": 2.0},
    "number of rounds": {"rounds": 1},
}


@for_each("values", CHANGES)
def test_other_weights_come_of_another(questions: Path, trained: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    assert run(make_request(questions, tmp_path, **values))[0].sha256 != hash_weights(trained)


KILLS: dict[str, dict[str, Any]] = {
    "before anything is computed": {"kill_line": "reading"},
    "while round 1 draws": {"kill_call": 3},
    "before round 1 trains": {"kill_line": "round 1: training"},
    "in the middle of round 1": {"kill_line": "step 3 of"},
    "in the middle, without a state since the start": {"kill_line": "step 3 of", "save_seconds": 1e9},
    "after round 1 is measured": {"kill_line": "after round 1"},
    "while round 2 draws": {"kill_line": "round 2: question"},
    "before round 2 trains": {"kill_line": "round 2: training"},
    "after the last round": {"kill_line": "after round 2"},
}


@for_each("kill", KILLS)
def test_the_same_weights_come_after_a_kill(
    questions: Path, trained: Path, tmp_path: Path, kill: dict[str, Any]
) -> None:
    order = json.dumps({"inputs": str(questions), "folder": str(tmp_path), **kill})
    path = os.pathsep.join([str(TESTS), str(environment.prepare())])
    child = subprocess.run(
        [sys.executable, "-m", "support.model.reinforce_process", order],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert child.returncode == -signal.SIGKILL, child.stderr
    request = make_request(questions, tmp_path)
    assert not request.out.exists()
    assert run(request)[0].sha256 == hash_weights(trained)
    assert not request.work.exists()


def test_a_line_that_a_kill_has_cut_is_drawn_again(questions: Path, trained: Path, tmp_path: Path) -> None:
    request = make_request(questions, tmp_path)
    stop_in_training(request)
    path = request.work / "drawn-1.jsonl"
    path.write_bytes(path.read_bytes()[:-5])

    assert len(read_draws(path)) == len(TRAINING) - 1
    assert run(request)[0].sha256 == hash_weights(trained)


# What goes wrong on the way.


def test_a_model_whose_numbers_are_none_stops(questions: Path, tmp_path: Path) -> None:
    broken = write_tiny(tmp_path / "broken", tmp_path)
    change_weight(broken, "model.embed_tokens.weight", math.nan)
    request = replace(make_request(questions, tmp_path), model=broken)

    with pytest.raises(DistillationError, match="model: what it predicts is no number; get its checkpoint again"):
        run(request)
    assert not request.out.exists()


def test_a_training_that_diverges_stops_with_figures_and_writes_no_model(questions: Path, tmp_path: Path) -> None:
    broken = write_tiny(tmp_path / "broken", tmp_path)
    change_weight(broken, "model.norm.weight", 1e30)

    def allow_one(question: str, answer: Fraction) -> RewardTask:
        first, second = re.findall(r"\d+", question)
        return replace(build_task(question, answer), grammar=f'root ::= " {first} + {second}\\n"\n')

    request = replace(make_request(questions, tmp_path), model=broken, build_task=allow_one)

    with pytest.raises(
        DistillationError, match=r"learning_rate: the training diverged at step 1 of 6: loss .*gradient"
    ):
        run(request)
    assert not request.out.exists()


def test_a_round_without_a_right_answer_stops_with_a_remedy(questions: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.jsonl", [one | {"answer": "7"} for one in TRAINING])
    request = replace(make_request(questions, tmp_path), data=data)

    with pytest.raises(DistillationError, match=r"data: none of 80 answers to 10 questions is right, .* more samples"):
        run(request)
    assert not request.out.exists()


# Requests that are refused before anything is computed.


def refuse(request: ReinforcementRequest, message: str) -> None:
    lines: list[str] = []
    with pytest.raises(DistillationError, match=message):
        reinforce(request, TrainingProcess(lines.append, lambda: 0.0))
    assert lines == [f"reading {request.model}"]


def test_held_out_questions_of_the_data_are_refused_with_other_numbers_too(questions: Path, tmp_path: Path) -> None:
    lines = [*HELD_OUT, {"prompt": "77 Books and 78", "answer": "155"}]
    request = replace(make_request(questions, tmp_path), held_out=write_data(tmp_path / "held-out.jsonl", lines))

    refuse(request, r"held_out: 1 of 7 questions are in the data, .*\(question 7 is question 2 of the data\): what was")


def test_questions_of_a_golden_suite_are_refused(questions: Path, tmp_path: Path) -> None:
    files = files_of((Item("item-0", "loans", TRAINING[4]["prompt"], "contains", ("55",)),))
    request = replace(make_request(questions, tmp_path), suites=(load_suite(files.header, files.items),))

    refuse(request, r"data: 1 of 10 lines have questions of a golden suite \(line 5 has bank-v1/item-0\)")


LINES: dict[str, tuple[Sequence[Any], str]] = {
    "a text alone": ([{"text": "hello"}], "held_out: line 1: has a text alone; a line is"),
    "words for an answer": (
        [{"prompt": "3 and 4", "answer": "seven"}],
        "held_out: line 1: answer: 'seven' is no number",
    ),
    "a division by 0 in other digits": (
        [{"prompt": "3 and 4", "answer": "7/\u0660"}],
        "held_out: line 1: answer: '7/\u0660' is no number",
    ),
    "a division by 0": ([{"prompt": "3 and 4", "answer": "7/0"}], "held_out: line 1: answer: '7/0' is no number"),
    "a question that is none": (
        [{"prompt": "3", "answer": "3"}],
        "held_out: line 1: prompt: has not two numbers; give",
    ),
    "many of these": ([{"prompt": "3", "answer": "3"}] * 5, "held_out: 2 more such lines"),
    "no line": ([], "held_out: .* has no line"),
}


@for_each("lines, message", LINES)
def test_a_file_is_refused_with(questions: Path, tmp_path: Path, lines: Sequence[Any], message: str) -> None:
    path = write_data(tmp_path / "held-out.jsonl", list(lines))
    refuse(replace(make_request(questions, tmp_path), held_out=path), message)


TOKENIZERS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "no end": (
        "tokenizer_config.json",
        lambda content: content.pop("eos_token"),
        "its tokenizer cannot be used: .*no token",
    ),
    "a token beyond the embeddings": (
        "tokenizer.json",
        lambda content: content["added_tokens"].extend(
            content["added_tokens"][0] | {"id": number, "content": text}
            for number, text in ((267, "<last>"), (268, "and"))
        ),
        r"model: tokenizer.json: 'and' is token 268, and the model has 268 \(vocab_size\); give the model's own tokenizer",
    ),
}


@for_each("name, change, message", TOKENIZERS)
def test_a_model_is_refused_whose_tokenizer_has(
    questions: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    model = Path(shutil.copytree(questions / "teacher", tmp_path / "model"))
    (model / "generation_config.json").unlink(missing_ok=True)
    content = json.loads((model / name).read_text())
    change(content)
    (model / name).write_text(json.dumps(content))

    with pytest.raises(DistillationError, match=message):
        reinforce(
            replace(make_request(questions, tmp_path), model=model), TrainingProcess(lambda line: None, lambda: 0.0)
        )


VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "no round": ({"rounds": 0}, "rounds: 0 is not from 1 to 100"),
    "too many samples": ({"samples": 33}, "samples: 33 is not from 1 to 32"),
    "no temperature": ({"temperature": 0.0}, "temperature: 0.0 is not from 0.01 to 10: 1 draws"),
    "no number": ({"learning_rate": math.nan}, "learning_rate: nan is not from 1e-08 to 1"),
    "another precision": ({"precision": "int8"}, "precision: 'int8' is not one of float32, bfloat16"),
}


@for_each("values, message", VALUES)
def test_a_recipe_is_refused_with(questions: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    refuse(make_request(questions, tmp_path, **values), message)


def test_a_working_folder_of_another_recipe_is_refused(questions: Path, tmp_path: Path) -> None:
    stop_in_training(make_request(questions, tmp_path))

    with pytest.raises(DistillationError, match=r"of another recipe: steps 6 \(here 7\)"):
        run(make_request(questions, tmp_path, steps=7))


def ask_otherwise(question: str, answer: Fraction) -> RewardTask:
    """Return the task of a release with another prompt."""
    task = build_task(question, answer)
    return replace(task, prompt=task.prompt.replace("Q:", "Question:"))


def allow_more(question: str, answer: Fraction) -> RewardTask:
    """Return the task of a release with another grammar."""
    task = build_task(question, answer)
    return replace(task, grammar=task.grammar.replace('" / "', '" / " | " % "'))


RELEASES: dict[str, dict[str, Any]] = {
    "prompt": {"build_task": ask_otherwise},
    "grammar": {"build_task": allow_more},
    "longest answer": {"most_new_tokens": MOST_NEW_TOKENS + 1},
}


@for_each("change", RELEASES)
def test_answers_are_not_mixed_with_those_drawn_under_another(
    questions: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    request = make_request(questions, tmp_path)
    stop_in_training(request)

    with pytest.raises(
        DistillationError, match=r"of another recipe: task [0-9a-f]{64} \(here [0-9a-f]{64}\); give another"
    ):
        run(replace(request, **change))


def test_a_working_folder_that_does_not_say_what_was_asked_is_refused(questions: Path, tmp_path: Path) -> None:
    """As an earlier commit wrote it."""
    request = make_request(questions, tmp_path)
    stop_in_training(request)
    path = request.work / "recipe.json"
    recipe = json.loads(path.read_text())
    del recipe["task"]
    path.write_text(json.dumps(recipe))

    with pytest.raises(
        DistillationError, match=r"of another recipe: task not recorded \(here [0-9a-f]{64}\); give another"
    ):
        run(request)


def test_a_disk_without_room_is_refused(questions: Path, tmp_path: Path) -> None:
    little = TrainingProcess(lambda line: None, lambda: 0.0, measure_disk=lambda folder: Disk(0, 10**6))

    with pytest.raises(DistillationError, match=r"work: .* has 1\.0 MB free, and .* are needed .*; make room"):
        reinforce(make_request(questions, tmp_path), little)


def test_a_question_beyond_the_context_is_refused(questions: Path, tmp_path: Path) -> None:
    model = shutil.copytree(questions / "teacher", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))

    with pytest.raises(DistillationError, match=r"data: question 1 has \d+ tokens .* at most 16 leave room .*; remove"):
        run(replace(make_request(questions, tmp_path), model=model))
