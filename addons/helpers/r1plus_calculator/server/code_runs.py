"""Runs of Python code: each in a process of its own, which is the interpreter Monty and has no right to anything else.

Monty is an interpreter in Rust with no files, network or environment. It is run as a program, because its releases
since 0.0.19 are one; the last that ran inside a Python process gets no fixes. Its command line prints what the code
prints, and on its standard error the time, `❯`, and the last value or an error.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from r1plus_calculator.server.pool import LEAST_SECONDS, MARGIN_SECONDS, MOST_WAITING
from r1plus_calculator.server.wire import encode_failure
from r1plus_contract.calculator import (
    ANSWER_SECONDS,
    ENV_INTERPRETER,
    MOST_OUTPUT_BYTES,
    MOST_REPLY_BYTES,
    MOST_RUNS_AT_ONCE,
    CalculatorReply,
    CodeRequest,
    CodeRun,
    FailureCode,
)
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_sandbox.children import ForkedChild
from r1plus_sandbox.programs import NOT_STARTED, SOURCE_PATH, ProgramLimits, Streams, become_program

log = logging.getLogger(__name__)
MOST_HEAP: Final = "128MB"
"""Of the code's values; the process has 512 MiB of address space, of which its program and libraries take a part."""
MOST_DEPTH: Final = 500
"""Calls within each other."""
_ARGUMENTS: Final = ["--max-memory", MOST_HEAP, "--max-recursion-depth", str(MOST_DEPTH), SOURCE_PATH]
_ALL_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Else the program could write machine code into the file that it reads, and map that."""
_SUMMARY_BYTES: Final = 64
"""Of the standard error, around the value or the error."""
_STATUSES: Final = (0, 1)
"""With which it ends: without and with an error of the code."""
_OUT_OF_MEMORY: Final = 65
"""With which it ends where the kernel gives it no more memory, for example while it reads the code."""
_SUMMARY: Final = re.compile(
    r"(?:(?P<printed>.*?)\d{1,3}(?:\.\d{1,9})?[nµμm]?s ❯ (?:error: )?|error:\n)(?P<text>.*)", re.DOTALL
)
"""The time has few digits: what is printed before it may have thousands, and each would be tried with all after it."""
_MEMORY_ERROR: Final = re.compile(r"^MemoryError: memory limit exceeded", re.MULTILINE)

_TIME_LIMIT: Final = encode_failure(
    FailureCode.TIME_LIMIT, "the code runs longer than it may; let it do less, or run it in parts"
)
_MEMORY_LIMIT: Final = encode_failure(
    FailureCode.MEMORY_LIMIT, f"the code needs more memory than {MOST_HEAP}; let it keep less, or run it in parts"
)
_OUTPUT_LIMIT: Final = encode_failure(
    FailureCode.LIMIT,
    f"the code prints or returns more than {MOST_OUTPUT_BYTES} bytes, or its error has more; print less, or write"
    " shorter lines",
)
_BUSY: Final = encode_failure(FailureCode.BUSY, "other code is running; try again in a second")
_FAILED: Final = encode_failure(FailureCode.FAILED, "the interpreter failed at this code; change it, and report it")


class InterpreterError(RuntimeError):
    """The interpreter cannot be run."""


class _OutputLimitError(Exception):
    """A run has written more than it may."""


@dataclass(frozen=True, slots=True)
class _Ending:
    output: str
    summary: str
    status: int


class CodeRunner:
    """Runs code, a few at a time; further ones wait for as long as they can still be answered in time."""

    def __init__(
        self, interpreter: Path, limits: ProgramLimits | None = None, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        """Take the path of the program `monty`. Raises InterpreterError."""
        if not (interpreter.is_absolute() and interpreter.is_file() and os.access(interpreter, os.X_OK)):
            raise InterpreterError(
                f"{ENV_INTERPRETER}: {str(interpreter)!r} is no program; give the absolute path of monty, which"
                " package pydantic-monty-runtime has"
            )
        self._interpreter = interpreter
        self._limits = limits or ProgramLimits()
        self._seconds = answer_seconds - MARGIN_SECONDS
        self._places = asyncio.Semaphore(MOST_RUNS_AT_ONCE)
        self._waiting = 0

    async def answer(self, payload: bytes) -> bytes:
        """Return the reply to a request, within the time for answers."""
        try:
            code = _read_code(payload)
        except ContractError as error:
            return encode_failure(FailureCode.INVALID_REQUEST, str(error))
        if self._waiting >= MOST_WAITING:
            return _BUSY
        deadline = asyncio.get_running_loop().time() + self._seconds
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline - LEAST_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            return _BUSY
        finally:
            self._waiting -= 1
        try:
            return await self._run(code, deadline)
        finally:
            self._places.release()

    async def _run(self, code: bytes, deadline: float) -> bytes:
        try:
            child, output, errors = self._start(code)
        except OSError as error:  # no descriptor or process is left
            log.error("Interpreter did not start: %s", error.strerror)
            return _BUSY
        try:
            left = min(self._limits.wall_seconds, deadline - asyncio.get_running_loop().time())
            async with asyncio.timeout(left):
                ending = await _read_ending(child, output, errors)
        except TimeoutError:
            return _TIME_LIMIT
        except _OutputLimitError:
            return _OUTPUT_LIMIT
        finally:
            output.close()
            errors.close()
            await asyncio.shield(child.end())
        return _build_reply(ending)

    def _start(self, code: bytes) -> tuple[ForkedChild, BinaryIO, BinaryIO]:
        """Start the interpreter; return it, and where its output and its errors are read."""
        with contextlib.ExitStack() as of_child:

            def open_pipe() -> tuple[BinaryIO, int]:
                reading, writing = os.pipe()
                of_child.callback(os.close, writing)
                return os.fdopen(reading, "rb", buffering=0), writing

            source = os.memfd_create("code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            of_child.callback(os.close, source)
            os.write(source, code)
            fcntl.fcntl(source, fcntl.F_ADD_SEALS, _ALL_SEALS)
            output, its_output = open_pipe()
            errors, its_errors = open_pipe()
            streams = Streams(source, its_output, its_errors)
            child = ForkedChild(lambda: become_program(self._interpreter, _ARGUMENTS, streams, self._limits))
        return child, output, errors


def _read_code(payload: bytes) -> bytes:
    """Return the code of a request, in UTF-8.

    Raises:
        ContractError: there is none that could be run.
    """
    code = loads(CodeRequest, payload).code
    if not code.strip():
        raise ContractError("code: it is empty; send Python code")
    if (position := code.find("\0")) >= 0:
        raise ContractError(f"code: character {position} is NUL, which no Python code has; remove it")
    return code.encode()


async def _read_ending(child: ForkedChild, output: BinaryIO, errors: BinaryIO) -> _Ending:
    """Read what a run writes until it has ended.

    Raises:
        _OutputLimitError: it writes too much.
    """
    has_overrun = False
    try:
        async with asyncio.TaskGroup() as group:
            printed, summary = group.create_task(_read_all(output)), group.create_task(_read_all(errors))
    except* _OutputLimitError:
        has_overrun = True
    if has_overrun:
        raise _OutputLimitError
    return _Ending(printed.result(), summary.result(), await child.wait())


async def _read_all(pipe: BinaryIO) -> str:
    """Read a pipe to its end. Raises _OutputLimitError."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        data = b""
        while chunk := await reader.read(MOST_OUTPUT_BYTES):
            data += chunk
            if len(data) > MOST_OUTPUT_BYTES + _SUMMARY_BYTES:
                raise _OutputLimitError
        return data.decode(errors="replace")
    finally:
        transport.close()


def _build_reply(ending: _Ending) -> bytes:
    if ending.status == -signal.SIGXCPU:
        return _TIME_LIMIT
    if ending.status == _OUT_OF_MEMORY:
        return _MEMORY_LIMIT
    summary = _SUMMARY.fullmatch(ending.summary)
    if ending.status not in _STATUSES or summary is None:
        reason = ending.summary.strip() if ending.status == NOT_STARTED else f"status {ending.status}"
        log.error("Interpreter failed: %s", reason)
        return _FAILED
    text = summary["text"].replace(SOURCE_PATH, "main.py").strip()
    if ending.status and _MEMORY_ERROR.search(text):
        return _MEMORY_LIMIT
    printed = summary["printed"] or ""
    if any(len(part.encode()) > MOST_OUTPUT_BYTES for part in (ending.output, printed, text)):
        return _OUTPUT_LIMIT
    run = CodeRun(ending.output + printed, None if ending.status else text, text if ending.status else None)
    reply = dumps(CalculatorReply(run=run)).encode()
    return _OUTPUT_LIMIT if len(reply) > MOST_REPLY_BYTES else reply
