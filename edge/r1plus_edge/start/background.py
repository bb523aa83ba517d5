"""`serve --background`: a start that a person watches, and that goes on without them once it serves.

The command starts itself again in a session of its own, and waits. Between the two are two pipes: by the one the child
says that it serves, by the other it learns that whoever started it is gone. Until it serves it ends with them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

ENV_PARENT: Final = "R1PLUS_SERVE_PARENT"
"""Descriptor by which the child says that it serves."""
_SERVES: Final = b"serves"


@dataclass(slots=True)
class Parent:
    """Who started this process, and watches until it serves."""

    write_to: int
    descriptor: int = 0
    """Standard input: its end says that the parent is gone."""
    is_released: bool = False

    def release(self, log: Path) -> None:
        """Say that it serves; from now on lines go to a log."""
        self.is_released = True
        with log.open("ab") as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            os.write(self.write_to, _SERVES)
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)  # Nobody waits for it any more.
        os.close(self.write_to)

    def check(self, end: Callable[[], object]) -> None:
        """Called when standard input can be read: that is its end. Before it serves, this process ends, too."""
        if self.is_released:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, self.descriptor)
            os.close(null)
        else:
            end()


def find_parent() -> Parent | None:
    """Return the parent that waits; None: this process serves for its own terminal."""
    descriptor = os.environ.get(ENV_PARENT, "")
    return Parent(int(descriptor)) if descriptor else None


def start_in_background(command: Sequence[str]) -> int:
    """Run a command in a session of its own until it serves; return its exit status, or 0.

    A signal ends it; this returns when it has ended.
    """
    read_from, write_to = os.pipe()
    process = subprocess.Popen(
        command,
        env={**os.environ, ENV_PARENT: str(write_to)},
        stdin=subprocess.PIPE,
        pass_fds=(write_to,),
        start_new_session=True,
    )
    os.close(write_to)

    def forward(number: int, frame: FrameType | None) -> None:
        process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    if os.read(read_from, len(_SERVES)) == _SERVES:
        process.returncode = 0  # It goes on; nobody waits for its end.
        return 0
    code = process.wait()
    return code if code > 0 else 1
