"""R1+'s model with its options off is transformers' Llama, bit for bit; with a cache it says what it says without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, ModelError, list_shapes
from r1plus_model.checkpoint import load_model, name_tensors
from r1plus_model.sampling.decoding import decode_greedily
from support.model.llamas import (
    CONTEXT,
    compute_reference,
    draw_ids,
    load_tiny,
    make_reference,
    mask_padding,
    write_tiny,
)
from support.tables import for_each
from support.vllm.engine import convert_smollm2

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
ROUNDING = 2e-5
"""Of logits of some 10: sums of FP32 in another order."""
PROMPT = "<|im_start|>user\nWhat is the capital of Sweden?<|im_end|>\n<|im_start|>assistant\n"
SHAPES: dict[str, dict[str, Any]] = {
    "a Llama in small, with tied embeddings": {},
    "an output layer of its own": {"tie_word_embeddings": False},
    "one key for each query": {"num_key_value_heads": 6},
    "one key for all queries": {"num_key_value_heads": 1},
    "heads wider than the hidden size": {"head_dim": 16},
    "biases everywhere": {"attention_bias": True, "mlp_bias": True},
    "another base of the positions": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
}
ARCHITECTURES = {
    "a Llama": LlamaArchitecture(),
    "a window": LlamaArchitecture(window=8),
    "a window with sinks": LlamaArchitecture(window=8, sinks=2),
    "a window of one token with sinks": LlamaArchitecture(window=1, sinks=1),
    "a window, every second layer global": LlamaArchitecture(window=8, sinks=2, global_every=2),
    "a relative bias": LlamaArchitecture(window=8, sinks=2, relative_bias=True),
    "learned spans": LlamaArchitecture(window=16, sinks=2, span_ramp=4),
    "spans and bias without sinks": LlamaArchitecture(window=16, relative_bias=True, span_ramp=4, global_every=3),
    "15 % of the neurons, by the gate": LlamaArchitecture(active=0.15),
    "15 % of the neurons, by a predictor": LlamaArchitecture(active=0.15, predictor_rank=8),
    "all of R1+": LlamaArchitecture(
        window=16, sinks=4, global_every=3, relative_bias=True, span_ramp=4, active=0.15, predictor_rank=8
    ),
}


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@for_each("fields", SHAPES)
def test_the_logits_are_those_of_transformers_bit_for_bit(fields: dict[str, Any], tmp_path: Path) -> None:
    reference, model = make_reference(**fields), load_tiny(write_tiny(tmp_path, **fields))
    ids = draw_ids(3, 40)

    assert torch.equal(model(ids), reference(ids).logits)


@for_each("is_left", {"padding on the left": True, "padding on the right": False})
def test_the_logits_of_rows_with_padding_are_those_of_transformers(is_left: bool, tiny: Path) -> None:
    ids, mask = draw_ids(3, 40), mask_padding([0, 7, 33], 40, is_left=is_left)

    logits = load_tiny(tiny)(ids, mask)

    assert torch.equal(logits[mask], compute_reference(make_reference(), ids, mask)[mask])


def test_the_logits_with_a_cache_are_those_of_transformers(tiny: Path) -> None:
    reference, model, ids = make_reference(), load_tiny(tiny), draw_ids(3, 40)
    cache, theirs = model.allocate_cache(3), transformers.DynamicCache(config=reference.config)
    for begin, end in ((0, 20), *((one, one + 1) for one in range(20, 40))):
        expected = reference(ids[:, begin:end], past_key_values=theirs, use_cache=True).logits

        assert torch.equal(model(ids[:, begin:end], cache=cache), expected), f"tokens {begin} to {end}"


def test_smollm2_as_converted_is_that_of_transformers(tmp_path: Path) -> None:
    folder = convert_smollm2(tmp_path / "smollm2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model = load_model(folder).eval()
    prompt = tokenizer(PROMPT, add_special_tokens=False, return_tensors="pt").input_ids
    rows = torch.cat((draw_ids(1, prompt.shape[1], vocabulary=model.shape.vocabulary), prompt))
    mask = mask_padding([0, 5], rows.shape[1])

    assert torch.equal(model(prompt), reference(prompt).logits)
    assert torch.equal(model(rows, mask)[mask], compute_reference(reference, rows, mask)[mask])
    cache, theirs, chunk = model.allocate_cache(1), transformers.DynamicCache(config=reference.config), prompt
    answer = []
    for _ in range(12):
        expected = reference(chunk, past_key_values=theirs, use_cache=True).logits
        assert torch.equal(model(chunk, cache=cache), expected)
        chunk = expected[:, -1:].argmax(-1)
        answer.append(int(chunk))
    assert "Stockholm" in tokenizer.decode(answer)
    assert decode_greedily(model, [prompt[0].tolist()], 12, lambda _: False) == [answer]


@for_each("fields", SHAPES)
@for_each("architecture", ARCHITECTURES)
def test_the_tensors_that_an_import_expects_are_the_models(
    architecture: LlamaArchitecture, fields: dict[str, Any], tmp_path: Path
) -> None:
    write_tiny(tmp_path, **fields)
    model = load_model(tmp_path, architecture)
    expected = list_shapes(model.shape, architecture)
    assert expected == {name: tuple(tensor.shape) for name, tensor in name_tensors(model).items()}


@for_each("architecture", ARCHITECTURES)
def test_decoding_with_a_cache_says_what_one_pass_says(architecture: LlamaArchitecture, tiny: Path) -> None:
    model, ids = load_tiny(tiny, architecture), draw_ids(2, 60)
    whole, cache = model(ids), model.allocate_cache(2)

    chunks = [(0, 13), (13, 30), *((one, one + 1) for one in range(30, 60))]
    pieces = [model(ids[:, begin:end], cache=cache) for begin, end in chunks]

    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=ROUNDING, rtol=0)


@for_each("architecture", ARCHITECTURES)
def test_a_row_says_the_same_whatever_padding_it_has(architecture: LlamaArchitecture, tiny: Path) -> None:
    model, ids, padding = load_tiny(tiny, architecture), draw_ids(3, 40), [0, 7, 33]
    mask, cache = mask_padding(padding, 40), model.allocate_cache(3)
    first = model(ids[:, :35], mask[:, :35], cache)
    pieces = [first, *(model(ids[:, one : one + 1], cache=cache) for one in range(35, 40))]
    decoded, whole = torch.cat(pieces, 1), model(ids, mask)

    for row, begin in enumerate(padding):
        alone = model(ids[row : row + 1, begin:])[0]
        torch.testing.assert_close(whole[row, begin:], alone, atol=ROUNDING, rtol=0)
        torch.testing.assert_close(decoded[row, begin:], alone, atol=ROUNDING, rtol=0)


@for_each("architecture", ARCHITECTURES)
def test_a_row_of_the_cache_can_be_cleared_while_the_others_go_on(architecture: LlamaArchitecture, tiny: Path) -> None:
    model, ids = load_tiny(tiny, architecture), draw_ids(2, 40)
    cache = model.allocate_cache(2)
    model(ids[:, :30], cache=cache)
    cache.clear(1)
    other = draw_ids(1, 10, seed=5)
    rows = torch.cat((ids[:1, 30:40], other))

    pieces = [model(rows[:, one : one + 1], cache=cache) for one in range(10)]

    torch.testing.assert_close(torch.cat(pieces, 1)[0], model(ids[:1])[0, 30:], atol=ROUNDING, rtol=0)
    torch.testing.assert_close(torch.cat(pieces, 1)[1], model(other)[0], atol=ROUNDING, rtol=0)


def test_greedy_answers_of_a_batch_are_those_of_each_prompt_alone(tiny: Path) -> None:
    model = load_tiny(tiny, LlamaArchitecture(window=8, sinks=2, relative_bias=True))
    prompts = [draw_ids(1, length, seed=length)[0].tolist() for length in (3, 11, 20)]

    together = decode_greedily(model, prompts, 15, lambda tokens: tokens[-1] % 7 == 0)

    assert together == [decode_greedily(model, [one], 15, lambda tokens: tokens[-1] % 7 == 0)[0] for one in prompts]
    assert all(all(token % 7 for token in answer[:-1]) for answer in together)


@for_each(
    "tokens, cached, message",
    {
        "one token more than in training": (CONTEXT + 1, None, f"{CONTEXT + 1} tokens, and the model was trained on"),
        "one token more than the cache holds": (9, 8, "9 tokens, and the cache was allocated for 8"),
        "no token": (0, None, "is not (batch, tokens) with a token"),
    },
)
def test_a_sequence_that_does_not_fit_is_refused(tokens: int, cached: int | None, message: str, tiny: Path) -> None:
    model = load_tiny(tiny)
    cache = model.allocate_cache(1, cached) if cached else None

    with pytest.raises(ModelError) as raised:
        model(draw_ids(1, tokens), cache=cache)

    assert message in str(raised.value)


def test_a_sequence_that_gets_too_long_by_its_cache_is_refused(tiny: Path) -> None:
    model = load_tiny(tiny)
    cache = model.allocate_cache(1)
    model(draw_ids(1, CONTEXT), cache=cache)

    with pytest.raises(ModelError, match=f"{CONTEXT + 1} tokens"):
        model(draw_ids(1, 1), cache=cache)


def test_rows_and_masks_of_another_size_are_refused(tiny: Path) -> None:
    model = load_tiny(tiny)

    with pytest.raises(ModelError, match="2 rows, and the cache has 3"):
        model(draw_ids(2, 4), cache=model.allocate_cache(3))
    with pytest.raises(ModelError, match="one value per token"):
        model(draw_ids(2, 4), mask_padding([0, 0], 5))
    with pytest.raises(ModelError, match="at least one token"):
        decode_greedily(model, [[1], []], 2, lambda _: False)
