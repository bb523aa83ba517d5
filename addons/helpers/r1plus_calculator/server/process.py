"""The process: serve until SIGTERM."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from r1plus_calculator.server.code_runs import CodeRunner, InterpreterError
from r1plus_calculator.server.health import read_socket_path
from r1plus_calculator.server.server import run_calculator
from r1plus_contract.calculator import ENV_INTERPRETER
from r1plus_contract.frame_server import SocketError, serve_until_sigterm
from r1plus_sandbox.seccomp import SandboxError, refuse_networks

log = logging.getLogger(__name__)


def run() -> int:
    """Run the calculator; return the exit status: 2 for a socket or interpreter that cannot be used, or no filters."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    from r1plus_calculator.server.preload import preload

    try:
        refuse_networks()
        code_runner = read_code_runner()
        preload()
        path = read_socket_path()
        serving = run_calculator(path, code_runner=code_runner)
        asyncio.run(serve_until_sigterm(serving, "Calculator", str(path)))
    except InterpreterError as error:
        log.error("Interpreter is not usable: %s", error)
        return 2
    except SocketError as error:
        log.error("Socket is not usable: %s", error)
        return 2
    except SandboxError as error:
        log.error("Calculator cannot start: %s", error)
        return 2
    return 0


def read_code_runner() -> CodeRunner | None:
    """Return what runs code, if the environment names an interpreter.

    Raises:
        InterpreterError: it names none that can be run.
    """
    name = os.environ.get(ENV_INTERPRETER, "")
    return CodeRunner(Path(name)) if name else None
