"""Memory fit: which batch and context an engine can serve in how much memory.

    total = weights + KV cache(batch x context) + runtime
    KV bytes per token = 2 (key and value) x layers x KV heads x head size x bytes per element

Full attention only: every token of every slot has its place in the cache.
"""

from dataclasses import dataclass

GIB = 1024**3
MIB = 1024**2
KV_ELEMENT_BYTES = 2


def kv_bytes_per_token(layers: int, kv_heads: int, head_size: int) -> int:
    """Key and value of one token in every layer, in 16 bits. Bytes."""
    return 2 * layers * kv_heads * head_size * KV_ELEMENT_BYTES


@dataclass(frozen=True, slots=True)
class Shape:
    """What of an engine decides its memory. Bytes."""

    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    weights_bytes: int
    runtime_bytes: int
    best_batch: int
    max_batch: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token of one request holds in the KV cache."""
        return kv_bytes_per_token(self.layers, self.kv_heads, self.head_size)


@dataclass(frozen=True, slots=True)
class Fit:
    """A batch and a context with the memory they need, term by term. Bytes."""

    batch: int
    context: int
    weights_bytes: int
    kv_cache_bytes: int
    runtime_bytes: int

    @property
    def total_bytes(self) -> int:
        """What the pod is given."""
        return self.weights_bytes + self.kv_cache_bytes + self.runtime_bytes

    def explain(self) -> str:
        """The sum, for people."""
        return (
            f"{self.total_bytes / GIB:.2f} GiB = weights {self.weights_bytes / GIB:.2f}"
            f" + KV cache {self.kv_cache_bytes / GIB:.2f} (batch {self.batch} x {self.context} tokens)"
            f" + runtime {self.runtime_bytes / GIB:.2f}"
        )


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a wish cannot be served. `field` is the spec field to change."""

    field: str
    reason: str
    """ContextTooLong | BatchTooLarge | NoNodeFits"""
    message: str


def fit(shape: Shape, *, batch: int | None, context: int | None, memory_bytes: int | None) -> Fit | Misfit:
    """Fit a wish into `memory_bytes` (None: unknown, then only the engine's own limits hold).

    An open batch becomes the largest that fits, at most the engine's best; an open context the engine's own.
    """
    if context is not None and context > shape.context_length:
        return Misfit(
            "spec.context.maxTokens",
            "ContextTooLong",
            f"spec.context.maxTokens: {context} exceeds {shape.context_length}, the engine's context length",
        )
    if batch is not None and batch > shape.max_batch:
        return Misfit(
            "spec.batching.maxBatchSize",
            "BatchTooLarge",
            f"spec.batching.maxBatchSize: {batch} exceeds {shape.max_batch}, the engine's largest batch",
        )
    tokens = context or shape.context_length
    largest = _largest_batch(shape, tokens, memory_bytes)
    wanted = batch or min(shape.best_batch, max(largest, 1))
    if wanted > largest:
        return _too_big(shape, wanted, tokens, largest, memory_bytes or 0, asked=batch is not None)
    return sized(shape, wanted, tokens)


def sized(shape: Shape, batch: int, context: int) -> Fit:
    """The memory of exactly this batch and context."""
    return Fit(batch, context, shape.weights_bytes, batch * context * shape.kv_bytes_per_token, shape.runtime_bytes)


def _largest_batch(shape: Shape, context: int, memory_bytes: int | None) -> int:
    if memory_bytes is None:
        return shape.max_batch
    room = memory_bytes - shape.weights_bytes - shape.runtime_bytes
    return max(0, min(shape.max_batch, room // (context * shape.kv_bytes_per_token)))


def _too_big(shape: Shape, batch: int, context: int, largest: int, memory: int, *, asked: bool) -> Misfit:
    need = sized(shape, batch, context).explain()
    has = f"the largest matching node offers {memory / GIB:.2f} GiB"
    if largest >= 1 and asked:
        text = (
            f"spec.batching.maxBatchSize: {batch} exceeds {largest}, the largest batch whose KV cache fits:"
            f" it needs {need}; {has}"
        )
        return Misfit("spec.batching.maxBatchSize", "BatchTooLarge", text)
    room = memory - shape.weights_bytes - shape.runtime_bytes
    tokens = max(0, room) // (batch * shape.kv_bytes_per_token)
    remedy = f"lower spec.context.maxTokens to {tokens}" if tokens >= 16 else "add a larger node"
    return Misfit(
        "spec.context.maxTokens", "NoNodeFits", f"batch {batch} at {context} tokens needs {need}; {has}; {remedy}"
    )
