"""R1+'s model in plain torch: a Llama, and with its options on, R1+'s architecture.

With the options off it computes the bits that transformers' LlamaForCausalLM computes on the same machine. Padding is
on either side of a row. Decoding with a cache computes what one pass over the whole text computes.
"""

import torch
from torch import Tensor, nn

from r1plus_contract.engine.llama_architecture import LlamaArchitecture, LlamaShape
from r1plus_model.attention import GroupedQueryAttention, LayerContext, choose_layout
from r1plus_model.cache import KvCache
from r1plus_model.chunk import place_chunk, share_contexts
from r1plus_model.sparse import SparseMlp


class RmsNorm(nn.Module):
    """Root mean square layer normalization, computed in FP32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return x of the same shape and type."""
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(x.dtype)


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: LlamaShape, architecture: LlamaArchitecture, index: int) -> None:
        super().__init__()
        self.self_attn = GroupedQueryAttention(shape, architecture, index)
        self.mlp = SparseMlp(shape, architecture)
        self.input_layernorm = RmsNorm(shape.hidden_size, shape.norm_epsilon)
        self.post_attention_layernorm = RmsNorm(shape.hidden_size, shape.norm_epsilon)

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        """Return the hidden states after this layer."""
        x = x + self.self_attn(self.input_layernorm(x), context)
        return x + self.mlp(self.post_attention_layernorm(x))


class R1PlusModel(nn.Module):
    """A causal language model. Names of parameters are those of a Llama's checkpoint without `model.`."""

    def __init__(self, shape: LlamaShape, architecture: LlamaArchitecture | None = None) -> None:
        super().__init__()
        self.shape, self.architecture = shape, architecture or LlamaArchitecture()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape, self.architecture, index) for index in range(shape.layers))
        self.norm = RmsNorm(shape.hidden_size, shape.norm_epsilon)
        self.lm_head = None
        if not shape.has_tied_embeddings:
            self.lm_head = nn.Linear(shape.hidden_size, shape.vocabulary, bias=False)
        exponents = torch.arange(0, shape.head_size, 2, dtype=torch.float) / shape.head_size
        self.register_buffer("frequencies", 1.0 / (shape.rope_theta**exponents), persistent=False)

    def forward(self, ids: Tensor, mask: Tensor | None = None, cache: KvCache | None = None) -> Tensor:
        """Return the logits after each token: (batch, tokens, vocabulary).

        Args:
            ids: (batch, tokens).
            mask: (batch, tokens), false for padding, whose logits mean nothing.
            cache: what the tokens before have left; those of this pass are added.

        Raises:
            ModelError: a row would be longer than the sequences of training, or than the cache.
        """
        return self.compute_logits(self.compute_states(ids, mask, cache))

    def compute_logits(self, states: Tensor) -> Tensor:
        """Return the logits of hidden states (..., hidden size)."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        logits: Tensor = nn.functional.linear(states, weight)
        return logits

    def compute_states(self, ids: Tensor, mask: Tensor | None = None, cache: KvCache | None = None) -> Tensor:
        """Return the normalized hidden states: (batch, tokens, hidden size). As forward, without the last matrix."""
        chunk = place_chunk(ids, mask, cache, self.shape.context)
        x = self.embed_tokens(ids)
        attentions = [layer.self_attn for layer in self.layers]
        contexts, writes = share_contexts(chunk, attentions, cache, self.frequencies, x.dtype)
        for layer, context in zip(self.layers, contexts, strict=True):
            x = layer(x, context)
        if cache is not None:
            cache.commit(writes, chunk.positions)
        states: Tensor = self.norm(x)
        return states

    def allocate_cache(self, batch: int, context: int | None = None) -> KvCache:
        """Return an empty cache for rows of at most `context` tokens; by default as long as in training.

        Learned spans that became shorter make it smaller, so it fits the numbers that the model has now.
        """
        context = context or self.shape.context
        layouts = [choose_layout(layer.self_attn, context) for layer in self.layers]
        dtype = self.embed_tokens.weight.dtype
        return KvCache(layouts, batch, context, self.shape.kv_heads, self.shape.head_size, dtype)
