"""Memory fit: the sum, the largest batch, the longest context, and each refusal with its remedy."""

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from r1plus_policies.engine import accelerators
from r1plus_policies.engine.memory_fit import (
    GIB,
    MIB,
    EngineShape,
    Fit,
    Misfit,
    compute_fit,
    find_largest_batch,
    find_longest_context,
    find_nearest_fits,
    fit_memory,
    kv_bytes_per_token,
)
from support.tables import for_each

SMALL = EngineShape(30, 3, 64, 8192, 300 * MIB, 500 * MIB, 32, 64)
# The published figures of R1+ at FP16 with the shapes assumed for them, activations of 8192 tokens in a step.
FULL = EngineShape(40, 8, 128, 65536, 23270 * MIB, 972 * MIB, 32, 64, 832 * MIB)
LITE = EngineShape(28, 8, 128, 65536, 6104 * MIB, 972 * MIB, 32, 64, 480 * MIB)
EDGE = EngineShape(24, 2, 64, 65536, 1336 * MIB, 972 * MIB, 32, 64, 256 * MIB)


def windowed(shape: EngineShape, window: int, global_layers: int = 0) -> EngineShape:
    return dataclasses.replace(shape, window=window, global_layers=global_layers)


GOLDEN = [
    # shape, KiB per token, full KV at 64K x 32, the same with W=4096, and that in all: the table of published sizes
    pytest.param(FULL, 160, 320.0, 20.0, 44.5, id="full 12B"),
    pytest.param(LITE, 112, 224.0, 14.0, 21.4, id="lite 3B"),
    pytest.param(EDGE, 12, 24.0, 1.5, 4.0, id="edge 0.7B"),
]


@pytest.mark.parametrize("shape, per_token, full, window, total", GOLDEN)
def test_the_published_sizes(shape: EngineShape, per_token: int, full: float, window: float, total: float) -> None:
    assert shape.kv_bytes_per_token == per_token * 1024
    assert compute_fit(shape, 32, 65536).kv_cache_bytes == full * GIB
    assert compute_fit(windowed(shape, 4096), 32, 65536).kv_cache_bytes == window * GIB
    assert round(compute_fit(windowed(shape, 4096), 32, 65536).total_bytes / GIB, 1) == total


def test_one_global_layer_in_six_beside_a_window_of_1024_holds_about_54_gib() -> None:
    # 7 of 40 layers keep 65536 tokens, 33 keep 1024, at 4 KiB each, for 32 requests.
    assert compute_fit(windowed(FULL, 1024, 7), 32, 65536).kv_cache_bytes == 32 * 4096 * (7 * 65536 + 33 * 1024)


PAGED = dataclasses.replace(SMALL, kv_block_tokens=128, spare_kv_blocks=1)
TOKEN = SMALL.kv_bytes_per_token


@for_each("batch, context, tokens", {
    "one block, and the one that stays empty": (1, 128, 256),
    "a context that fills no block": (1, 16, 256),
    "a context one token longer than a block": (3, 129, 3 * 256 + 128),
    "whole blocks": (8, 1024, 8 * 1024 + 128),
})  # fmt: skip
def test_a_cache_in_blocks_is_rounded_up_and_has_one_more(batch: int, context: int, tokens: int) -> None:
    assert compute_fit(PAGED, batch, context).kv_cache_bytes == tokens * TOKEN


@given(batch=st.integers(1, 64), blocks=st.integers(0, 4000))
def test_what_fits_in_blocks_fits_and_one_more_does_not(batch: int, blocks: int) -> None:
    memory = PAGED.static_bytes + blocks * 128 * TOKEN
    context = find_longest_context(PAGED, batch, memory)
    assert context == min(blocks // batch * 128, PAGED.context_length)
    if context:
        assert compute_fit(PAGED, batch, context).total_bytes <= memory
        assert find_largest_batch(PAGED, context, memory) >= batch
    if 0 < context < PAGED.context_length:
        assert compute_fit(PAGED, batch, context + 1).total_bytes > memory


EVICTING = dataclasses.replace(SMALL, resident_tokens=1056)


@for_each("batch, context, tokens", {
    "alone it is read whole": (1, 8192, 8192),
    "of several one is read whole": (4, 8192, 8192 + 3 * 1056),
    "where nothing is evicted all are whole": (4, 1000, 4 * 1000),
})  # fmt: skip
def test_eviction_leaves_room_for_one_whole_prompt_and_for_what_stays_of_the_others(
    batch: int, context: int, tokens: int
) -> None:
    assert compute_fit(EVICTING, batch, context).kv_cache_bytes == tokens * TOKEN


def test_the_sum_says_what_stays_after_eviction() -> None:
    words = "(batch 4 x 8192 tokens, 1056 of each but the one that is read)"
    assert words in compute_fit(EVICTING, 4, 8192).explain()
    assert "(batch 4 x 512 tokens)" in compute_fit(EVICTING, 4, 512).explain()


SLOTS = {"L40S": 29, "A100-40": 21, "A100-80": 32, "H100": 32, "L4": 0, "T4": 0}


@pytest.mark.parametrize("gpu, slots", SLOTS.items(), ids=SLOTS.keys())
def test_slots_of_64k_tokens_with_a_window_of_4096_on_real_gpus(gpu: str, slots: int) -> None:
    found = accelerators.find_accelerator(gpu)
    assert min(32, find_largest_batch(windowed(FULL, 4096), 65536, found.usable_bytes)) == slots


def test_with_full_attention_64k_times_32_fits_no_single_gpu() -> None:
    assert all(find_largest_batch(FULL, 65536, gpu.usable_bytes) < 8 for gpu in accelerators.TABLE)


@for_each("devices, heads", {
    "two GPUs hold half of the heads each": (2, 4),
    "eight hold one each": (8, 1),
    "of sixteen two hold the same head": (16, 1),
})  # fmt: skip
def test_heads_are_split_over_gpus_and_then_held_more_than_once(devices: int, heads: int) -> None:
    split = dataclasses.replace(FULL, devices=devices)
    assert split.slot_bytes(1000) == kv_bytes_per_token(40, heads, 128) * 1000
    assert compute_fit(split, 2, 1000).kv_cache_bytes == devices * 2 * split.slot_bytes(1000)
    assert split.static_bytes == -(-FULL.weights_bytes // devices) + (972 + 832) * MIB


def test_heads_that_cannot_be_shared_out_are_refused_with_both_numbers() -> None:
    refused = fit_memory(dataclasses.replace(FULL, devices=3), batch=None, context=None, memory_bytes=None)
    assert isinstance(refused, Misfit)
    assert "8 KV heads" in refused.message
    assert "3 GPUs" in refused.message


def test_a_cache_of_8_bits_is_half_as_large() -> None:
    halved = dataclasses.replace(FULL, kv_element_bits=8)
    assert 2 * halved.slot_bytes(777) == FULL.slot_bytes(777)


def test_an_open_wish_takes_the_engines_best_batch_and_own_context() -> None:
    assert fit_memory(SMALL, batch=None, context=None, memory_bytes=None) == compute_fit(SMALL, 32, 8192)


def test_an_open_batch_is_at_most_the_best_even_where_more_would_fit() -> None:
    assert fit_memory(SMALL, batch=None, context=None, memory_bytes=64 * GIB) == compute_fit(SMALL, 32, 8192)


def test_an_open_batch_shrinks_to_what_fits() -> None:
    room = compute_fit(SMALL, 20, 8192).total_bytes
    assert fit_memory(SMALL, batch=None, context=None, memory_bytes=room) == compute_fit(SMALL, 20, 8192)
    assert fit_memory(SMALL, batch=None, context=None, memory_bytes=room - 1) == compute_fit(SMALL, 19, 8192)


@for_each("wish, field, reason, words", {
    "longer than the engine's context":
        ({"context": 8193}, "spec.context.maxTokens", "ContextTooLong", ["spec.context.maxTokens", "8193", "8192"]),
    "larger than the engine's batch": (
        {"batch": 65}, "spec.batching.maxBatchSize", "BatchTooLarge", ["spec.batching.maxBatchSize", "65", "64"]
    ),
    "a batch whose cache does not fit": (
        {"batch": 33, "memory_bytes": compute_fit(SMALL, 32, 8192).total_bytes},
        "spec.batching.maxBatchSize",
        "BatchTooLarge",
        [
            "33 exceeds 32, the largest batch whose KV cache fits",
            "GiB",
            "or lower spec.context.maxTokens to 7943",
        ],
    ),
    "not even one slot at full context": (
        {"memory_bytes": 900 * MIB},
        "spec.context.maxTokens",
        "NoNodeFits",
        ["batch 1", "lower spec.context.maxTokens to 4551", "the largest matching node offers 0.88 GiB"],
    ),
    "no node at all": ({"memory_bytes": 0}, "spec.context.maxTokens", "NoNodeFits", ["add a larger node"]),
})  # fmt: skip
def test_refusals(wish: dict[str, int], field: str, reason: str, words: list[str]) -> None:
    asked = {"batch": None, "context": None, "memory_bytes": None} | wish
    refused = fit_memory(SMALL, **asked)  # type: ignore[arg-type]
    assert isinstance(refused, Misfit)
    assert (refused.field, refused.reason) == (field, reason)
    for word in words:
        assert word in refused.message


def test_a_context_below_16_tokens_is_no_remedy() -> None:
    for tokens, offered in ((15, False), (16, True)):
        room = SMALL.static_bytes + SMALL.slot_bytes(tokens)
        refused = fit_memory(SMALL, batch=None, context=None, memory_bytes=room)
        assert isinstance(refused, Misfit)
        assert ("maxTokens to 16" in refused.message) == offered
        assert bool(find_nearest_fits(SMALL, 1, 8192, room)) == offered


def test_the_nearest_that_fits_is_fewer_requests_or_shorter_ones() -> None:
    memory = compute_fit(SMALL, 20, 8192).total_bytes
    fewer, shorter = find_nearest_fits(SMALL, 32, 8192, memory)
    assert (fewer.batch, fewer.context) == (20, 8192)
    assert (shorter.batch, shorter.context) == (32, 5120)


@st.composite
def shapes(draw: st.DrawFn) -> EngineShape:
    """Any engine: layers some of which are global, a window or none, split over GPUs as its heads allow."""
    layers, heads = draw(st.integers(1, 80)), draw(st.sampled_from([1, 2, 3, 8, 12]))
    devices = draw(st.integers(1, 24).filter(lambda n: heads % n == 0 or n % heads == 0))
    return EngineShape(
        layers,
        heads,
        draw(st.sampled_from([64, 128])),
        draw(st.integers(16, 131072)),
        draw(st.integers(0, 64 * GIB)),
        draw(st.integers(0, 2 * GIB)),
        16,
        64,
        draw(st.integers(0, 2 * GIB)),
        draw(st.none() | st.integers(1, 131072)),
        draw(st.integers(0, 90)),
        draw(st.sampled_from([4, 8, 16])),
        devices,
        resident_tokens=draw(st.none() | st.integers(1, 131072)),
    )


batches = st.integers(1, 64)
memories = st.integers(0, 256 * GIB)


@given(shapes(), batches, st.data(), memories)
def test_what_fits_is_never_over_the_memory_and_what_is_refused_would_be(
    shape: EngineShape, batch: int, data: st.DataObject, memory: int
) -> None:
    context = data.draw(st.integers(1, shape.context_length))
    found = fit_memory(shape, batch=batch, context=context, memory_bytes=memory)
    if isinstance(found, Fit):
        assert found.device_bytes <= memory
        assert (found.batch, found.context) == (batch, context)
    else:
        assert compute_fit(shape, batch, context).device_bytes > memory
        for near in find_nearest_fits(shape, batch, context, memory):
            assert near.device_bytes <= memory


@given(shapes(), st.data())
def test_the_boundary_is_exact_to_the_byte(shape: EngineShape, data: st.DataObject) -> None:
    batch, context = data.draw(batches), data.draw(st.integers(1, shape.context_length))
    exact = compute_fit(shape, batch, context).device_bytes
    assert find_largest_batch(shape, context, exact) == batch
    assert find_largest_batch(shape, context, exact - 1) == batch - 1


@given(shapes(), batches, memories)
def test_the_longest_context_fits_and_one_token_more_does_not(shape: EngineShape, batch: int, memory: int) -> None:
    tokens = find_longest_context(shape, batch, memory)
    assert 0 <= tokens <= shape.context_length
    if tokens:
        assert compute_fit(shape, batch, tokens).device_bytes <= memory
    if tokens < shape.context_length:
        assert compute_fit(shape, batch, tokens + 1).device_bytes > memory


GROWS = ("layers", "kv_heads", "head_size", "weights_bytes", "runtime_bytes", "activation_bytes", "window", "global_layers")  # fmt: skip


@given(shapes(), batches, st.data(), st.sampled_from([*GROWS, "kv_element_bits", "batch", "context"]))
def test_more_of_anything_never_needs_less(shape: EngineShape, batch: int, data: st.DataObject, what: str) -> None:
    context, more = data.draw(st.integers(1, shape.context_length)), data.draw(st.integers(1, 4096))
    before = compute_fit(shape, batch, context)
    if what in ("batch", "context"):
        after = compute_fit(shape, batch + (what == "batch"), context + more * (what == "context"))
    else:
        assume(getattr(shape, what) is not None)
        step = 8 if what == "kv_element_bits" else more
        after = compute_fit(dataclasses.replace(shape, **{what: getattr(shape, what) + step}), batch, context)
    assert after.total_bytes >= before.total_bytes
    if what in ("batch", "context"):
        assert find_largest_batch(shape, after.context, before.device_bytes) <= batch


@given(shapes(), batches, st.data())
def test_a_window_never_needs_more_than_none(shape: EngineShape, batch: int, data: st.DataObject) -> None:
    context = data.draw(st.integers(1, shape.context_length))
    whole = dataclasses.replace(shape, window=None)
    assert compute_fit(shape, batch, context).total_bytes <= compute_fit(whole, batch, context).total_bytes


@given(shapes(), batches, st.data(), st.integers(0, 8 * GIB))
def test_more_memory_never_takes_a_fit_away(shape: EngineShape, batch: int, data: st.DataObject, more: int) -> None:
    context = data.draw(st.integers(1, shape.context_length))
    exact = compute_fit(shape, batch, context).device_bytes
    assert isinstance(fit_memory(shape, batch=batch, context=context, memory_bytes=exact + more), Fit)


@given(shapes(), batches, st.data())
def test_twice_the_gpus_never_hold_more_each(shape: EngineShape, batch: int, data: st.DataObject) -> None:
    context = data.draw(st.integers(1, shape.context_length))
    twice = dataclasses.replace(shape, devices=2 * shape.devices)
    assume(shape.kv_heads % twice.devices == 0 or twice.devices % shape.kv_heads == 0)
    assert compute_fit(twice, batch, context).device_bytes <= compute_fit(shape, batch, context).device_bytes


def test_the_sum_is_told_term_by_term() -> None:
    shape = dataclasses.replace(SMALL, weights_bytes=GIB, runtime_bytes=GIB)
    assert "2.18 GiB = weights 1.00 + KV cache 0.18 (batch 1 x 8192 tokens) + runtime 1.00" in compute_fit(shape, 1, 8192).explain()  # fmt: skip
    two = dataclasses.replace(shape, kv_heads=2, activation_bytes=GIB, devices=2)
    assert "+ activations 2.00 + runtime 2.00, on 2 GPUs" in compute_fit(two, 1, 8192).explain()
