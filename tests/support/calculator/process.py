"""The calculator as the container runs it, for a gateway that is a process as well."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from r1plus_contract.calculator import ENV_INTERPRETER, ENV_SOCKET
from support.calculator.running import INTERPRETER
from support.helper_process import running_helper


def running_calculator_process(folder: Path) -> AbstractAsyncContextManager[Path]:
    """Run `python -m r1plus_calculator` for the block; yield the path of its socket once it is healthy."""
    return running_helper(folder, "r1plus_calculator", ENV_SOCKET, **{ENV_INTERPRETER: str(INTERPRETER)})


def running_patient_interpreter(folder: Path) -> AbstractAsyncContextManager[Path]:
    """Run a calculator that gives each program a minute, in a process of its own: one with gRPC cannot fork safely."""
    tests = str(Path(__file__).parents[2])
    return running_helper(folder, "support.calculator.patient", ENV_SOCKET, PYTHONPATH=tests)
