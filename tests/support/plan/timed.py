"""What every small world of a plan has: fields that a test sets, and a clock that it moves."""

from typing import Any, Self


class Timed:
    """A world that stands at a moment."""

    now: float
    """Seconds since the epoch."""

    def alter(self, **fields: Any) -> Self:
        """Set fields of the world."""
        for name, value in fields.items():
            setattr(self, name, value)
        return self

    def wait(self, seconds: float) -> Self:
        """Let time pass."""
        self.now += seconds
        return self
