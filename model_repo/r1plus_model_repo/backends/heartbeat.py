"""The engine's heartbeat: a file with the second by which the next beat is due. Probes compare it with /proc/uptime.

Triton reports a live server and a ready model while the engine's process hangs. The loop writes the file at each pass,
about once a second, and while it is idle. Who hangs writes nothing, and the time in the file runs out.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from r1plus_contract.engine.heartbeat import ENV_HEARTBEAT, format_due, read_uptime

IDLE_SECONDS: Final = 5.0
"""Between two beats of a loop that waits for requests."""
PASS_SECONDS: Final = 60.0
"""Longest pass that only continues answers, and longest time that a request takes to be accepted."""
SLOWEST_TOKENS_PER_SECOND: Final = 10.0
"""Of reading prompts: a pass may take so much longer. The slowest engine, torch on two processors, reads hundreds."""
FIRST_SECONDS: Final = 900.0
"""Longest pass before the engine has generated its first token, in which libraries compile kernels, and of any pass."""


class LoopHeartbeat:
    """Says by when the loop will beat again. `accepting` may be set by any thread, all else is the loop's."""

    def __init__(self, path: Path | None, uptime: Callable[[], float] = read_uptime) -> None:
        """Remove what an earlier process has left; without a path nothing is written."""
        self._uptime = uptime
        self._path = path
        self._descriptor = -1
        self._due = 0
        self.accepting: float | None = None
        """Since when a request is being accepted; None: none is."""
        if path is not None:
            path.unlink(missing_ok=True)

    def begin_request(self) -> None:
        """Note that the server's thread takes a request: from here on beats last as long as that may take."""
        self.accepting = self._uptime()

    def end_request(self) -> None:
        """Note that the server's thread is free again."""
        self.accepting = None

    def beat(self, seconds: float) -> None:
        """Promise the next beat within `seconds`."""
        now, accepting = self._uptime(), self.accepting
        due = now + seconds if accepting is None else min(now + seconds, accepting + PASS_SECONDS)
        if self._path is None or int(due) == self._due:
            return
        self._due = int(due)
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.pwrite(self._descriptor, format_due(due), 0)
        except OSError as error:
            self._give_up(self._path, error)

    def _give_up(self, path: Path, error: OSError) -> None:
        """Remove the file: a heartbeat that cannot be written must not end an engine that works."""
        print(f"Heartbeat {path} cannot be written, so a hanging engine is not noticed: {error}", file=sys.stderr)
        self._path = None
        with contextlib.suppress(OSError):
            path.unlink()


def open_heartbeat() -> LoopHeartbeat:
    """Return the heartbeat of this process, where its environment names a file."""
    path = os.environ.get(ENV_HEARTBEAT)
    return LoopHeartbeat(Path(path) if path else None)


def limit_pass(waiting_prompt_tokens: int, *, has_generated: bool) -> float:
    """Return the longest time that a pass may take, seconds.

    `waiting_prompt_tokens`: of running requests without a token yet; `has_generated`: the engine has made one before.
    """
    if waiting_prompt_tokens and not has_generated:
        return FIRST_SECONDS
    return min(FIRST_SECONDS, PASS_SECONDS + waiting_prompt_tokens / SLOWEST_TOKENS_PER_SECOND)
