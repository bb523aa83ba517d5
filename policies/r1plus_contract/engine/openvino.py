"""What the catalog, which sizes an engine's memory, and the OpenVINO backend, which takes it, agree on."""

from typing import Final

SPARSE_BACKEND: Final = "openvino-sparse"
"""Value of the parameter `backend` where attention leaves tokens out: an image that does not know it refuses, and never
computes densely."""
BLOCK_TOKENS: Final = 32
"""Tokens of a block of the paged KV cache on CPU; whole blocks are evicted."""
STEP_TOKENS: Final = 512
"""Most tokens of a step; where more requests run at once, one of each. A long prompt is read in chunks, so that it
delays running answers little."""
EVICTION_STEPS: Final = 2
"""Steps in which the next prompt is read before tokens are evicted. A prompt is whole in the cache while its last
tokens are read and while its first token is generated."""
