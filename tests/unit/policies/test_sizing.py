"""Memory fit: the sum, the largest batch, and each refusal with its remedy."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.sizing import GIB, MIB, Fit, Misfit, Shape, fit, sized

NEMO_12B = Shape(40, 8, 128, 65536, int(22.7 * GIB), 2 * GIB, 32, 64)
SMALL = Shape(30, 3, 64, 8192, 300 * MIB, 500 * MIB, 32, 64)


def test_kv_bytes_per_token_of_the_published_12b_shape_is_160_kib() -> None:
    assert NEMO_12B.kv_bytes_per_token == 160 * 1024


def test_64k_times_32_with_full_attention_needs_320_gib_of_kv_cache() -> None:
    assert sized(NEMO_12B, 32, 65536).kv_cache_bytes == 320 * GIB


def test_an_open_wish_takes_the_engines_best_batch_and_own_context() -> None:
    assert fit(SMALL, batch=None, context=None, memory_bytes=None) == sized(SMALL, 32, 8192)


def test_an_open_batch_shrinks_to_what_fits() -> None:
    room = sized(SMALL, 20, 8192).total_bytes
    assert fit(SMALL, batch=None, context=None, memory_bytes=room) == sized(SMALL, 20, 8192)
    assert fit(SMALL, batch=None, context=None, memory_bytes=room - 1) == sized(SMALL, 19, 8192)


@pytest.mark.parametrize(
    ("wish", "reason", "words"),
    [
        pytest.param(
            {"context": 8193},
            "ContextTooLong",
            ["spec.context.maxTokens", "8193", "8192"],
            id="longer than the engine's context",
        ),
        pytest.param(
            {"batch": 65},
            "BatchTooLarge",
            ["spec.batching.maxBatchSize", "65", "64"],
            id="larger than the engine's batch",
        ),
        pytest.param(
            {"batch": 33, "memory_bytes": sized(SMALL, 32, 8192).total_bytes},
            "BatchTooLarge",
            ["33 exceeds 32, the largest batch whose KV cache fits", "GiB"],
            id="a batch whose cache does not fit",
        ),
        pytest.param(
            {"memory_bytes": 900 * MIB},
            "NoNodeFits",
            ["batch 1", "lower spec.context.maxTokens to"],
            id="not even one slot at full context",
        ),
        pytest.param({"memory_bytes": 0}, "NoNodeFits", ["add a larger node"], id="no node at all"),
    ],
)
def test_refusals(wish: dict[str, int], reason: str, words: list[str]) -> None:
    asked = {"batch": None, "context": None, "memory_bytes": None} | wish
    refused = fit(SMALL, **asked)  # type: ignore[arg-type]
    assert isinstance(refused, Misfit)
    assert refused.reason == reason
    for word in words:
        assert word in refused.message


batches = st.integers(1, 64)
contexts = st.integers(16, 8192)
memories = st.integers(0, 64 * GIB)


@given(batches, contexts, memories)
def test_what_fits_is_never_over_the_memory_and_what_is_refused_would_be(batch: int, context: int, memory: int) -> None:
    found = fit(SMALL, batch=batch, context=context, memory_bytes=memory)
    if isinstance(found, Fit):
        assert found.total_bytes <= memory
        assert (found.batch, found.context) == (batch, context)
    else:
        assert sized(SMALL, batch, context).total_bytes > memory


@given(contexts, memories)
def test_the_batch_taken_is_the_largest_that_fits(context: int, memory: int) -> None:
    found = fit(SMALL, batch=None, context=context, memory_bytes=memory)
    if isinstance(found, Fit) and found.batch < SMALL.best_batch:
        assert sized(SMALL, found.batch + 1, context).total_bytes > memory


@given(batches, contexts, st.integers(0, 8 * GIB))
def test_more_memory_never_takes_a_fit_away(batch: int, context: int, more: int) -> None:
    exact = sized(SMALL, batch, context).total_bytes
    assert isinstance(fit(SMALL, batch=batch, context=context, memory_bytes=exact + more), Fit)


def test_the_sum_is_told_term_by_term() -> None:
    text = sized(dataclasses.replace(SMALL, weights_bytes=GIB, runtime_bytes=GIB), 1, 8192).explain()
    assert "2.18 GiB = weights 1.00 + KV cache 0.18 (batch 1 x 8192 tokens) + runtime 1.00" in text
