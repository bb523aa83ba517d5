"""The calculator as the container runs it, for a gateway that is a process as well."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from r1plus_contract.calculator import ENV_SOCKET
from support.helper_process import running_helper


def running_calculator_process(folder: Path) -> AbstractAsyncContextManager[Path]:
    """Run `python -m r1plus_calculator` for the block; yield the path of its socket once it is healthy."""
    return running_helper(folder, "r1plus_calculator", ENV_SOCKET)
