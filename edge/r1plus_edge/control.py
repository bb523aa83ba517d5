"""The socket by which verbs of `r1plus serve` reach the `serve` that runs: a request, then lines until the result.

Only the folder's owner and root reach it, since nobody else may enter the folder. What root may read, the owner perhaps
may not: so texts are part of the request.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from r1plus_contract.jsonable import ContractError, dumps, loads, to_jsonable
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.places import short_path
from r1plus_edge.report import Narrator, ServeStatus, StartStep
from r1plus_edge.update.request import UpdateRequest, UpdateResult

log = logging.getLogger(__name__)
_MOST_REQUEST: Final = 8 * 2**20
"""With a golden suite of the largest size, each character of which JSON may write as two."""
_REQUEST_SECONDS: Final = 10.0
_MODE: Final = 0o600
_UNREADABLE: Final = "The request cannot be read"
"""Begins the answer to what is no request to who serves, also in earlier releases."""


class MessageKind(StrEnum):
    """What a line tells."""

    NOTE = "Note"
    STEP = "Step"
    PROGRESS = "Progress"
    IN_FORCE = "InForce"
    DONE = "Done"
    REFUSED = "Refused"


class OwnerVerb(StrEnum):
    """What the owner of the folder may ask for, besides updates."""

    CONFIRM_TIME = "ConfirmTime"
    """That the gateway goes by this machine's clock."""
    SIGN_TOKEN = "SignToken"
    """A token of the gateway's administrator."""


@dataclass(frozen=True, slots=True)
class OwnerRequest:
    """A request that is no update; it is answered by one line."""

    verb: OwnerVerb


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A line of the answer. The last one is `InForce`, `Done` or `Refused`."""

    kind: MessageKind
    text: str
    name: str = ""
    """Of a step."""
    seconds: float = 0.0
    percent: int = 0


class UpdateClient(Narrator, Protocol):
    """Who asked for an update."""

    @property
    def descriptor(self) -> int:
        """Of the connection."""


class _Sender:
    """Tells the client that asked for the update; that it has left changes nothing."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @property
    def descriptor(self) -> int:
        """Of the connection; 0: it has ended."""
        return max(0, int(self._writer.get_extra_info("socket").fileno()))

    def send(self, message: ControlMessage) -> None:
        if not self._writer.is_closing():
            self._writer.write(f"{dumps(message)}\n".encode())

    def step(self, step: StartStep) -> None:
        """See `Narrator`."""
        self.send(ControlMessage(MessageKind.STEP, step.detail, step.name, step.seconds))

    def progress(self, name: str, percent: int, detail: str) -> None:
        """See `Narrator`."""
        self.send(ControlMessage(MessageKind.PROGRESS, detail, name, percent=percent))

    def note(self, text: str) -> None:
        """See `Narrator`."""
        self.send(ControlMessage(MessageKind.NOTE, text))

    def serving(self, status: ServeStatus) -> None:
        """See `Narrator`."""


Handle = Callable[[UpdateRequest, UpdateClient], Awaitable[UpdateResult]]
Acts = Mapping[OwnerVerb, Callable[[], Awaitable[str]]]
"""Verb -> what carries it out, and returns the answer. Raises EdgeError."""


@asynccontextmanager
async def listen_for_requests(folder: DataFolder, handle: Handle, acts: Acts) -> AsyncIterator[None]:
    """Take requests for the block; `handle`: updates. OSError: the socket cannot be made."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender = _Sender(writer)
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    line = await reader.readuntil(b"\n")
                request = _read_request(line.decode())
            except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
                problem = "it is none" if not isinstance(error, ContractError) else str(error)
                sender.send(ControlMessage(MessageKind.REFUSED, f"{_UNREADABLE}: {problem}"))
            else:
                if isinstance(request, OwnerRequest):
                    sender.send(await _act(acts[request.verb]))
                else:
                    sender.send(_build_answer(await _carry_out(handle, request, sender)))
            await writer.drain()
        writer.close()

    with short_path(folder.control) as path, socket.socket(socket.AF_UNIX) as listener:
        folder.control.unlink(missing_ok=True)
        listener.bind(path)
        folder.control.chmod(_MODE)
        server = await asyncio.start_unix_server(answer, sock=listener, limit=_MOST_REQUEST)
        try:
            yield
        finally:
            server.close()
            folder.control.unlink(missing_ok=True)


def _read_request(text: str) -> UpdateRequest | OwnerRequest:
    """Return the request. Raises ContractError: it is none."""
    try:
        return loads(OwnerRequest, text)
    except ContractError:
        return loads(UpdateRequest, text)


async def _act(act: Callable[[], Awaitable[str]]) -> ControlMessage:
    try:
        return ControlMessage(MessageKind.DONE, await act())
    except EdgeError as error:
        return ControlMessage(MessageKind.REFUSED, str(error))
    except Exception as error:
        log.exception("A request of the owner ended by an error of r1plus")
        return ControlMessage(MessageKind.REFUSED, f"An error of r1plus: {type(error).__name__}: {error}")


def _build_answer(result: UpdateResult) -> ControlMessage:
    return ControlMessage(MessageKind.IN_FORCE if result.is_in_force else MessageKind.REFUSED, result.text)


def encode_answer(result: UpdateResult) -> str:
    """Return the last line of an answer."""
    return dumps(_build_answer(result))


async def _carry_out(handle: Handle, request: UpdateRequest, sender: _Sender) -> UpdateResult:
    """Handle a request; an error of our own is an answer, too, or who asked would wait for ever."""
    try:
        return await handle(request, sender)
    except Exception as error:
        log.exception("An update ended by an error of r1plus")
        return UpdateResult(
            False,
            f"An error of r1plus has ended the update ({type(error).__name__}: {error}); what served before serves",
        )


def ask_for_update(folder: DataFolder, request: UpdateRequest, narrator: Narrator) -> UpdateResult:
    """Ask the `serve` of the folder for an update, tell its progress, and return what came of it.

    Raises:
        EdgeError: nothing serves there, or it ended meanwhile.
    """
    # Who serves may be of an earlier release, which refuses fields that it does not know.
    named = {name: value for name, value in to_jsonable(request).items() if value}
    for message in _ask(folder, named, ", so nothing was updated"):
        if message.kind in (MessageKind.IN_FORCE, MessageKind.REFUSED):
            return UpdateResult(message.kind is MessageKind.IN_FORCE, message.text)
        _tell(message, narrator)
    raise EdgeError(
        f"--data {folder.root}: r1plus serve has ended before the update was decided; what served before serves at its"
        " next start, unless the update had taken traffic. See `r1plus serve status`"
    )


def ask(folder: DataFolder, verb: OwnerVerb) -> str:
    """Ask the `serve` of the folder for anything else, and return its answer.

    Raises:
        EdgeError: it refuses, nothing serves there, or it ended meanwhile.
    """
    message = next(_ask(folder, to_jsonable(OwnerRequest(verb)), ""), None)
    if message is None:
        raise EdgeError(f"--data {folder.root}: r1plus serve has ended before it answered; see `r1plus serve status`")
    if message.text.startswith(_UNREADABLE):
        raise EdgeError(
            f"--data {folder.root}: the r1plus serve that runs there is older than this r1plus, and does not know the"
            f" request; `r1plus serve stop --data {folder.root}`, and start it again"
        )
    if message.kind is not MessageKind.DONE:
        raise EdgeError(f"--data {folder.root}: {message.text}")
    return message.text


def _ask(folder: DataFolder, document: Mapping[str, object], consequence: str) -> Iterator[ControlMessage]:
    """Send a request, and yield the answer's lines. `consequence`: of nothing serving there."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with short_path(folder.control) as path:
                connection.connect(path)
            connection.sendall(f"{dumps(document)}\n".encode())
        except PermissionError as error:
            raise EdgeError(
                f"--data {folder.root}: it is another user's, and you may not reach what serves there{consequence}; run"
                " this as that user, or name a folder of your own"
            ) from error
        except OSError as error:
            raise EdgeError(
                f"--data {folder.root}: nothing serves there now ({error.strerror}){consequence}; start it"
                " with `r1plus serve`, which takes the same options"
            ) from error
        with connection.makefile("r", encoding="utf-8") as lines:
            for line in _read_lines(lines):
                yield loads(ControlMessage, line, tolerant=True)


def _read_lines(lines: Iterator[str]) -> Iterator[str]:
    with contextlib.suppress(ConnectionError):
        yield from lines


def _tell(message: ControlMessage, narrator: Narrator) -> None:
    match message.kind:
        case MessageKind.STEP:
            narrator.step(StartStep(message.name, message.text, message.seconds))
        case MessageKind.PROGRESS:
            narrator.progress(message.name, message.percent, message.text)
        case _:
            narrator.note(message.text)
