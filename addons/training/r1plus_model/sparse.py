"""The MLP of a Llama, of whose neurons only a share is active for a token.

Which ones, either the gate says (CATS, Lee et al. 2024: all of it is computed), or a predictor of low rank (Deja Vu,
Liu et al. 2023), which begins as the gate's best approximation and is trained. A single token in decoding reads the
weights of its neurons and no others. A batch of n tokens shares no neurons: at 15 % and 16 tokens, 93 % are read.
"""

from collections.abc import Iterable
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, LlamaShape, ModelError


class NeuronChoice(StrEnum):
    """What ranks the neurons of a token."""

    GATE = "gate"
    PREDICTOR = "predictor"
    PRODUCT = "product"
    """By what they would give, for which all is computed: a bound, and what a predictor learns."""


class Predictor(nn.Module):
    """Ranks neurons by two small matrices."""

    def __init__(self, hidden_size: int, neurons: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, rank, bias=False)
        self.up = nn.Linear(rank, neurons)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each neuron: (..., neurons)."""
        scores: Tensor = self.up(self.down(x))
        return scores

    def approximate(self, gate: Tensor) -> None:
        """Begin as the best approximation of the gate's weights (neurons, hidden size) of this rank."""
        with torch.no_grad():
            wide = gate.double()
            # The strongest directions of what the gate reads. This costs less than its singular values.
            directions = torch.linalg.eigh(wide.t() @ wide).eigenvectors[:, -self.down.weight.shape[0] :]
            self.down.weight.copy_(directions.t())
            self.up.weight.copy_(wide @ directions)
            self.up.bias.zero_()


class SparseMlp(nn.Module):
    """SwiGLU with `count` of its neurons active; with all of them it is transformers' LlamaMLP."""

    def __init__(self, shape: LlamaShape, architecture: LlamaArchitecture) -> None:
        super().__init__()
        hidden_size, self.neurons, bias = shape.hidden_size, shape.intermediate_size, shape.has_mlp_bias
        self.gate_proj = nn.Linear(hidden_size, self.neurons, bias=bias)
        self.up_proj = nn.Linear(hidden_size, self.neurons, bias=bias)
        self.down_proj = nn.Linear(self.neurons, hidden_size, bias=bias)
        self.count = architecture.count_active(self.neurons)
        rank = architecture.predictor_rank
        if rank is not None and rank * (hidden_size + self.neurons) >= hidden_size * self.neurons:
            most = (hidden_size * self.neurons - 1) // (hidden_size + self.neurons)
            raise ModelError(f"predictor_rank: {rank} reads no less than the gate; use at most {most}")
        self.predictor = None if rank is None else Predictor(hidden_size, self.neurons, rank)
        self.choice = NeuronChoice.GATE if rank is None else NeuronChoice.PREDICTOR
        self.predictor_loss: Tensor | None = None
        """Of the last tokens in training: how badly the predictor tells the neurons that give most."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the MLP's output for tokens (batch, tokens, hidden size)."""
        is_learning = self.training and self.predictor is not None
        if self.count == self.neurons and not is_learning:
            return self._project(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        if x.shape[:-1].numel() == 1 and self.can_select and not torch.is_grad_enabled():
            return self._decode(x.reshape(-1)).view_as(x)
        return self._mask(x)

    @property
    def can_select(self) -> bool:
        """Whether one token can be computed without reading what is not active."""
        return self.choice is not NeuronChoice.PRODUCT and self.gate_proj.bias is None

    def store_by_neuron(self) -> None:
        """Lay the last matrix out so that a neuron's weights lie together; the numbers stay."""
        weight = self.down_proj.weight
        weight.data = weight.data.t().contiguous().t()

    def _project(self, x: Tensor) -> Tensor:
        projected: Tensor = self.down_proj(x)
        return projected

    def _mask(self, x: Tensor) -> Tensor:
        """Compute all neurons, and set to zero those that are not chosen: for training and for batches."""
        gate = functional.silu(self.gate_proj(x))
        products = gate * self.up_proj(x)
        if self.training and self.predictor is not None:
            self.predictor_loss = self._compare(x, products)
        with torch.no_grad():
            chosen = choose_largest(self._rank(x, gate, products), self.count)
        return self._project(torch.where(chosen, products, 0))

    def _rank(self, x: Tensor, gate: Tensor, products: Tensor) -> Tensor:
        if self.choice is NeuronChoice.PREDICTOR and self.predictor is not None:
            scores: Tensor = self.predictor(x)
            return scores
        return gate.abs() if self.choice is NeuronChoice.GATE else products.abs()

    def _compare(self, x: Tensor, products: Tensor) -> Tensor:
        """Return the predictor's binary cross-entropy against the neurons that give most. Only it learns by that."""
        assert self.predictor is not None
        with torch.no_grad():
            target = choose_largest(products.abs(), self.count)
        return functional.binary_cross_entropy_with_logits(self.predictor(x.detach()).float(), target.float())

    def _decode(self, x: Tensor) -> Tensor:
        """Compute one token (hidden size): read the rows of its neurons only."""
        if self.choice is NeuronChoice.PREDICTOR and self.predictor is not None:
            rows = self.predictor(x).topk(self.count, sorted=False).indices
            gate = functional.silu(multiply_rows(self.gate_proj.weight, rows, x))
        else:
            all_gates = functional.silu(self.gate_proj(x))
            rows = all_gates.abs().topk(self.count, sorted=False).indices
            gate = all_gates.index_select(0, rows)
        products = gate * multiply_rows(self.up_proj.weight, rows, x)
        return add_rows(self.down_proj.weight.t(), rows, products)


def choose_largest(scores: Tensor, count: int) -> Tensor:
    """Return which scores are the `count` largest of the last dimension: exactly so many, ties too."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    return chosen.scatter_(-1, scores.topk(count, dim=-1, sorted=False).indices, True)


def multiply_rows(weights: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    """Return the products of the chosen rows with x: (rows)."""
    return torch.mv(weights.index_select(0, rows), x)


def add_rows(weights: Tensor, rows: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of the chosen rows, each times its factor: (columns)."""
    return torch.mv(weights.index_select(0, rows).t(), factors)


def share_read(active: float, tokens: int) -> float:
    """Return the expected share of neurons that some token of a batch needs, if tokens choose independently."""
    return 1 - (1 - active) ** tokens


def collect_predictor_loss(mlps: Iterable[SparseMlp]) -> Tensor | None:
    """Return the mean of the predictors' losses of all MLPs, or None if none has one."""
    losses = [one.predictor_loss for one in mlps if one.predictor_loss is not None]
    return torch.stack(losses).mean() if losses else None
