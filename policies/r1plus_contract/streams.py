"""Reading what another process answers, which must not fill our memory."""

from collections.abc import AsyncIterable


async def at_most(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """The first `most` bytes of what comes, however it is cut into packets; what comes after them is not awaited."""
    found = bytearray()
    async for chunk in chunks:
        found += chunk
        if len(found) >= most:
            break
    return bytes(found[:most])
