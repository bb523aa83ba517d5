"""The client of the reader of documents: a file goes out in parts, its text comes in while it is read."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Protocol

from r1plus_assistant.helper_socket import HelperUnavailableError, connect_to_helper
from r1plus_contract.documents import (
    DEEPEST_HEADING,
    MOST_BLOCK_CHARACTERS,
    MOST_PAGES,
    MOST_REPLY_BYTES,
    DocumentFailure,
    DocumentFailureCode,
    DocumentReply,
    DocumentRequest,
    TextBlock,
)
from r1plus_contract.frames import LENGTH_BYTES, pack
from r1plus_contract.jsonable import ContractError, dumps, loads

SILENCE_SECONDS: Final = 300.0
"""Longest wait for the next reply: a reader has so much processor time for the whole document."""
READ_SECONDS: Final = 2400.0
"""Of a whole document. A reader ends it earlier; one that was taken over would hold up all others without end."""
SEND_SECONDS: Final = 120.0
NAME: Final = "documents"
_OWN_FAULTS: Final = (DocumentFailureCode.BUSY, DocumentFailureCode.FAILED, DocumentFailureCode.INVALID_REQUEST)
_MOST_SENT: Final = 128 * 1024
_MOST_REPLY_VALUES: Final = 4096
"""Of one reply: a thousand paragraphs, and some more."""
_MOST_MESSAGE: Final = 2048
_MOST_READER: Final = 256

ReadPart = Callable[[int], Awaitable[bytes | None]]
"""Returns a part of a file by its number; None behind the last one."""


class DocumentsUnavailableError(Exception):
    """The reader is away, or broke off; the message says what to do."""


class UnreadableDocumentError(Exception):
    """A document that cannot be read: code, and a message with name, cause and remedy."""

    def __init__(self, failure: DocumentFailure) -> None:
        super().__init__(failure.message)
        self.code = failure.code
        self.message = failure.message


class BrokenReadError(UnreadableDocumentError):
    """The connection broke while a document was read: its reader ended at it, or was restarted, so it may be tried."""


class DocumentReader(Protocol):
    """What reads documents."""

    def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """Yield what a document has, while it is read.

        Raises:
            BrokenReadError: the reader broke off; another try may succeed.
            UnreadableDocumentError: it cannot be read, or not to its end.
            DocumentsUnavailableError: the reader is away.
        """


class SocketDocumentReader:
    """A reader at a Unix socket."""

    def __init__(
        self,
        path: str,
        silence_seconds: float = SILENCE_SECONDS,
        read_seconds: float = READ_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: by which a document may take `read_seconds`."""
        self._path = path
        self._clock = clock
        self._silence_seconds = silence_seconds
        self._read_seconds = read_seconds

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        try:
            reader, writer = await connect_to_helper(self._path, NAME)
        except HelperUnavailableError as error:
            raise DocumentsUnavailableError(str(error)) from error
        sending = asyncio.create_task(_send(writer, DocumentRequest(name, size), read_part))
        sending.add_done_callback(lambda done: _hang_up(writer, done))
        deadline = self._clock() + self._read_seconds
        try:
            while True:
                if self._clock() > deadline:
                    message = f"takes longer than {self._read_seconds:g} s to read; split the file"
                    raise UnreadableDocumentError(_describe_limit(name, message))
                async with asyncio.timeout(self._silence_seconds):
                    reply = await _read_reply(reader)
                if reply.failure is not None:
                    raise UnreadableDocumentError(reply.failure)
                yield reply
                if reply.is_end:
                    return
        except TimeoutError as error:
            message = f"the reader of documents has said nothing for {self._silence_seconds:g} s; split the file"
            raise UnreadableDocumentError(_describe_limit(name, message)) from error
        except (asyncio.IncompleteReadError, OSError) as error:
            await _raise_send_error(sending)
            message = "the reader broke off at this document, or was restarted; add it again, or split it"
            raise BrokenReadError(_describe_limit(name, message)) from error
        except ContractError as error:
            message = f"{name}: the reader of documents gave no valid reply; update it with the gateway"
            raise BrokenReadError(DocumentFailure(DocumentFailureCode.FAILED, message)) from error
        finally:
            sending.cancel()
            writer.transport.abort()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sending
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def is_own_fault(code: DocumentFailureCode) -> bool:
    """Return whether a failure is the reader's, and not the document's."""
    return code in _OWN_FAULTS


def _describe_limit(name: str, message: str) -> DocumentFailure:
    return DocumentFailure(DocumentFailureCode.TIME_LIMIT, f"{name}: {message}")


def _hang_up(writer: asyncio.StreamWriter, sending: "asyncio.Task[None]") -> None:
    """End a document whose content cannot be read on: its reader would wait for the rest."""
    error = None if sending.cancelled() else sending.exception()
    if error is not None and not isinstance(error, OSError):  # else the reader may have said why it takes no more
        writer.transport.abort()


async def _raise_send_error(sending: "asyncio.Task[None]") -> None:
    """Raise why the document was not sent, unless the reader had closed the connection."""
    if sending.done() and not sending.cancelled():
        error = sending.exception()
        if error is not None and not isinstance(error, OSError):
            raise error


async def _send(writer: asyncio.StreamWriter, request: DocumentRequest, read_part: ReadPart) -> None:
    _write_frame(writer, dumps(request).encode())
    position = 0
    while (part := await read_part(position)) is not None:
        position += 1
        for start in range(0, len(part), _MOST_SENT):
            _write_frame(writer, part[start : start + _MOST_SENT])
            async with asyncio.timeout(SEND_SECONDS):
                await writer.drain()


def _write_frame(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(pack(payload))


async def _read_reply(reader: asyncio.StreamReader) -> DocumentReply:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if not 0 < length <= MOST_REPLY_BYTES:
        raise ContractError(f"a reply of {length} bytes is not between 1 and {MOST_REPLY_BYTES}")
    reply = loads(DocumentReply, await reader.readexactly(length), tolerant=True, most_values=_MOST_REPLY_VALUES)
    _check_reply(reply)
    return reply


def _check_reply(reply: DocumentReply) -> None:
    """Refuse what no reader sends: headings that nest without end would fill the gateway's memory.

    Raises:
        ContractError: of the first field that is out of bounds.
    """
    messages = [page.message for page in reply.unreadable]
    if reply.failure is not None:
        messages.append(reply.failure.message)
    if len(reply.reader) > _MOST_READER or any(len(message) > _MOST_MESSAGE for message in messages):
        raise ContractError("reader or message: too long")
    pages = [reply.pages, *(page.page for page in reply.unreadable)]
    if not all(0 <= page <= MOST_PAGES for page in pages) or not all(map(_is_block, reply.blocks)):
        raise ContractError("pages or blocks: out of bounds")


def _is_block(block: TextBlock) -> bool:
    is_page = block.page is None or 1 <= block.page <= MOST_PAGES
    return is_page and 0 <= block.level <= DEEPEST_HEADING and len(block.text) <= MOST_BLOCK_CHARACTERS
