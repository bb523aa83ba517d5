"""What the demo prints: titled stages, the time each took, lines between; and on failure what was seen."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TextIO

INDENT = "    "


class Stage(Enum):
    """The steps of the demo, as the README numbers them."""

    BUILD = (1, "Build what is missing")
    START = (2, "Start the cluster")
    INSTALL = (3, "Install the operator with helm")
    SERVE = (4, "Two tenants, three tiers: apply examples/ and wait for the gates")
    ASK = (5, "Ask each a question: one through its tenant's gateway, two over gRPC")
    KEEP = (6, "The tenant's own data: a conversation that recalls, and a calculation that is right")
    REFUSE = (7, "The same weights, another engine: refused, then forced through and caught")
    LEAVE = (8, "Look around, and leave")


class Teller:
    """Prints to a terminal or a log alike: whole lines, nothing redrawn."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._began = time.monotonic()
        self._color = self._out.isatty()

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Print the title, run the block, print how long it took."""
        number, title = stage.value
        began = time.monotonic()
        self._write(f"\n{self._bold(f'Step {number} of {len(Stage)}: {title}')}\n")
        yield
        self._write(f"{INDENT}step {number} took {_clock(time.monotonic() - began)}\n")

    def line(self, text: str) -> None:
        """One or more lines of the running stage."""
        for row in text.splitlines() or [""]:
            self._write(f"{INDENT}{row}\n")

    def change(self, text: str) -> None:
        """A line about the cluster, with the time since the demo began."""
        self.line(f"{_clock(self.elapsed):>6}  {text}")

    def piece(self, text: str) -> None:
        """A piece of an answer as it streams: whole words reach the terminal as they come."""
        self._write(text.replace("\n", f"\n{INDENT}"))

    def end_of_answer(self) -> None:
        """Begin a new line after the pieces."""
        self._write("\n")

    def failure(self, error: BaseException, diagnostics: Path | None) -> None:
        """What went wrong, what was seen, where more lies, and how to go on."""
        self._write(f"\n{self._bold('FAILED')} after {_clock(self.elapsed)}: {error}\n")
        if diagnostics is not None:
            self._write(f"Logs, events and pod states: {diagnostics}\n")
        self._write(
            "make demo goes on from here once the cause is mended; make down stops the embedded cluster, if it runs.\n"
        )

    def closing(self) -> None:
        """The last line."""
        self._write(f"\n{self._bold(f'Done in {_clock(self.elapsed)}.')}\n")

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._color else text

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
