"""The MLP with a share of its neurons: what is chosen, what is read, what the predictor learns."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, LlamaShape, ModelError
from r1plus_model.sparse import NeuronChoice, SparseMlp, choose_largest, share_read
from support.model.llamas import draw_ids, load_tiny, write_tiny
from support.tables import for_each

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
HIDDEN, NEURONS, ACTIVE = 24, 100, 15
SHAPE = LlamaShape(10, HIDDEN, NEURONS, 1, 3, 1, 8, 64, 1e-5, 1e4, has_tied_embeddings=True)
CHOICES = {
    "by the gate": LlamaArchitecture(active=0.15),
    "by a predictor": LlamaArchitecture(active=0.15, predictor_rank=6),
}


def make_mlp(architecture: LlamaArchitecture, seed: int = 0) -> SparseMlp:
    torch.manual_seed(seed)
    mlp = SparseMlp(SHAPE, architecture).eval()
    for parameter in mlp.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return mlp


def compute_one(mlp: SparseMlp, x: torch.Tensor) -> torch.Tensor:
    """Return the output for one token (hidden size), written from the definition."""
    gate = functional.silu(mlp.gate_proj.weight @ x)
    scores = gate.abs() if mlp.predictor is None else mlp.predictor(x)
    products = gate * (mlp.up_proj.weight @ x)
    rows = scores.argsort(descending=True)[:ACTIVE]
    return mlp.down_proj.weight[:, rows] @ products[rows]


@for_each("architecture", CHOICES)
def test_one_token_and_many_are_computed_with_the_same_neurons(architecture: LlamaArchitecture) -> None:
    mlp, tokens = make_mlp(architecture), torch.randn(2, 5, HIDDEN)
    mlp.store_by_neuron()
    with torch.inference_mode():
        together = mlp(tokens)
        one_by_one = torch.stack([mlp(token.view(1, 1, -1)).view(-1) for token in tokens.view(-1, HIDDEN)])
        defined = torch.stack([compute_one(mlp, token) for token in tokens.view(-1, HIDDEN)])

    torch.testing.assert_close(together.view(-1, HIDDEN), defined, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one_by_one, defined, atol=1e-5, rtol=1e-5)


@for_each("architecture", CHOICES)
def test_one_token_reads_no_weight_of_another_neuron(architecture: LlamaArchitecture) -> None:
    """Weights that are not to be read are no numbers: read once, they would be in the result."""
    mlp, x = make_mlp(architecture), torch.randn(1, 1, HIDDEN)
    with torch.inference_mode():
        expected = mlp(x)
        scores = (functional.silu(mlp.gate_proj(x)).abs() if mlp.predictor is None else mlp.predictor(x)).view(-1)
        inactive = torch.ones(NEURONS, dtype=torch.bool)
        inactive[scores.topk(ACTIVE).indices] = False
        mlp.up_proj.weight[inactive] = float("nan")
        mlp.down_proj.weight[:, inactive] = float("nan")
        if mlp.predictor is not None:
            mlp.gate_proj.weight[inactive] = float("nan")

        assert torch.equal(mlp(x), expected)
        assert mlp(x.expand(1, 2, -1)).isnan().all(), "a batch reads all of them"


def test_the_layout_by_neuron_changes_no_number() -> None:
    mlp = make_mlp(LlamaArchitecture(active=0.15))
    before = mlp.down_proj.weight.clone()

    mlp.store_by_neuron()

    assert torch.equal(mlp.down_proj.weight, before)
    assert mlp.down_proj.weight.t().is_contiguous()


def test_ties_are_cut_at_the_count() -> None:
    assert choose_largest(torch.zeros(3, 10), 4).sum(-1).tolist() == [4, 4, 4]


def test_all_neurons_make_a_llamas_mlp() -> None:
    mlp, x = make_mlp(LlamaArchitecture()), torch.randn(2, 5, HIDDEN)

    dense = mlp.down_proj(functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))

    assert torch.equal(mlp(x), dense)
    mlp.count = NEURONS - 1
    assert not torch.equal(mlp(x), dense)


def test_inactive_neurons_get_no_gradient() -> None:
    mlp, x = make_mlp(LlamaArchitecture(active=0.15)).train(), torch.randn(1, 1, HIDDEN)

    mlp(x).sum().backward()

    assert int((mlp.up_proj.weight.grad.abs().sum(1) > 0).sum()) == ACTIVE


def measure_hits(mlp: SparseMlp, x: torch.Tensor) -> float:
    """Return the share of the neurons that give most which the predictor chooses."""
    assert mlp.predictor is not None
    with torch.no_grad():
        products = functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x)
        best, chosen = choose_largest(products.abs(), ACTIVE), choose_largest(mlp.predictor(x), ACTIVE)
        return float((best & chosen).sum() / best.sum())


def test_a_predictor_begins_as_the_gate_of_its_rank() -> None:
    mlp = make_mlp(LlamaArchitecture(active=0.15, predictor_rank=18))
    # A gate that has this rank is met exactly.
    with torch.no_grad():
        mlp.gate_proj.weight.copy_(torch.randn(NEURONS, 18) @ torch.randn(18, HIDDEN))
    assert mlp.predictor is not None
    mlp.predictor.approximate(mlp.gate_proj.weight)
    x = torch.randn(7, HIDDEN)

    torch.testing.assert_close(mlp.predictor(x), mlp.gate_proj(x), atol=1e-3, rtol=1e-3)


def test_a_predictor_learns_which_neurons_give_most() -> None:
    """Tokens lie in a part of the space, which the gate's weights alone do not show."""
    mlp = make_mlp(LlamaArchitecture(active=0.15, predictor_rank=12)).train()
    assert mlp.predictor is not None
    mlp.predictor.approximate(mlp.gate_proj.weight)
    directions = torch.randn(6, HIDDEN)
    tokens, unseen = torch.randn(4096, 1, 6) @ directions, torch.randn(500, 6) @ directions
    before = measure_hits(mlp, unseen)
    optimizer = torch.optim.Adam(mlp.predictor.parameters(), 1e-2)
    for step in range(60):
        mlp(tokens[step % 8 :: 8])
        assert mlp.predictor_loss is not None
        mlp.predictor_loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    assert measure_hits(mlp, unseen) > before + 0.05
    assert mlp.gate_proj.weight.grad is None, "only the predictor learns by its loss"


def test_by_what_neurons_give_is_at_least_as_near_to_dense_as_by_the_gate() -> None:
    mlp, x = make_mlp(LlamaArchitecture(active=0.15)), torch.randn(64, 4, HIDDEN)
    with torch.no_grad():
        dense = mlp.down_proj(functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
        by_gate = (mlp(x) - dense).norm()
        mlp.choice = NeuronChoice.PRODUCT
        assert (mlp(x) - dense).norm() < by_gate


def test_a_rank_that_reads_no_less_than_the_gate_is_refused() -> None:
    with pytest.raises(ModelError, match="predictor_rank: 20 reads no less than the gate; use at most 19"):
        SparseMlp(SHAPE, LlamaArchitecture(active=0.15, predictor_rank=20))
    SparseMlp(SHAPE, LlamaArchitecture(active=0.15, predictor_rank=19))


@for_each(
    "tokens, share",
    {
        "one token reads its own": (1, 0.15),
        "sixteen tokens read nearly all": (16, 0.926),
        "at batch 32 sparsity saves nothing": (32, 0.994),
    },
)
def test_the_share_that_a_batch_reads(tokens: int, share: float) -> None:
    assert share_read(0.15, tokens) == pytest.approx(share, abs=5e-4)


def test_a_batch_of_a_real_model_says_what_its_tokens_say_alone(tmp_path: Path) -> None:
    model, ids = load_tiny(write_tiny(tmp_path), LlamaArchitecture(active=0.15, predictor_rank=8)), draw_ids(4, 12)
    with torch.inference_mode():
        together = model(ids)
        alone = []
        for row in ids:
            cache = model.allocate_cache(1)
            alone.append(torch.cat([model(token.view(1, 1), cache=cache)[0] for token in row]))

    torch.testing.assert_close(torch.stack(alone), together, atol=2e-5, rtol=0)
