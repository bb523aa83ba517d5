"""Facts of one request that every answer's headers and metrics need. Each is set once, where it becomes known."""

from typing import Final

from aiohttp import web

from r1plus_gateway.access.caller import Caller, Remaining

REQUEST_ID: Final = web.RequestKey("request_id", str)
ARRIVED: Final = web.RequestKey("arrived", float)
"""Monotonic seconds at which its head had been read."""
CALLER: Final = web.RequestKey("caller", Caller)
IS_READ: Final = web.RequestKey("is_read", bool)
"""Whether the caller's requests are read, so that a refusal of this one counts for it."""
MODEL_NAME: Final = web.RequestKey("model", str)
"""The name of the model, or of what answers in place of one, for the metrics."""
REMAINING: Final = web.RequestKey("remaining", Remaining)
"""What the caller has left, as the newest reservation of this request says."""
IS_BILLED: Final = web.RequestKey("is_billed", bool)
"""Whether the request is counted when its bill is settled."""
HAS_ANSWER: Final = web.RequestKey("has_answer", bool)
"""Whether an answer has begun, so that its status is sent."""
