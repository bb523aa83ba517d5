"""Continuous batching in torch: each request gets the tokens that it would get alone, whatever others come and go."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_contract.inference import FinishReason
from r1plus_model.checkpoint import load_model
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling import continuous_batch
from r1plus_model.sampling.continuous_batch import TorchBatch
from r1plus_model.sampling.decoding import decode_greedily
from r1plus_model.sampling.token_sampling import TokenSampler, TorchSampling
from support.model.llamas import CONTEXT, VOCABULARY, draw_ids, load_tiny, make_reference, write_tiny
from support.tables import for_each
from support.vllm.engine import convert_smollm2

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
NO_END = VOCABULARY
"""A token that the model never says."""
ARCHITECTURES = {
    "a Llama": LlamaArchitecture(),
    "a window with sinks": LlamaArchitecture(window=8, sinks=2),
    "a window, every second layer global": LlamaArchitecture(window=8, sinks=2, global_every=2),
    "all of R1+ but sparsity": LlamaArchitecture(window=16, sinks=4, global_every=3, relative_bias=True, span_ramp=4),
    "15 % of the neurons, by the gate": LlamaArchitecture(active=0.15),
    "all of R1+": LlamaArchitecture(
        window=16, sinks=4, global_every=3, relative_bias=True, span_ramp=4, active=0.15, predictor_rank=8
    ),
}


@dataclass(frozen=True)
class Arrival:
    """A request that comes before a step."""

    step: int
    prompt: list[int]
    limit: int
    leaves: int | None = None
    """The step before which its client hangs up."""


def draw_prompt(tokens: int, seed: int, vocabulary: int = VOCABULARY) -> list[int]:
    ids: list[int] = draw_ids(1, tokens, seed, vocabulary)[0].tolist()
    return ids


MIXED = (
    Arrival(0, draw_prompt(40, 1), 30),
    Arrival(0, draw_prompt(3, 2), 50),
    Arrival(1, draw_prompt(17, 3), 4),
    Arrival(4, draw_prompt(60, 4), 40, leaves=20),
    Arrival(5, draw_prompt(1, 5), 60),
    Arrival(7, draw_prompt(33, 6), 1),
    Arrival(9, draw_prompt(25, 7), 45),
    Arrival(30, draw_prompt(50, 8), 20),
)
"""More than have rows, so that some wait; one leaves while it is written."""
LEAVER = 3


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prompts are read in several steps."""
    monkeypatch.setattr(continuous_batch, "READ_TOKENS", 16)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint")


def answer_all(
    batch: TorchBatch,
    arrivals: Sequence[Arrival],
    sample: Callable[[int, Arrival], TorchSampling] = lambda _, one: TorchSampling(one.limit),
) -> tuple[list[list[int]], list[FinishReason | None]]:
    """Return the tokens of each answer, and why it ended; None: its client hung up."""
    answers: list[list[int]] = [[] for _ in arrivals]
    reasons: list[FinishReason | None] = [None for _ in arrivals]
    is_open = [True for _ in arrivals]
    step = 0
    while any(is_open):
        for number, one in enumerate(arrivals):
            if one.step == step:
                batch.add(number, one.prompt, sample(number, one))
            if one.leaves == step and is_open[number]:
                batch.remove(number)
                is_open[number] = False
        for made in batch.step():
            assert isinstance(made.request_id, int) and made.token is not None
            assert is_open[made.request_id], "a token of a request that is gone"
            answers[made.request_id].append(made.token)
            reasons[made.request_id] = made.reason
            is_open[made.request_id] = made.reason is None
        step += 1
    return answers, reasons


def decode_alone(model: R1PlusModel, one: Arrival) -> list[int]:
    (answer,) = decode_greedily(model, [one.prompt], one.limit, lambda _: False)
    return answer


def decode_by_reference(reference: Any, one: Arrival) -> list[int]:
    """Return transformers' greedy answer, by its own cache."""
    cache = transformers.DynamicCache(config=reference.config)
    chunk, answer = torch.tensor([one.prompt]), list[int]()
    for _ in range(one.limit):
        logits = reference(chunk, past_key_values=cache, use_cache=True).logits
        answer.append(int(logits[0, -1].argmax()))
        chunk = torch.tensor([answer[-1:]])
    return answer


class TestTiny:
    """A small model of random weights."""

    @pytest.mark.parametrize("rows", [1, 3, 8])
    def test_with_the_options_off_it_says_what_transformers_says(self, tiny: Path, rows: int) -> None:
        reference = make_reference()
        arrivals = [one for one in MIXED if one.leaves is None]
        answers, reasons = answer_all(TorchBatch(load_model(tiny).eval(), rows, CONTEXT, [NO_END]), arrivals)
        assert answers == [decode_by_reference(reference, one) for one in arrivals]
        assert set(reasons) == {FinishReason.LENGTH}

    @for_each("architecture", ARCHITECTURES)
    @pytest.mark.parametrize("rows", [1, 3, 8])
    def test_in_a_batch_it_says_what_it_says_alone(
        self, tiny: Path, architecture: LlamaArchitecture, rows: int
    ) -> None:
        model = load_tiny(tiny, architecture)
        answers, _ = answer_all(TorchBatch(model, rows, CONTEXT, [NO_END]), MIXED)
        expected = [decode_alone(model, one) for one in MIXED]
        expected[LEAVER] = expected[LEAVER][: len(answers[LEAVER])]
        assert answers == expected
        assert len(answers[LEAVER]) < MIXED[LEAVER].limit
        assert answers[LEAVER] or rows < 8, "it leaves while its answer is written"

    def test_an_answer_ends_with_the_first_token_that_ends_it(self, tiny: Path) -> None:
        model = load_tiny(tiny)
        whole = [decode_alone(model, one) for one in MIXED]
        end = whole[0][5]
        answers, reasons = answer_all(
            TorchBatch(model, 4, CONTEXT, [NO_END, end]), [one for one in MIXED if one.leaves is None]
        )
        assert answers[0] == whole[0][: whole[0].index(end) + 1]
        assert reasons[0] is FinishReason.STOP
        assert FinishReason.LENGTH in reasons

    def test_who_leaves_before_or_while_its_prompt_is_read_leaves_no_token_behind(self, tiny: Path) -> None:
        model = load_tiny(tiny, ARCHITECTURES["a window with sinks"])
        arrivals = [
            Arrival(0, draw_prompt(60, 1), 20, leaves=2),
            Arrival(0, draw_prompt(20, 2), 20),
            Arrival(0, draw_prompt(5, 3), 5, leaves=1),
            Arrival(0, draw_prompt(9, 4), 20),
        ]
        answers, _ = answer_all(TorchBatch(model, 2, CONTEXT, [NO_END]), arrivals)
        assert answers == [[], decode_alone(model, arrivals[1]), [], decode_alone(model, arrivals[3])]

    def test_the_bytes_of_the_cache_are_those_of_rings(self, tiny: Path) -> None:
        windowed = load_tiny(tiny, LlamaArchitecture(window=8, sinks=2, global_every=3))
        heads, size = windowed.shape.kv_heads, windowed.shape.head_size
        tokens = 2 * (8 + 2) + 1 * CONTEXT  # Two layers with a window, one without.
        assert TorchBatch(windowed, 5, CONTEXT, []).cache_bytes == 5 * 2 * 4 * heads * size * tokens


class TestSampling:
    """What a client may ask for, each for its own request."""

    PROMPT = draw_prompt(12, 9)

    @pytest.fixture
    def batch(self, tiny: Path) -> TorchBatch:
        return TorchBatch(load_tiny(tiny), 4, CONTEXT, [NO_END])

    def draw(self, batch: TorchBatch, *samplings: TorchSampling) -> list[list[int]]:
        arrivals = [Arrival(0, self.PROMPT, one.limit) for one in samplings]
        answers, _ = answer_all(batch, arrivals, lambda number, _: samplings[number])
        return answers

    def test_a_seed_repeats_an_answer_also_in_company(self, batch: TorchBatch) -> None:
        seeded = TorchSampling(20, temperature=1.0, seed=2**64 - 1)
        (alone,) = self.draw(batch, seeded)
        others = [TorchSampling(20, temperature=1.0, seed=seed) for seed in (1, 2)]
        first, second, third = self.draw(batch, others[0], seeded, others[1])
        assert second == alone
        assert len({tuple(alone), tuple(first), tuple(third)}) == 3

    def test_without_a_seed_answers_differ(self, batch: TorchBatch) -> None:
        one, other = self.draw(batch, *[TorchSampling(20, temperature=1.5)] * 2)
        assert one != other

    def test_a_temperature_near_0_is_greedy(self, batch: TorchBatch) -> None:
        greedy, cold = self.draw(batch, TorchSampling(20), TorchSampling(20, temperature=1e-30))
        assert cold == greedy

    def test_top_p_leaves_out_what_is_unlikely_and_nothing_else(self, batch: TorchBatch, tiny: Path) -> None:
        chances = load_tiny(tiny)(torch.tensor([self.PROMPT]))[0, -1].softmax(-1)
        ordered, tokens = chances.sort(descending=True)
        top_p = float(ordered[:2].sum()) + float(ordered[2]) / 2
        nucleus = set(tokens[:3].tolist())
        drawn = {
            token
            for seed in range(100)
            for answer in self.draw(batch, *[TorchSampling(1, 2.0**-9 + 1, top_p, seed=4 * seed + n) for n in range(4)])
            for token in answer
        }
        assert drawn == nucleus

    def test_the_penalty_is_transformers_own(self, batch: TorchBatch, tiny: Path) -> None:
        reference, process = make_reference(), transformers.RepetitionPenaltyLogitsProcessor(1.7)
        ids = list(self.PROMPT)
        for _ in range(20):
            row = torch.tensor([ids])
            ids.append(int(process(row, reference(row).logits[:, -1])[0].argmax()))
        penalised, plain = self.draw(batch, TorchSampling(20, repetition_penalty=1.7), TorchSampling(20))
        assert penalised == ids[len(self.PROMPT) :] != plain


@pytest.mark.parametrize(("seen", "other"), [(2.0, 1.5), (-1.0, -1.4)], ids=["likely", "unlikely"])
def test_the_penalty_makes_a_seen_token_less_likely_whatever_its_sign(seen: float, other: float) -> None:
    logits = torch.tensor([seen, other])
    assert TokenSampler(TorchSampling(1), [0], 2).choose(logits) == 0
    assert TokenSampler(TorchSampling(1, repetition_penalty=1.5), [0], 2).choose(logits) == 1


@pytest.mark.parametrize("penalty", [1e-45, 3e38])
@pytest.mark.parametrize("logits", [[20.0, 0.0, -20.0], [-20.0, -21.0, -22.0]], ids=["mixed", "unlikely"])
def test_a_penalty_as_extreme_as_a_client_can_send_draws_a_token(penalty: float, logits: list[float]) -> None:
    sampler = TokenSampler(TorchSampling(1, temperature=1.0, repetition_penalty=penalty, seed=1), [0, 1, 2], 3)
    assert sampler.choose(torch.tensor(logits)) in range(3)


def test_smollm2_says_what_transformers_says_alone_and_in_a_mixed_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous_batch, "READ_TOKENS", 64)
    folder = convert_smollm2(tmp_path / "checkpoint")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    questions = ("What is the capital of Sweden?", "Tell me a story.", "Count: one two three " * 25, "Hi")
    prompts = [
        tokenizer.encode(f"<|im_start|>user\n{one}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
        for one in questions
    ]
    arrivals = [Arrival(2 * number, prompt, 24 + number) for number, prompt in enumerate(prompts)]
    reference = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = [decode_by_reference(reference, one) for one in arrivals]
    model = load_model(folder).eval()
    for rows in (1, 4):
        answers, _ = answer_all(TorchBatch(model, rows, 1024, [model.shape.vocabulary]), arrivals)
        assert answers == expected
