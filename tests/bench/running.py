"""What long benches share: lines that say how far one is, and an end by SIGTERM that ends what it has started."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

SECONDS_BETWEEN: Final = 10.0
SIGTERM_STATUS: Final = 128 + signal.SIGTERM


def exit_at_sigterm() -> None:
    """Let SIGTERM end the program as SystemExit does: what is open is closed, and servers and helpers are ended."""

    def exit_once(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(SIGTERM_STATUS)

    signal.signal(signal.SIGTERM, exit_once)


@dataclass(slots=True)
class Progress:
    """Counts what is done, and says so in a line every ten seconds."""

    name: str
    count: int
    say: Callable[[str], None] = lambda line: print(line, flush=True)
    now: Callable[[], float] = time.monotonic
    done: int = 0
    timed_out: list[str] = field(default_factory=list)
    _began: float = field(init=False)
    _said_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._said_at = self.now()

    def add(self, timed_out: str = "") -> None:
        """Count one more; `timed_out` names one that had no answer in time."""
        self.done += 1
        if timed_out:
            self.timed_out.append(timed_out)
            self.say(f"{self.name}: no answer in time to {timed_out!r:.120}")
        moment = self.now()
        if moment - self._said_at >= SECONDS_BETWEEN or self.done == self.count:
            self._said_at = moment
            self.say(self._describe(moment - self._began))

    def _describe(self, seconds: float) -> str:
        left = seconds / self.done * (self.count - self.done)
        line = f"{self.name}: {self.done} of {self.count}, {seconds:.0f} s, about {left:.0f} s left"
        return f"{line}, {len(self.timed_out)} timed out" if self.timed_out else line
