"""One request and one reply over the Unix socket of a process beside the gateway: the calculator, the embedder."""

import asyncio
import contextlib
from typing import Final

from r1plus_contract.frames import FrameError, pack, read_frame

RECONNECT_SECONDS: Final = 0.5
"""For a process that restarts."""
RETRY_SECONDS: Final = 0.05


class HelperUnavailableError(Exception):
    """The process is away, or does not answer as it should; the message says what to do."""


async def exchange_frames(path: str, name: str, request: bytes, most_reply_bytes: int, seconds: float) -> bytes:
    """Return the reply to a request. `name` is the container's, for messages.

    Raises:
        HelperUnavailableError: there is none within so many seconds.
    """
    reader, writer = await connect_to_helper(path, name)
    try:
        async with asyncio.timeout(seconds):
            writer.write(pack(request))
            await writer.drain()
            return await read_frame(reader, most_reply_bytes)
    except FrameError as error:
        remedy = "ask the platform team whether gateway and container are of one release"
        raise HelperUnavailableError(f"the {name} has sent {error}; {remedy}") from error
    except TimeoutError as error:
        raise HelperUnavailableError(f"the {name} has not answered within {seconds:g} s; try again later") from error
    except (OSError, asyncio.IncompleteReadError) as error:
        raise HelperUnavailableError(f"the {name} broke off its answer, as when it restarts; try again") from error
    finally:
        writer.transport.abort()  # nothing that is left to send matters
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def connect_to_helper(path: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the process beside the gateway. Raises HelperUnavailableError."""
    deadline = asyncio.get_running_loop().time() + RECONNECT_SECONDS
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.open_unix_connection(path)
        except (OSError, TimeoutError) as error:
            if asyncio.get_running_loop().time() + RETRY_SECONDS >= deadline:
                raise HelperUnavailableError(
                    f"the {name} is away; try again later, and if that lasts, ask the platform team to look at"
                    f" the container {name} of the gateway's pod"
                ) from error
        await asyncio.sleep(RETRY_SECONDS)
