"""A client that asks all the time, and what became of every question: the witness of "no request was dropped"."""

import threading
import time
from dataclasses import dataclass, field
from typing import Self

from e2e.waiting import wait_for
from r1plus_cli.deployment.stream import Question, ask
from r1plus_cli.errors import CliError


@dataclass(slots=True)
class Asker:
    """Asks one short question after the other at `address`, `pause_s` apart, until stopped. Use as a context."""

    address: str
    pause_s: float = 0.2
    prompt: str = "What is the capital of Sweden?"
    answered: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to ask, in a thread."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the question that is being answered."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=60.0)

    @property
    def asked(self) -> int:
        """Questions that have an end, a good one or not."""
        return self.answered + len(self.failures)

    def more_answers(self, count: int = 3) -> None:
        """Wait until so many more questions were answered."""
        asked = self.answered
        wait_for(lambda: self.answered >= asked + count, f"{count} more answers")

    def summary(self) -> str:
        """In one line."""
        questions = f"{self.answered} {'question' if self.answered == 1 else 'questions'} answered"
        text = f"{questions}, {len(self.failures)} failed, the slowest took {self.slowest_s:.1f} s"
        return text if not self.failures else f"{text}; the first failure: {self.failures[0]}"

    def ask(self) -> None:
        """Ask once. Raises CliError if the question was not answered."""
        ask(self.address, Question(self.prompt, max_new_tokens=8), timeout_s=60.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.ask()
                self.answered += 1
            except CliError as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self._stop.wait(self.pause_s)
