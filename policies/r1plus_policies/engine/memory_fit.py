"""Memory fit: which batch and context an engine can serve in how much memory. One function for CPU and GPU.

    total    = weights + KV cache + activations + runtime
    KV cache = batch x sum over layers of min(context, what the layer keeps)
               x 2 (key and value) x KV heads x head size x bytes per element

Where the cache is in blocks, a context is rounded up to whole ones, and blocks that stay empty are added.

With eviction from the cache one request at a time holds its whole prompt, which is read at once; the others hold what
eviction leaves them.

A layer with a window keeps its last `window` tokens, a global one all. Over several GPUs weights and KV heads are split
(tensor parallelism); where there are more GPUs than KV heads, each holds one head, and heads are held more than once.
Activations and runtime are needed on each. Memory is per device: what does not fit one does not fit.
"""

from dataclasses import dataclass

from r1plus_contract.remedies import LARGEST_NODE, Remedy, append_remedy, word

GIB = 1024**3
MIB = 1024**2
KV_ELEMENT_BITS = 16
LEAST_CONTEXT = 16
"""Tokens; a shorter context is none (spec.context.maxTokens)."""


def kv_bytes_per_token(layers: int, kv_heads: int, head_size: int, element_bits: int = KV_ELEMENT_BITS) -> int:
    """Return the bytes of key and value of one token in every layer."""
    return 2 * layers * kv_heads * head_size * element_bits // 8


@dataclass(frozen=True, slots=True)
class EngineShape:
    """The parameters of an engine that decide its memory. Bytes."""

    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    weights_bytes: int
    """Of the whole model."""
    runtime_bytes: int
    """Server, backend, libraries: on each device."""
    best_batch: int
    max_batch: int
    activation_bytes: int = 0
    """On each device, at the largest number of tokens in one step."""
    window: int | None = None
    """Tokens that a layer keeps; None: all."""
    global_layers: int = 0
    """Of the layers, those that keep all tokens in spite of `window`."""
    kv_element_bits: int = KV_ELEMENT_BITS
    devices: int = 1
    """GPUs that the model is split over; a CPU is one device."""
    kv_block_tokens: int = 1
    """Tokens of a block of the KV cache: a request takes whole blocks."""
    spare_kv_blocks: int = 0
    """Blocks that no request takes."""
    resident_tokens: int | None = None
    """Most tokens of a request in the KV cache, except of the one whose prompt is read; None: all tokens."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token of one request in the KV cache of all devices, while every layer keeps it."""
        return self.devices * self.layers * self._layer_bytes

    @property
    def _layer_bytes(self) -> int:
        """Bytes of one token in one layer, on one device."""
        heads = -(-self.kv_heads // self.devices)
        return kv_bytes_per_token(1, heads, self.head_size, self.kv_element_bits)

    @property
    def _window_layers(self) -> int:
        """Number of layers with a window."""
        return 0 if self.window is None else self.layers - min(self.layers, self.global_layers)

    @property
    def static_bytes(self) -> int:
        """What one device holds before the first request."""
        weights = -(-self.weights_bytes // self.devices)
        return weights + self.activation_bytes + self.runtime_bytes + self.spare_kv_bytes

    @property
    def spare_kv_bytes(self) -> int:
        """KV cache that no request takes, on one device."""
        return self.spare_kv_blocks * self.kv_block_tokens * self.layers * self._layer_bytes

    def slot_bytes(self, context: int) -> int:
        """Return the KV cache of one request of `context` tokens, on one device."""
        context = -(-context // self.kv_block_tokens) * self.kv_block_tokens
        window_tokens = min(context, self.window or context)
        return self._layer_bytes * (self._window_layers * window_tokens + (self.layers - self._window_layers) * context)

    def kv_cache_bytes(self, batch: int, context: int) -> int:
        """Return the KV cache of `batch` requests of `context` tokens, on one device."""
        return self.slot_bytes(context) + (batch - 1) * self._waiting_slot_bytes(context) + self.spare_kv_bytes

    def find_largest_batch(self, kv_bytes: int, context: int) -> int:
        """Return the most requests of `context` tokens whose KV cache fits `kv_bytes` of one device; 0 where none."""
        rest = kv_bytes - self.slot_bytes(context)
        return 0 if rest < 0 else 1 + rest // self._waiting_slot_bytes(context)

    def find_context_of_batch(self, kv_bytes: int, batch: int) -> int:
        """Return the most tokens of each of `batch` requests whose KV cache fits `kv_bytes` of one device."""
        if (resident := self.resident_tokens) is not None:
            longest = self.find_longest_context(kv_bytes - (batch - 1) * self.slot_bytes(resident))
            if longest > resident:
                return longest
        tokens = self.find_longest_context(kv_bytes // batch)
        return tokens if resident is None else min(tokens, resident)

    def find_resident_tokens(self, context: int) -> int | None:
        """Return the tokens that eviction leaves of a request of `context` tokens; None: all."""
        return self.resident_tokens if self.resident_tokens is not None and self.resident_tokens < context else None

    def _waiting_slot_bytes(self, context: int) -> int:
        """Return the KV cache of a request of `context` tokens while another's prompt is read."""
        return self.slot_bytes(self.find_resident_tokens(context) or context)

    def find_longest_context(self, slot_bytes: int) -> int:
        """Return the most tokens whose KV cache fits `slot_bytes` of one device; at most the context length."""
        if slot_bytes < self.slot_bytes(1):
            return 0
        tokens = slot_bytes // (self._layer_bytes * self.layers)
        tokens -= tokens % self.kv_block_tokens
        if self._window_layers and self.window is not None and tokens >= self.window:
            bytes_left = slot_bytes - self._layer_bytes * self._window_layers * self.window
            has_no_global_layer = self.layers == self._window_layers
            tokens = (
                self.context_length
                if has_no_global_layer
                else bytes_left // (self._layer_bytes * (self.layers - self._window_layers))
            )
        return min(tokens, self.context_length)


@dataclass(frozen=True, slots=True)
class Fit:
    """A batch and a context with the memory they need, term by term. Bytes, of all devices together."""

    batch: int
    context: int
    weights_bytes: int
    kv_cache_bytes: int
    runtime_bytes: int
    activation_bytes: int = 0
    devices: int = 1
    resident_tokens: int | None = None
    """Tokens that eviction leaves of a request in the cache; None: all."""

    @property
    def total_bytes(self) -> int:
        """The sum; the memory of the pod, where it has no GPU."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.runtime_bytes

    @property
    def device_bytes(self) -> int:
        """What one device holds; on every device it is the same, rounded up."""
        return -(-self.total_bytes // self.devices)

    def explain(self) -> str:
        """Return the sum in words."""
        activations = f" + activations {self.activation_bytes / GIB:.2f}" if self.activation_bytes else ""
        stay = f", {self.resident_tokens} of each but the one that is read" if self.resident_tokens else ""
        over = f", on {self.devices} GPUs {self.device_bytes / GIB:.2f} each" if self.devices > 1 else ""
        return (
            f"{self.total_bytes / GIB:.2f} GiB = weights {self.weights_bytes / GIB:.2f}"
            f" + KV cache {self.kv_cache_bytes / GIB:.2f} (batch {self.batch} x {self.context} tokens{stay})"
            f"{activations} + runtime {self.runtime_bytes / GIB:.2f}{over}"
        )


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a request cannot be served. `field` is the spec field to change."""

    field: str
    reason: str
    """ContextTooLong | BatchTooLarge | NoNodeFits"""
    message: str


def fit_memory(
    shape: EngineShape,
    *,
    batch: int | None,
    context: int | None,
    memory_bytes: int | None,
    where: str = "",
) -> Fit | Misfit:
    """Fit a request into `memory_bytes` of each device (None: unknown, then only the engine's own limits hold).

    An open batch becomes the largest that fits, at most the engine's best; an open context the engine's own. `where`
    names the owner of the memory in a refusal; empty: the largest node.
    """
    if misfit := _check_engine_limits(shape, batch, context):
        return misfit
    tokens = context or shape.context_length
    largest = find_largest_batch(shape, tokens, memory_bytes)
    batch_size = batch or min(shape.best_batch, max(largest, 1))
    if batch_size > largest:
        return _explain_misfit(shape, batch_size, tokens, memory_bytes or 0, where, is_explicit=batch is not None)
    return compute_fit(shape, batch_size, tokens)


def compute_fit(shape: EngineShape, batch: int, context: int) -> Fit:
    """Compute the memory of exactly this batch and context, whether or not it fits anything."""
    devices = shape.devices
    return Fit(
        batch,
        context,
        weights_bytes=devices * -(-shape.weights_bytes // devices),
        kv_cache_bytes=devices * shape.kv_cache_bytes(batch, context),
        runtime_bytes=devices * shape.runtime_bytes,
        activation_bytes=devices * shape.activation_bytes,
        devices=devices,
        resident_tokens=shape.find_resident_tokens(context),
    )


def find_largest_batch(shape: EngineShape, context: int, memory_bytes: int | None) -> int:
    """Return the most requests of `context` tokens at once, at most the engine's largest batch; 0 where none fits."""
    if memory_bytes is None:
        return shape.max_batch
    return min(shape.max_batch, shape.find_largest_batch(memory_bytes - shape.static_bytes, context))


def find_longest_context(shape: EngineShape, batch: int, memory_bytes: int | None) -> int:
    """Return the most tokens per request at this batch, at most the engine's context length; 0 where none fits."""
    if memory_bytes is None:
        return shape.context_length
    return shape.find_context_of_batch(memory_bytes - shape.static_bytes, batch)


def explain_uneven_split(shape: EngineShape) -> str:
    """Return why the model cannot be split over so many GPUs; empty where it can."""
    heads, devices = shape.kv_heads, shape.devices
    if heads % devices == 0 or devices % heads == 0:
        return ""
    problem = f"the engine's {heads} KV heads cannot be split evenly over {devices} GPUs"
    return f"{problem}; use a divisor or a multiple of {heads}"


def find_nearest_fits(shape: EngineShape, batch: int, context: int, memory_bytes: int) -> tuple[Fit, ...]:
    """Return the fits nearest to a request that does not fit: fewer requests as long, and as many but shorter."""
    if explain_uneven_split(shape):
        return ()
    tokens = min(context, shape.context_length)
    room = find_largest_batch(shape, tokens, memory_bytes)
    fewer = min(batch - 1, room) if batch > room else 0
    shorter = min(context - 1, find_longest_context(shape, batch, memory_bytes)) if batch <= shape.max_batch else 0
    fewer_requests = [compute_fit(shape, fewer, tokens)] if fewer >= 1 else []
    return (*fewer_requests, *([compute_fit(shape, batch, shorter)] if shorter >= LEAST_CONTEXT else []))


def _check_engine_limits(shape: EngineShape, batch: int | None, context: int | None) -> Misfit | None:
    if split_problem := explain_uneven_split(shape):
        return Misfit("spec.engine", "NoNodeFits", f"spec.engine: {split_problem}")
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
    return None


def _explain_misfit(
    shape: EngineShape, batch: int, context: int, memory: int, where: str, *, is_explicit: bool
) -> Misfit:
    need = compute_fit(shape, batch, context).explain()
    has = f"{where or word(LARGEST_NODE)} offers {memory / GIB:.2f} GiB"
    largest = find_largest_batch(shape, context, memory)
    shorter = find_longest_context(shape, batch, memory)
    lower = f"lower spec.context.maxTokens to {shorter}" if shorter >= LEAST_CONTEXT else ""
    if largest >= 1 and is_explicit:
        text = (
            f"spec.batching.maxBatchSize: {batch} exceeds {largest}, the largest batch whose KV cache fits:"
            f" it needs {need}; {has}" + (f"; or {lower}" if lower else "")
        )
        return Misfit("spec.batching.maxBatchSize", "BatchTooLarge", text)
    text = f"batch {batch} at {context} tokens needs {need}; {has}"
    text = f"{text}; {lower}" if lower else append_remedy(text, Remedy.ADD_NODE)
    return Misfit("spec.context.maxTokens", "NoNodeFits", text)
