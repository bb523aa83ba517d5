"""What a child does: take one document, send its text while it is read, and end. It was forked with all libraries."""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

from r1plus_contract.documents import (
    MOST_DOCUMENT_BYTES,
    MOST_FRAME_BYTES,
    MOST_REQUEST_BYTES,
    DocumentFailure,
    DocumentFailureCode,
    DocumentReply,
    DocumentRequest,
    TextBlock,
    UnreadablePage,
)
from r1plus_contract.frames import FrameError, pack, read_frame_from, write_to
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_documents.reading.errors import ReadingError, TimeLimitError
from r1plus_documents.reading.formats import find_format, read_blocks
from r1plus_sandbox.confinement import SOCKET, WorkerLimits, confine, keep_only_socket, reset_signals
from r1plus_sandbox.seccomp import SandboxError

LIMITS: Final = WorkerLimits(cpu_seconds=240, memory_bytes=384 * 2**20, wall_seconds=1800.0)
"""Of one document. Memory is beyond what the supervisor has, which is about 60 MiB."""
REPLY_CHARACTERS: Final = 32_000
"""Of text in one reply, about."""
MOST_NAME: Final = 120
_RESERVE_BYTES: Final = 2**20
"""Given back when memory is short, so that the reply that says so can be made."""


def run_worker(descriptor: int, limits: WorkerLimits = LIMITS) -> NoReturn:
    """Confine this process, read one document, and end the process."""
    status = 1
    try:
        reset_signals()
        keep_only_socket(descriptor)
        os.set_blocking(SOCKET, True)
        sys.path.clear()
        signal.signal(signal.SIGXCPU, _end_time)
        try:
            confine(limits)
        except (SandboxError, OSError, ValueError) as error:
            _send(_fail("", DocumentFailureCode.FAILED, f"the reader could not confine itself: {error}"))
        else:
            _serve()
            status = 0
    except BaseException:  # noqa: BLE001 - a fork must not run its parent's handlers
        status = 1
    finally:
        os._exit(status)


def _end_time(*_: object) -> None:
    raise TimeLimitError


def _serve() -> None:
    """Read one document and send what it has. What is wrong with it is a reply."""
    name, reserve = "", bytearray(_RESERVE_BYTES)
    try:
        request = loads(DocumentRequest, read_frame_from(SOCKET, MOST_REQUEST_BYTES))
        name = request.name
        if not request.size:
            _send(DocumentReply(is_end=True))
            return
        data = _receive(request.size)
        for reply in read_document(name, data):
            _send(reply)
    except MemoryError:
        reserve.clear()
        _send(_fail(name, DocumentFailureCode.MEMORY_LIMIT, "needs more memory than it may have; split it"))
    except TimeLimitError:
        _send(_fail(name, DocumentFailureCode.TIME_LIMIT, "takes longer to read than it may; split it"))
    except RecursionError:
        _send(_fail(name, DocumentFailureCode.LIMIT, "nests too deep; save it with another program"))
    except (ContractError, FrameError) as error:
        _send(_fail(name, DocumentFailureCode.INVALID_REQUEST, f"was not sent as agreed: {error}"))
    except ReadingError as error:
        _send(_fail(name, error.code, error.message))
    except OSError:
        pass  # the gateway has left
    except Exception:  # noqa: BLE001 - libraries raise what they like; their messages may quote the document
        _send(_fail(name, DocumentFailureCode.DAMAGED, "could not be read; save it with another program"))


def read_document(name: str, data: bytes) -> Iterator[DocumentReply]:
    """Yield the replies to one document. Raises ReadingError."""
    found = find_format(name, data)
    yield DocumentReply(reader=found.reader)
    blocks: list[TextBlock] = []
    unreadable: list[UnreadablePage] = []
    size = pages = 0
    for block in read_blocks(found, data):
        if isinstance(block, UnreadablePage):
            unreadable.append(block)
        else:
            blocks.append(block)
            size += len(block.text) + 64
        if size >= REPLY_CHARACTERS or len(unreadable) >= REPLY_CHARACTERS // 512:
            yield DocumentReply(blocks=tuple(blocks), unreadable=tuple(unreadable), pages=pages)
            size = 0
            blocks.clear()
            unreadable.clear()
        pages = block.page or 0
    yield DocumentReply(blocks=tuple(blocks), unreadable=tuple(unreadable), pages=pages, is_end=True)


def _receive(size: int) -> bytes:
    if not 0 < size <= MOST_DOCUMENT_BYTES:
        message = f"has {size} bytes, more than {MOST_DOCUMENT_BYTES}; split it"
        raise ReadingError(DocumentFailureCode.LIMIT, message)
    data = bytearray()
    while len(data) < size:
        part = read_frame_from(SOCKET, MOST_FRAME_BYTES)
        if not part:
            raise FrameError("the document was cut")
        data += part
    return bytes(data)


def _fail(name: str, code: DocumentFailureCode, message: str) -> DocumentReply:
    clean = "".join(one if one.isprintable() else "?" for one in name[:MOST_NAME])
    return DocumentReply(failure=DocumentFailure(code, f"{clean or 'the document'}: {message}"))


def _send(reply: DocumentReply) -> None:
    write_to(SOCKET, pack(dumps(reply).encode()))
