"""SIGTERM while a program starts.

`python3 -m r1plus_contract.early_exit SECONDS` is a preStop hook: it waits so long, and then until the container's
first process can handle SIGTERM. Only after a hook does the kubelet send it.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

FIRST_PROCESS: Final = Path("/proc/1/status")
LOOK_SECONDS: Final = 0.2


def end_at_sigterm() -> None:
    """End at SIGTERM from now on, until the program has a handler of its own.

    A container's first process gets no signal for which it has no handler. One that loads for seconds would miss
    SIGTERM, and run on until its pod's grace period is over.
    """
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def build_hook(seconds: int) -> list[str]:
    """Return the command of the hook, for a container whose image has this package."""
    return ["python3", "-m", "r1plus_contract.early_exit", str(seconds)]


def hears_sigterm(status: Path = FIRST_PROCESS) -> bool:
    """Return whether a process handles SIGTERM, by its /proc/PID/status. One that has ended needs none."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return True
    caught = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in caught)


def main(arguments: list[str], status: Path = FIRST_PROCESS) -> int:
    """Wait as the module says. Whoever runs the hook bounds its time: Kubernetes by the grace period."""
    end_at_sigterm()
    time.sleep(float(arguments[0]))
    while not hears_sigterm(status):
        time.sleep(LOOK_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
