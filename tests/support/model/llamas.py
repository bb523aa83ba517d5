"""Small Llamas: the same random weights in transformers, in a folder, and in R1+'s model."""

from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers.masking_utils import sdpa_mask

from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_model.checkpoint import load_model
from r1plus_model.model import R1PlusModel

VOCABULARY: Final = 97
CONTEXT: Final = 128
TINY: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
"""SmolLM2 in small: grouped queries, tied embeddings. Weights are large enough that attention is not uniform."""


def make_reference(**fields: Any) -> Any:
    """Return transformers' Llama with random weights, which are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(TINY | fields))).eval()


def write_tiny(folder: Path, **fields: Any) -> Path:
    """Write such a Llama as a checkpoint; return its folder."""
    make_reference(**fields).save_pretrained(folder)
    return folder


def load_tiny(folder: Path, architecture: LlamaArchitecture | None = None, *, is_random: bool = True) -> R1PlusModel:
    """Return the checkpoint as R1+'s model; what the options add has random numbers, so that it shows."""
    model = load_model(folder, architecture)
    model.eval()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad=False)
        if is_random and name.endswith("relative_bias"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        elif is_random and name.endswith("spans"):
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.6)
    return model


def draw_ids(batch: int, tokens: int, seed: int = 1, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Return random ids: (batch, tokens)."""
    return torch.randint(0, vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def mask_padding(padding: list[int], tokens: int, *, is_left: bool = True) -> torch.Tensor:
    """Return a mask (batch, tokens) with so much padding in each row."""
    columns = torch.arange(tokens)
    return torch.stack([columns >= one if is_left else columns < tokens - one for one in padding])


def compute_reference(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return transformers' logits of rows with padding.

    The mask is made by transformers' own function. Its model would make it, too, but first asks CUDA whether a stream is
    captured, and the libraries here are substitutes that cannot say.
    """
    batch, tokens = ids.shape
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    visible = sdpa_mask(batch, tokens, tokens, attention_mask=mask, allow_is_causal_skip=False)
    logits: torch.Tensor = model(ids, attention_mask=visible, position_ids=positions).logits
    return logits
