"""What a window, sinks, learned spans and the bias let a token see; and how many bytes the cache takes for that."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, LlamaShape, read_shape
from r1plus_model.attention import GroupedQueryAttention, find_visible
from r1plus_model.model import R1PlusModel
from support.model.llamas import TINY, draw_ids, load_tiny, write_tiny
from support.tables import for_each

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
LAYERS, KV_HEADS, HEAD_SIZE, BYTES = 3, 2, 8, 4
"""Of the small Llama, in FP32."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def draw_visible(window: int | None, sinks: int, positions: list[int]) -> list[str]:
    """Return a row per query, a column per key: x where it is visible."""
    row = torch.tensor([positions])
    allowed = find_visible(row, row, window, sinks).allowed
    assert allowed is not None
    return ["".join("x" if one else "." for one in line) for line in allowed[0, 0].tolist()]


@for_each(
    "window, sinks, rows",
    {
        "without a window all that came before": (None, 0, ["x....", "xx...", "xxx..", "xxxx.", "xxxxx"]),
        "a window of two": (2, 0, ["x....", "xx...", ".xx..", "..xx.", "...xx"]),
        "a window of two and a sink": (2, 1, ["x....", "xx...", "xxx..", "x.xx.", "x..xx"]),
        "two sinks, of which the window has one at first": (3, 2, ["x....", "xx...", "xxx..", "xxxx.", "xxxxx"]),
        "a window of one token": (1, 1, ["x....", "xx...", "x.x..", "x..x.", "x...x"]),
    },
)
def test_a_token_sees_its_window_and_the_sinks(window: int | None, sinks: int, rows: list[str]) -> None:
    assert draw_visible(window, sinks, [0, 1, 2, 3, 4]) == rows


def test_no_token_sees_padding() -> None:
    assert draw_visible(2, 1, [-1, -1, 0, 1, 2])[2:] == ["..x..", "..xx.", "..xxx"]


@for_each(
    "architecture",
    {
        "a window": LlamaArchitecture(window=8),
        "a window with learned spans at their start": LlamaArchitecture(window=8, span_ramp=4),
        "a window with a bias at its start": LlamaArchitecture(window=8, relative_bias=True),
    },
)
def test_what_is_out_of_every_layers_window_changes_nothing(architecture: LlamaArchitecture, tiny: Path) -> None:
    """Three layers of eight tokens reach back 3 * 7 tokens."""
    model, ids = load_tiny(tiny, architecture, is_random=False), draw_ids(1, 60)
    changed = ids.clone()
    changed[0, :30] = draw_ids(1, 30, seed=9)

    logits, other = model(ids), model(changed)

    assert not torch.allclose(logits[0, 50], other[0, 50], atol=1e-6), "the 50th sees the 29th by its three layers"
    torch.testing.assert_close(logits[0, 52:], other[0, 52:], atol=1e-6, rtol=0)


def test_bias_and_spans_begin_without_any_effect(tiny: Path) -> None:
    ids = draw_ids(2, 40)
    plain = load_tiny(tiny, LlamaArchitecture(window=8, sinks=2))
    adaptive = load_tiny(tiny, LlamaArchitecture(window=8, sinks=2, relative_bias=True, span_ramp=4), is_random=False)

    torch.testing.assert_close(adaptive(ids), plain(ids), atol=1e-5, rtol=0)


def test_the_bias_is_added_to_the_scores_by_distance(tiny: Path) -> None:
    """A bias of -inf at all distances but two leaves each token its own key and that of two before."""
    model = load_tiny(tiny, LlamaArchitecture(window=8, relative_bias=True))
    for layer in model.layers:
        layer.self_attn.relative_bias.fill_(-1e9)
        layer.self_attn.relative_bias[:, [0, 2]] = 0
    ids = draw_ids(1, 20)
    changed = ids.clone()
    changed[0, 0::2] = draw_ids(1, 10, seed=9)[0]

    torch.testing.assert_close(model(changed)[0, 1::2], model(ids)[0, 1::2], atol=1e-6, rtol=0)
    assert not torch.allclose(model(changed)[0, 0::2], model(ids)[0, 0::2], atol=1e-3)


def test_sinks_beyond_the_window_have_a_bias_of_their_own(tiny: Path) -> None:
    model, ids = (
        load_tiny(tiny, LlamaArchitecture(window=4, sinks=2, relative_bias=True), is_random=False),
        draw_ids(1, 20),
    )
    before = model(ids)
    for layer in model.layers:
        layer.self_attn.relative_bias[:, 4] = 3.0

    changed = model(ids)

    torch.testing.assert_close(changed[0, :4], before[0, :4], atol=1e-6, rtol=0)
    assert not torch.allclose(changed[0, 6:], before[0, 6:], atol=1e-3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_what_is_added_to_the_scores_is_what_flex_attention_computes() -> None:
    window, sinks, ramp, tokens = 8, 2, 4, 30
    torch.manual_seed(0)
    attention = GroupedQueryAttention(
        load_shape(), LlamaArchitecture(window=window, sinks=sinks, relative_bias=True, span_ramp=ramp), layer=0
    )
    bias, spans = torch.randn(6, window + 1), torch.linspace(0, 1, 6)
    queries, keys, values = (torch.randn(2, heads, tokens, HEAD_SIZE) for heads in (6, KV_HEADS, KV_HEADS))

    def change(score: torch.Tensor, _: object, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> Any:
        distance = query - key
        share = ((spans[head] * (window - 1) - distance) / ramp + 1).clamp(0, 1)
        entry = torch.where(distance < window, distance.clamp(0, window - 1), window)
        visible = torch.where(distance < window, share.log(), -torch.inf)
        visible = torch.where(key < sinks, 0.0, visible)
        return torch.where(distance < 0, -torch.inf, score + bias[head, entry] + visible)

    expected = flex_attention(queries, keys, values, score_mod=change, enable_gqa=True)
    with torch.no_grad():
        attention.relative_bias.copy_(bias)
        attention.spans.copy_(spans)
        positions = torch.arange(tokens)[None]
        mixed = attention.mix(queries, keys, values, find_visible(positions, positions, window, sinks))

    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=0)


@for_each(
    "spans, slots",
    {
        "spans as wide as the window": ([1.0] * 6, 16),
        "the widest head counts": ([0.0, 0.0, 0.4, 0.0, 0.0, 0.0], 10),
        "spans of nothing leave the ramp": ([0.0] * 6, 4),
        "numbers beyond the bounds count as the bounds": ([-3.0, -1, -1, -1, -1, 7.5], 16),
    },
)
def test_the_ring_is_as_long_as_the_widest_span(spans: list[float], slots: int, tiny: Path) -> None:
    model = load_tiny(tiny, LlamaArchitecture(window=16, sinks=2, span_ramp=4))
    for layer in model.layers:
        layer.self_attn.spans.copy_(torch.tensor(spans))
    ids, cache = draw_ids(1, 50), model.allocate_cache(1)

    pieces = [model(ids[:, one : one + 1], cache=cache) for one in range(50)]

    assert [one.slots for one in cache.layouts] == [slots + 2] * LAYERS
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=2e-5, rtol=0)


def measure_gradient(model: R1PlusModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of spans and bias of the first layer, for a loss that no number is special in."""
    attention = model.layers[0].self_attn
    for parameter in (attention.spans, attention.relative_bias):
        parameter.requires_grad_()
    model(draw_ids(2, 40)).log_softmax(-1)[..., 5].sum().backward()
    return attention.spans.grad, attention.relative_bias.grad


def test_spans_and_bias_learn() -> None:
    """Checked against differences: the loss rises as the gradient says."""
    shape = load_shape()
    torch.manual_seed(0)
    model = R1PlusModel(shape, LlamaArchitecture(window=16, sinks=2, relative_bias=True, span_ramp=8)).double()
    torch.nn.init.normal_(model.layers[0].self_attn.relative_bias)
    model.layers[0].self_attn.spans.data.fill_(0.47)
    by_span, by_bias = measure_gradient(model)

    assert torch.isfinite(by_span).all()
    for parameter, gradient in (
        (model.layers[0].self_attn.spans, by_span),
        (model.layers[0].self_attn.relative_bias, by_bias),
    ):
        direction = torch.sign(gradient)
        losses = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                parameter += step * direction
                losses.append(model(draw_ids(2, 40)).log_softmax(-1)[..., 5].sum())
                parameter -= step * direction
        difference = float(losses[0] - losses[1]) / 2e-3
        assert difference == pytest.approx(float((gradient * direction).sum()), rel=0.02)
        assert difference > 0


def load_shape() -> LlamaShape:
    return read_shape(TINY | {"model_type": "llama", "rope_theta": 100_000.0})


@for_each(
    "architecture, slots",
    {
        "full attention has a slot for each token": (LlamaArchitecture(), 3 * 64),
        "a window has its own and the sinks'": (LlamaArchitecture(window=8, sinks=2), 3 * 10),
        "a global layer keeps all": (LlamaArchitecture(window=8, sinks=2, global_every=3), 2 * 10 + 64),
        "no more than the context": (LlamaArchitecture(window=100, sinks=8), 3 * 64),
        "no more than the context, sinks alone": (LlamaArchitecture(window=100, sinks=80), 3 * 64),
    },
)
def test_the_cache_has_its_bytes_from_the_start_and_no_more_at_the_end(
    architecture: LlamaArchitecture, slots: int, tiny: Path
) -> None:
    model, ids = load_tiny(tiny, architecture), draw_ids(2, 64)
    cache = model.allocate_cache(2, context=64)
    expected = 2 * slots * 2 * KV_HEADS * HEAD_SIZE * BYTES

    assert cache.bytes == expected
    pieces = [model(ids[:, one : one + 1], cache=cache) for one in range(64)]
    assert cache.bytes == expected
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=2e-5, rtol=0)
