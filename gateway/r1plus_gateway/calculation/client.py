"""The client of the calculator's socket: one connection per expression, a deadline, and errors that say what to do."""

import asyncio
import contextlib
from typing import Final, Protocol

from r1plus_contract.calculator import (
    ANSWER_SECONDS,
    LENGTH_BYTES,
    MOST_REPLY_BYTES,
    CalculationRequest,
    CalculatorReply,
)
from r1plus_contract.jsonable import ContractError, dumps, loads

RECONNECT_SECONDS: Final = 0.5
"""For a calculator that restarts."""
RETRY_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 0.5
"""Beyond the time in which a calculator answers."""


class CalculatorUnavailableError(Exception):
    """The calculator is away, or does not answer as it should; the message says what to do."""


class Calculator(Protocol):
    """What computes expressions."""

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """Return the result of an expression, or why it has none.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """


class SocketCalculator:
    """A calculator at a Unix socket."""

    def __init__(self, path: str, answer_seconds: float = ANSWER_SECONDS + GRACE_SECONDS) -> None:
        self._path = path
        self._answer_seconds = answer_seconds

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """See `Calculator`."""
        request = dumps(CalculationRequest(expression, digits)).encode()
        reader, writer = await self._connect()
        try:
            async with asyncio.timeout(self._answer_seconds):
                writer.write(len(request).to_bytes(LENGTH_BYTES, "big") + request)
                await writer.drain()
                return await _read_reply(reader)
        except TimeoutError as error:
            message = f"the calculator has not answered within {self._answer_seconds:g} s; try again later"
            raise CalculatorUnavailableError(message) from error
        except (OSError, asyncio.IncompleteReadError, ContractError) as error:
            message = "the calculator broke off its answer, as when it restarts; try again"
            raise CalculatorUnavailableError(message) from error
        finally:
            writer.transport.abort()  # nothing that is left to send matters
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + RECONNECT_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await asyncio.open_unix_connection(self._path)
            except (OSError, TimeoutError) as error:
                if asyncio.get_running_loop().time() + RETRY_SECONDS >= deadline:
                    raise CalculatorUnavailableError(
                        "the calculator is away; try again later, and if that lasts, ask the platform team to look at"
                        " the container calculator of the gateway's pod"
                    ) from error
            await asyncio.sleep(RETRY_SECONDS)


async def _read_reply(reader: asyncio.StreamReader) -> CalculatorReply:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if not 0 < length <= MOST_REPLY_BYTES:
        raise ContractError(f"a reply of {length} bytes is not between 1 and {MOST_REPLY_BYTES}")
    return loads(CalculatorReply, await reader.readexactly(length), tolerant=True)
