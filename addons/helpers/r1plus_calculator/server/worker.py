"""What a worker does: one request, one reply, and its end. It has been forked from a process that has SymPy loaded."""

import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from r1plus_calculator.evaluation.evaluator import calculate
from r1plus_calculator.server.wire import encode_failure
from r1plus_contract.calculator import (
    MOST_DIGITS,
    MOST_REPLY_BYTES,
    MOST_REQUEST_BYTES,
    CalculationRequest,
    CalculatorReply,
    FailureCode,
)
from r1plus_contract.calculator_grammar.errors import CalculatorError
from r1plus_contract.frames import pack, read_frame_from, write_to
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_sandbox.confinement import SOCKET, WorkerLimits, confine, keep_only_socket, reset_signals
from r1plus_sandbox.seccomp import SandboxError

READY: Final = b"R"
REFUSED: Final = b"X"
"""Instead of READY: the kernel does not take the limits."""
Evaluator = Callable[[bytes], bytes]

_OUT_OF_MEMORY: Final = encode_failure(
    FailureCode.MEMORY_LIMIT, "the calculation needs more memory than it may have; calculate with less, or in parts"
)
"""Made before memory is short."""
_TOO_DEEP: Final = encode_failure(
    FailureCode.LIMIT, "the calculation nests deeper than the calculator goes; write the expression flatter"
)
_INTERNAL: Final = encode_failure(
    FailureCode.FAILED, "the calculator failed at this expression; write it in another way, and report it"
)


def answer(payload: bytes) -> bytes:
    """Return the reply to a request: never an exception, whatever the request is."""
    return guard(lambda: _answer(payload))


def guard(compute: Callable[[], bytes]) -> bytes:
    """Return what a calculation returns, or the reply that says how it failed."""
    try:
        return compute()
    except RecursionError:
        return _TOO_DEEP
    except Exception as error:  # noqa: BLE001 - SymPy raises whatever it likes; its messages may quote the expression
        return _OUT_OF_MEMORY if _is_out_of_memory(error) else _INTERNAL


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory was short, also where that shows in another way.

    CPython raises `SystemError: error return without exception set` where C code could not even make an exception, and
    SymPy's own handlers raise something else while they handle a MemoryError.
    """
    while error is not None:
        if isinstance(error, MemoryError | SystemError):
            return True
        error = error.__context__
    return False


def _answer(payload: bytes) -> bytes:
    try:
        request = loads(CalculationRequest, payload)
    except ContractError as error:
        return encode_failure(FailureCode.INVALID_REQUEST, f"{error}; send expression and digits")
    if not 1 <= request.digits <= MOST_DIGITS:
        message = f"digits: {request.digits} is not between 1 and {MOST_DIGITS}; send one of them"
        return encode_failure(FailureCode.INVALID_REQUEST, message)
    try:
        result = calculate(request.expression, request.digits)
    except CalculatorError as error:
        return encode_failure(FailureCode(error.code), error.message, error.position)
    reply = dumps(CalculatorReply(calculation=result)).encode()
    if len(reply) > MOST_REPLY_BYTES:
        return encode_failure(FailureCode.LIMIT, "the result is too large to send; ask for a part of it")
    return reply


def run_worker(descriptor: int, limits: WorkerLimits, evaluate: Evaluator = answer) -> NoReturn:
    """Confine this process, say that it is ready, answer one request, and end the process. It does not return."""
    status = 1
    try:
        reset_signals()
        keep_only_socket(descriptor)
        sys.path.clear()
        try:
            confine(limits)
        except (SandboxError, OSError, ValueError) as error:
            write_to(SOCKET, REFUSED + str(error).encode()[:500])
        else:
            write_to(SOCKET, READY)
            payload = read_frame_from(SOCKET, MOST_REQUEST_BYTES)
            if payload:
                write_to(SOCKET, pack(evaluate(payload)))
            status = 0
    except BaseException:  # noqa: BLE001 - a fork must not run its parent's handlers
        status = 1
    finally:
        os._exit(status)
