"""Says where a long run is: a line per step with its number, what it does, how long it took, and whether it was cached.

`make demo`, `make test` and every verb of this tool print through one `Steps`. A person at a terminal sees a live
line with a bar; a CI log gets a plain line every half minute, so that nobody has to guess whether a build hangs.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

BAR_CELLS = 20
TITLE_WIDTH = 52
LOG_TAIL_LINES = 20
TERMINAL_PERIOD_S = 0.5
PLAIN_PERIOD_S = 30.0


class Step:
    """One running step. The code inside `with steps.step(...)` tells it what it knows."""

    def __init__(self, number: int, title: str, log: Path | None) -> None:
        self.number = number
        self.title = title
        self.log = log
        self.outcome = "done"
        self.fraction: float | None = None
        self.text = ""

    def cached(self) -> None:
        """Nothing had to be made: an earlier run's result was used."""
        self.outcome = "cached"

    def built(self) -> None:
        """The step made something that later runs will find."""
        self.outcome = "built"

    def progress(self, value: float | str, text: str = "") -> None:
        """Report how far the step is: a fraction between 0 and 1, a short text, or a fraction with a text."""
        if isinstance(value, str):
            self.text = value
            return
        self.fraction = min(max(float(value), 0.0), 1.0)
        self.text = text or self.text


class Steps:
    """Numbers the steps of one run and prints them; `total` may grow by `expect` while the run learns what it needs."""

    def __init__(
        self,
        total: int = 0,
        *,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        terminal: bool | None = None,
        period_s: float | None = None,
    ) -> None:
        self.total = total
        self._out = out if out is not None else sys.stdout
        self._clock = clock
        self._terminal = self._out.isatty() if terminal is None else terminal
        self._period_s = period_s or (TERMINAL_PERIOD_S if self._terminal else PLAIN_PERIOD_S)
        self._begun = 0
        self._running: list[Step] = []
        """In the order of their start. On a terminal the first of them has the live line."""
        self._lock = threading.Lock()
        self._started = clock()

    def expect(self, count: int) -> None:
        """Announce `count` more steps, so that the total is right before the first of them is printed."""
        self.total += count

    @property
    def elapsed(self) -> float:
        """Seconds since this run began, for the closing line of a caller."""
        return self._clock() - self._started

    @contextmanager
    def step(self, title: str, log: Path | None = None) -> Iterator[Step]:
        """Run the block as one step; on failure print the end of `log` and where it lies, and let the error go on."""
        self._begun += 1
        step = Step(self._begun, title, log)
        self._running.append(step)
        started = self._clock()
        stop = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(step, started, stop), daemon=True)
        ticker.start()
        try:
            yield step
        except BaseException:
            self._close(stop, ticker)
            self._running.remove(step)
            self._line(self._render(step, started, "FAILED"))
            self._print_log_tail(step)
            raise
        self._close(stop, ticker)
        self._running.remove(step)
        self._line(self._render(step, started, step.outcome))

    def note(self, text: str) -> None:
        """Print a line between steps, indented under the one before."""
        self._line(f"        {text}")

    def _tick(self, step: Step, started: float, stop: threading.Event) -> None:
        while not stop.wait(self._period_s):
            live = self._render(step, started, _bar(step))
            if self._terminal:
                if step is self._running[0]:
                    self._write(f"\r\x1b[2K{live}")
            else:
                self._write(f"{live}\n")

    def _close(self, stop: threading.Event, ticker: threading.Thread) -> None:
        stop.set()
        ticker.join()

    def _render(self, step: Step, started: float, last: str) -> str:
        total = max(self.total, step.number)
        width = len(str(total))
        seconds = self._clock() - started
        return f"[{step.number:>{width}}/{total}] {step.title:<{TITLE_WIDTH}} {seconds:6.1f} s  {last}".rstrip()

    def _line(self, text: str) -> None:
        self._write(f"\r\x1b[2K{text}\n" if self._terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        with self._lock:
            self._out.write(text)
            self._out.flush()

    def _print_log_tail(self, step: Step) -> None:
        if step.log is None or not step.log.is_file():
            return
        lines = step.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        for line in lines:
            self.note(f"| {line}")
        self.note(f"The whole log: {step.log}")


def _bar(step: Step) -> str:
    if step.fraction is None:
        return step.text or "..."
    filled = round(step.fraction * BAR_CELLS)
    bar = "#" * filled + "." * (BAR_CELLS - filled)
    return f"[{bar}] {step.fraction:4.0%} {step.text}"
