"""Training by verifiable reward: expert iteration (Anthony et al. 2017; as STaR and ReST-EM use it) on one machine.

A round draws answers to the training's questions, keeps those whose value is exactly right, and trains the model that
it began with on all that was kept so far: only the answers' tokens count. Each round draws from the model of the round
before. Held-out questions are asked greedily, before and after each round; the last round's model is the result,
whatever they say.

The working folder has what is done, so a run that was killed goes on there, to the same weights.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.engine.delivery import hash_file
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Suite
from r1plus_model.checkpoints import Checkpoint, load, open_checkpoint
from r1plus_model.errors import DistillationError, InterruptedDistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.constrained_sampling import (
    ROWS,
    AnswerSampler,
    ConstrainedPrompt,
    PromptEncoder,
    SampledAnswer,
    open_sampler,
)
from r1plus_model.training import training_state
from r1plus_model.training.drawn_answers import Draw, DrawnAnswer, count_answers, count_right, merge_right, read_draws
from r1plus_model.training.examples import Example
from r1plus_model.training.loop import (
    GOES_ON,
    REPORT_SECONDS,
    GradientSource,
    TrainingProcess,
    autocast,
    choose_batch,
    run_steps,
)
from r1plus_model.training.losses import hard_label_loss
from r1plus_model.training.packing import compute_packed_states, find_beginning
from r1plus_model.training.reinforcement_recipe import (
    RECORD_FILE,
    Change,
    ReinforcementRecipe,
    ReinforcementRecord,
    RoundRecord,
    check_recipe,
)
from r1plus_model.training.reward_tasks import RewardTask, TaskBuilder, check_disjoint, digest_tasks, read_tasks
from r1plus_model.training.work_folder import (
    RECIPE_FILE,
    check_folders,
    check_room,
    make_student,
    measure_present,
    read_work,
    write_student,
)
from r1plus_policies.bounds import mcnemar_exact, paired_difference

MOST_KEPT: Final = 4
"""Different answers to one question that are trained on: those that were drawn most often."""
_ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class ReinforcementRequest:
    """What to train, and where to."""

    model: Path
    data: Path
    """Questions to train on."""
    held_out: Path
    """Questions to measure with."""
    out: Path
    """Appears when it is complete."""
    work: Path
    """Has what is done; removed at the end."""
    recipe: ReinforcementRecipe
    """Its digests are filled in from the files."""
    build_task: TaskBuilder
    most_new_tokens: int
    """Of an answer."""
    suites: tuple[Suite, ...] = ()
    """Golden suites whose questions must not be in the data."""


@dataclass(frozen=True, slots=True)
class Reinforcement:
    """A trained model."""

    folder: Path
    sha256: str
    """Of its weights."""
    record: ReinforcementRecord


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """Which held-out questions are right: the contents of `measured-ROUND.json`."""

    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class RoundSchedule:
    """The steps of one round."""

    key: str
    steps: int
    batch: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What was read and checked."""

    checkpoint: Checkpoint
    recipe: ReinforcementRecipe
    training: list[RewardTask]
    held_out: list[RewardTask]


def reinforce(request: ReinforcementRequest, process: TrainingProcess) -> Reinforcement:
    """Train the model and write its checkpoint.

    Raises:
        DistillationError: the request cannot be trained, or the training had to stop. `out` is not there then.
    """
    check_folders(request.out, request.work)
    inputs = _read_inputs(request, process)

    def make() -> tuple[str, ReinforcementRecord]:
        _check_room(request, inputs, process)
        replace_text(request.work / RECIPE_FILE, dumps(inputs.recipe))
        model, record = _Rounds(request, inputs, process).run()
        return write_student(request.out, model, inputs.checkpoint, RECORD_FILE, record), record

    made = make_student(request.out, request.work, inputs.recipe, RECORD_FILE, ReinforcementRecord, make)
    return Reinforcement(request.out, *made)


def _read_inputs(request: ReinforcementRequest, process: TrainingProcess) -> _Inputs:
    process.report(f"reading {request.model}")
    check_recipe(request.recipe)
    checkpoint = open_checkpoint(request.model, "model")
    training = read_tasks(request.data, "data", request.suites, request.build_task)
    held_out = read_tasks(request.held_out, "held_out", (), request.build_task)
    check_disjoint(training, held_out)
    digests = (hash_file(request.data), hash_file(request.held_out))
    task = digest_tasks([*training, *held_out], request.most_new_tokens)
    recipe = replace(request.recipe, model=checkpoint.digest, data=digests[0], held_out=digests[1], task=task)
    return _Inputs(checkpoint, recipe, training, held_out)


def _check_room(request: ReinforcementRequest, inputs: _Inputs, process: TrainingProcess) -> None:
    parameters = inputs.checkpoint.parameters
    rest = max(0, 2 * training_state.BYTES_PER_PARAMETER * parameters - measure_present(request.work))
    check_room(request.out, request.work, 4 * parameters, rest, process.measure_disk)


def _encode_tasks(
    encoder: PromptEncoder, tasks: Sequence[RewardTask], field: str, room: int
) -> list[ConstrainedPrompt]:
    """Return the questions as tokens; raise DistillationError for one of more than `room`, which leaves no answer."""
    prompts = []
    for number, one in enumerate(tasks, 1):
        where = f"{field}: question {number}"
        prompt = encoder.encode(one.prompt, one.grammar, where)
        if len(prompt.tokens) > room:
            raise DistillationError(
                f"{where} has {len(prompt.tokens)} tokens as the model gets it, and at most {max(room, 0)} leave room"
                " for an answer in its context; remove long questions, or take another model"
            )
        prompts.append(prompt)
    return prompts


class _Rounds:
    """The rounds of one run."""

    def __init__(self, request: ReinforcementRequest, inputs: _Inputs, process: TrainingProcess) -> None:
        self._request, self._inputs, self._process = request, inputs, process
        self._recipe, self._work = inputs.recipe, request.work
        self._model = load(inputs.checkpoint, "model")
        shape = self._model.shape
        encoder = PromptEncoder(inputs.checkpoint.folder, shape.context, shape.vocabulary)
        self._end = encoder.end
        room = shape.context - request.most_new_tokens
        self._training = _encode_tasks(encoder, inputs.training, "data", room)
        self._held_out = _encode_tasks(encoder, inputs.held_out, "held_out", room)

    def run(self) -> tuple[R1PlusModel, ReinforcementRecord]:
        """Return the trained model and its record."""
        recipe = self._recipe
        before = self._measure(0)
        drawn: list[Draw] = []
        rounds: list[RoundRecord] = []
        for number in range(1, recipe.rounds + 1):
            draws = self._draw(number)
            drawn += draws
            examples = self._list_kept(drawn)
            if not examples:
                raise DistillationError(
                    f"data: none of {count_answers(draws)} answers to {len(self._training)} questions is right, so"
                    " there is nothing to train on; give easier questions, more samples, another temperature or a"
                    " larger model"
                )
            schedule = self._plan_round(number, examples)
            tokens = self._train(number, examples, schedule)
            rounds.append(self._record_round(draws, len(examples), tokens, self._measure(number)))
        after = self._measure(recipe.rounds)
        change = compare(before.right, after.right)
        questions = len(self._training)
        record = ReinforcementRecord(recipe.key, recipe, questions, tuple(rounds), change, before.right, after.right)
        return self._model, record

    # Drawing.

    def _draw(self, number: int) -> list[Draw]:
        """Return the answers of a round; those that an earlier run has drawn are read."""
        path = self._work / f"drawn-{number}.jsonl"
        draws = read_draws(path)
        if len(draws) == len(self._training):
            return draws
        sampler = self._open_sampler(self._training)
        recipe, group = self._recipe, max(1, ROWS // self._recipe.samples)
        draws = draws[: len(draws) // group * group]  # A group is drawn whole: it is rounded as a whole.
        path.write_text("".join(dumps(one) + "\n" for one in draws), encoding="utf-8")
        reported = self._process.clock()
        with path.open("a", encoding="utf-8") as stream:
            for start in range(len(draws), len(self._training), group):
                self._check_stop(f"while round {number} drew answers")
                numbers = range(start, min(start + group, len(self._training)))
                answers = sampler.draw(numbers, recipe.samples, recipe.temperature, f"{recipe.seed} {number}")
                draws += [self._judge(*pair) for pair in zip(numbers, answers, strict=True)]
                stream.write("".join(dumps(one) + "\n" for one in draws[start:]))
                stream.flush()
                if (now := self._process.clock()) - reported >= REPORT_SECONDS or len(draws) == len(self._training):
                    reported, share = now, sum(map(count_right, draws)) / count_answers(draws)
                    self._process.report(
                        f"round {number}: question {len(draws)} of {len(self._training)}, {share:.0%} of answers right"
                    )
            os.fsync(stream.fileno())
        return draws

    def _judge(self, question: int, answers: Sequence[SampledAnswer]) -> Draw:
        """Return what was drawn for a question, with equal texts as one."""
        counts = Counter(one.text for one in answers)
        tokens = {one.text: one.tokens for one in reversed(answers)}
        task = self._inputs.training[question]
        return Draw(
            question, tuple(DrawnAnswer(text, tokens[text], n, task.is_right(text)) for text, n in counts.items())
        )

    def _open_sampler(self, prompts: Sequence[ConstrainedPrompt]) -> AnswerSampler:
        return open_sampler(self._model, prompts, self._end, self._request.most_new_tokens)

    def _check_stop(self, when: str) -> None:
        if self._process.should_stop():
            raise InterruptedDistillationError(f"stopped {when}", GOES_ON)

    # Training.

    def _list_kept(self, draws: Sequence[Draw]) -> list[Example]:
        """Return the right answers to each question that were drawn most often, as examples."""
        kept: list[Example] = []
        for question, answers in sorted(merge_right(draws).items()):
            prompt = self._training[question].tokens
            kept += [Example(prompt + tokens, len(prompt)) for tokens in answers[:MOST_KEPT]]
        return kept

    def _plan_round(self, number: int, examples: Sequence[Example]) -> RoundSchedule:
        recipe = self._recipe
        text = json.dumps([recipe.key, number, [(one.tokens, one.first) for one in examples]])
        key = hashlib.sha256(text.encode()).hexdigest()
        return RoundSchedule(key, recipe.steps, recipe.batch, recipe.learning_rate, recipe.seed + number)

    def _train(self, number: int, examples: Sequence[Example], schedule: RoundSchedule) -> int:
        """Train on the examples, from the model of the beginning on; return how many tokens were predicted.

        A round whose successor has drawn all its answers is not trained again: its weights are not needed any more.
        """
        done = self._work / f"trained-{number}.json"
        following = read_draws(self._work / f"drawn-{number + 1}.jsonl")
        if done.is_file() and len(following) == len(self._training):
            return read_work(done, training_state.Position).tokens
        shutil.rmtree(self._work / f"round-{number - 1}", ignore_errors=True)
        self._model = load(self._inputs.checkpoint, "model").train()
        source = build_gradient_source(self._model, examples, schedule, self._recipe.precision)
        self._process.report(f"round {number}: training on {len(examples)} answers")
        position = run_steps(self._model, schedule, source, self._work / f"round-{number}", self._process)
        replace_text(done, dumps(position))
        return position.tokens

    # Measuring.

    def _measure(self, number: int) -> HeldOutResult:
        """Return which held-out questions the model of a round answers right; measured once."""
        path = self._work / f"measured-{number}.json"
        if path.is_file():
            return read_work(path, HeldOutResult)
        sampler = self._open_sampler(self._held_out)
        right = ask_greedily(sampler, self._inputs.held_out, lambda: self._check_stop("while questions were asked"))
        self._process.report(f"after round {number}: {sum(right)} of {len(right)} held-out questions right")
        result = HeldOutResult(tuple(right))
        replace_text(path, dumps(result))
        return result

    def _record_round(self, draws: Sequence[Draw], kept: int, tokens: int, measured: HeldOutResult) -> RoundRecord:
        right = [count_right(one) for one in draws]
        return RoundRecord(count_answers(draws), sum(right), sum(map(bool, right)), kept, tokens, sum(measured.right))


def ask_greedily(
    sampler: AnswerSampler, tasks: Sequence[RewardTask], check_stop: Callable[[], None] = lambda: None
) -> list[bool]:
    """Return which tasks the sampler's model answers right with its most likely answer."""
    right: list[bool] = []
    for start in range(0, len(tasks), ROWS):
        check_stop()
        numbers = range(start, min(start + ROWS, len(tasks)))
        answers = sampler.draw(numbers, 1, 0.0, "")
        right += [tasks[number].is_right(one.text) for number, (one,) in zip(numbers, answers, strict=True)]
    return right


def build_gradient_source(
    model: R1PlusModel, examples: Sequence[Example], schedule: RoundSchedule, precision: str
) -> GradientSource:
    """Return what computes the gradients of a step: of the cross-entropy with the tokens of answers."""

    def add_gradients(step: int) -> tuple[float, int]:
        batch = [examples[number] for number in choose_batch(len(examples), schedule, step)]
        tokens = [one.tokens for one in batch]
        shared = min(find_beginning(tokens), *(one.first - 1 for one in batch))
        rests = [one[shared:] for one in tokens]
        places, start = list[int](), 0
        for one, rest in zip(batch, rests, strict=True):
            # The state before a token predicts it.
            places += range(start + one.first - shared - 1, start + len(rest) - 1)
            start += len(rest)
        labels = torch.tensor([token for one in batch for token in one.tokens[one.first :]])
        with autocast(precision):
            states = compute_packed_states(model, tokens[0][:shared], rests)
            logits = model.compute_logits(states[places])
        loss = hard_label_loss(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        return loss.item(), len(labels)

    return add_gradients


def compare(before: Sequence[bool], after: Sequence[bool]) -> Change:
    """Return how the same questions went before and after."""
    pairs = list(zip(before, after, strict=True))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    interval = paired_difference(lost, gained, len(pairs), _ALPHA)
    return Change(
        len(pairs),
        sum(before),
        sum(after),
        gained,
        lost,
        round(interval.lower, 4),
        round(interval.upper, 4),
        mcnemar_exact(lost, gained),
    )
