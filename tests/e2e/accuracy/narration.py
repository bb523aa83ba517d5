"""What a story of accuracy prints while it runs, and its figures for the line at the end."""

import time
from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class Story:
    """What a story tells while it runs, and its figures for the line at the end."""

    said: str
    config: pytest.Config
    began: float = field(default_factory=time.monotonic)
    figures: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def tell(self, text: str) -> None:
        """Print now, with the seconds since the story began; further lines are indented."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        rows = text.rstrip().splitlines()
        with capture.global_and_fixture_disabled():
            print(
                f"  {self.seconds:5.0f} s  {rows[0]}", *(f"\n           {row}" for row in rows[1:]), sep="", flush=True
            )

    def figure(self, text: str) -> None:
        """Of the line at the end, and now."""
        self.figures.append(text)
        self.tell(text)

    def step(self, text: str) -> float:
        """Say what comes now; the moment (monotonic)."""
        self.tell(f"- {text}")
        return time.monotonic()
