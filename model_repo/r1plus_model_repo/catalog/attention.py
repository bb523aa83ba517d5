"""Attention that leaves tokens out: `R1PlusEngine.spec.attention`.

It changes answers, so it is part of the identity of a revision: one that turns it on has a gate of its own.
"""

from typing import Annotated

from pydantic import Field, model_validator

from r1plus_contract.engine.openvino import BLOCK_TOKENS, EVICTION_STEPS, STEP_TOKENS
from r1plus_model_repo.catalog.wire import ApiModel, JsonInteger, Number, Rule, build_rules_config

_THRESHOLD_LIMITS = Rule(
    "self.threshold >= 0.1 && self.threshold <= 0.99",
    "threshold must be from 0.1 to 0.99: OpenVINO takes 0 for dense attention, and 1 keeps every block",
)
"""kube-apiserver compares the integers 0 and 1 with no limit that has a fraction, so the schema's limits admit them."""


class SparseAttention(ApiModel):
    """XAttention while a prompt is read (arXiv 2503.16428): blocks of little weight are left out."""

    model_config = build_rules_config(_THRESHOLD_LIMITS)

    threshold: Annotated[Number, Field(ge=0.1, le=0.99)] = Field(
        description="Share of the estimated attention that the blocks which are read must have, e.g. 0.9."
    )


_WHOLE_BLOCKS = Rule(
    " && ".join(f"self.{name} % {BLOCK_TOKENS} == 0" for name in ("startTokens", "recentTokens", "maxTokens")),
    f"startTokens, recentTokens and maxTokens must be multiples of {BLOCK_TOKENS}, the tokens of a block",
)
_ROOM_BETWEEN = Rule(
    "self.startTokens + self.recentTokens < self.maxTokens",
    "maxTokens must exceed startTokens + recentTokens, which are always kept",
)
_Tokens = Annotated[JsonInteger, Field(ge=BLOCK_TOKENS, le=1_048_576)]


class CacheEviction(ApiModel):
    """Eviction from the KV cache while an answer is generated: the tokens of least weight leave it."""

    model_config = build_rules_config(_WHOLE_BLOCKS, _ROOM_BETWEEN)

    start_tokens: _Tokens = Field(description="First tokens of a request, which are always kept.")
    recent_tokens: _Tokens = Field(description="Newest tokens of a request, which are always kept.")
    max_tokens: _Tokens = Field(description="Tokens of a request that stay once its prompt is read.")

    @model_validator(mode="after")
    def _check_tokens(self) -> "CacheEviction":
        tokens = (self.start_tokens, self.recent_tokens, self.max_tokens)
        listing = "they are {}, {} and {}".format(*tokens)
        if any(count % BLOCK_TOKENS for count in tokens):
            raise ValueError(f"{_WHOLE_BLOCKS.message}: {listing}")
        if self.start_tokens + self.recent_tokens >= self.max_tokens:
            raise ValueError(f"{_ROOM_BETWEEN.message}: {listing}")
        return self


_ANY_METHOD = Rule(
    "has(self.sparse) || has(self.eviction)",
    "attention needs sparse, eviction or both; omit it where every token attends to all before it",
)


class Attention(ApiModel):
    """What a request's tokens do not attend to."""

    model_config = build_rules_config(_ANY_METHOD)

    sparse: SparseAttention | None = Field(
        None, description="Read prompts with XAttention: less time to the first token. Default: read them densely."
    )
    eviction: CacheEviction | None = Field(
        None, description="Evict tokens from the KV cache while generating: less memory. Default: keep all."
    )

    @model_validator(mode="after")
    def _check_any_method(self) -> "Attention":
        if self.sparse is None and self.eviction is None:
            raise ValueError(_ANY_METHOD.message)
        return self

    def count_resident_tokens(self, max_batch: int) -> int | None:
        """Return the most tokens of a request in the KV cache while another's prompt is read; None: all.

        Prompts are read one after the other, and a block that is not full yet is not evicted. A step reads the more
        the more requests an engine may run at once.
        """
        if self.eviction is None:
            return None
        unevicted = EVICTION_STEPS * max(STEP_TOKENS, max_batch)
        return max(self.eviction.max_tokens, unevicted) + BLOCK_TOKENS

    def describe(self) -> str:
        """Return what it leaves out, in words."""
        parts = []
        if self.sparse is not None:
            parts.append(f"prompts are read sparsely (XAttention, threshold {self.sparse.threshold:g})")
        if self.eviction is not None:
            parts.append(f"the KV cache keeps {self.eviction.max_tokens} tokens of a request while it generates")
        return "; ".join(parts)
