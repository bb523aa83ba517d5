"""Bodies of requests, read within a bound on all that are in memory before their answers begin."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json, parse_object, read_body
from r1plus_gateway.serving.errors import QueueFullError
from r1plus_gateway.settings import GatewayLimits

SHARE_OF_CALLER: Final = 4
"""A caller may fill the fourth part of what all bodies may take."""
LARGE_BYTES: Final = 64 * 1024
"""A larger body is parsed beside the event loop, which streams to others meanwhile."""


@dataclass(slots=True)
class Body:
    """The body of one request. It counts until its block ends, or it is released."""

    budget: "BodyBudget"
    caller: str
    size: int
    fields: Fields

    def shrink(self, size: int) -> None:
        """Count so many bytes from now on."""
        self.budget.give_back(self.caller, self.size - size)
        self.size = size

    def release(self) -> None:
        """Count it no longer, and forget its fields: what is used of it has a bound of its own."""
        self.shrink(0)
        self.fields = Fields({})


class BodyBudget:
    """Bytes of all bodies that are read or wait: within a bound, of which one caller takes a share only."""

    def __init__(self) -> None:
        self._all = 0
        self._of: Counter[str] = Counter()
        self._parsing = ThreadTurns()

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request, caller: Caller, limits: GatewayLimits) -> AsyncIterator[Body]:
        """Yield the body of a request, which counts for the block. Until its length is known it counts as the longest.

        Raises:
            QueueFullError: there is no room.
            RequestError: what `read_body` and `parse_object` raise.
        """
        body = self._reserve(caller.group_id, request.content_length, limits)
        try:
            data = await read_body(request, limits.body_seconds)
            body.shrink(len(data))
            body.fields = Fields(await self._parse(body.caller, data))
            del data
            yield body
        finally:
            body.release()

    async def _parse(self, caller: str, data: bytearray) -> dict[str, Json]:
        """Parse a body: a large one in a thread, one at a time, and callers take turns."""
        if len(data) <= LARGE_BYTES:
            return parse_object(data)
        return await self._parsing.run(caller, parse_object, data)

    def _reserve(self, caller: str, length: int | None, limits: GatewayLimits) -> Body:
        size = min(limits.body_bytes if length is None else length, limits.body_bytes)
        share = max(limits.body_bytes, limits.bodies_bytes // SHARE_OF_CALLER)
        if self._of[caller] + size > share:
            raise QueueFullError("too many of your large requests arrive or wait at once; try again later")
        if self._all + size > limits.bodies_bytes:
            raise QueueFullError("too many large requests arrive or wait at once; try again later")
        self._all += size
        self._of[caller] += size
        return Body(self, caller, size, Fields({}))

    def give_back(self, caller: str, size: int) -> None:
        """Count so many bytes of a caller no longer."""
        self._all -= size
        self._of[caller] -= size
        if not self._of[caller]:
            del self._of[caller]
