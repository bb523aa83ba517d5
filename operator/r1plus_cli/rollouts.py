"""`r1plus rollouts`: which images serve where, and how far the wave has come that brings newer ones."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from r1plus_cli.status import name_commands
from r1plus_cli.view import DeploymentView

COLUMNS = ("NAMESPACE", "NAME", "TRITON", "MONITOR", "RUNTIME")
_WORDS = (
    ("RefreshUnderWay", "under way"),
    ("RefreshWaits", "waiting"),
    ("RefreshFailed", "failed"),
    ("RuntimeOutdated", "outdated and not asked for"),
    ("Current", "current"),
)


def show_rollouts(console: Console, views: Sequence[DeploymentView]) -> None:
    """Print a line for each deployment, what to do about those that need somebody, and how many stand where."""
    rows = [COLUMNS, *map(_cells, views)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    for row in rows:
        console.print(Text("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()))
    for view in views:
        if view.runtime and view.runtime.reason in ("RefreshWaits", "RefreshFailed"):
            console.print(Text(f"{view.key}: {name_commands(view, view.runtime.message)}"))
    counts = Counter(view.runtime.reason for view in views if view.runtime)
    told = [f"{counts[reason]} {words}" for reason, words in _WORDS if counts[reason]]
    console.print(Text(", ".join(told) or "No deployment serves yet"))


def _cells(view: DeploymentView) -> tuple[str, ...]:
    runtime = view.runtime
    if runtime is None:
        return view.namespace, view.name, "-", "-", "-"
    stands = runtime.reason + (" (vulnerable)" if runtime.is_vulnerable else "")
    return view.namespace, view.name, _short(runtime.triton), _short(runtime.monitor), stands


def _short(image: str) -> str:
    """The last part of an image's name, with its tag or the beginning of its digest."""
    name, _, digest = image.rpartition("/")[2].partition("@")
    return f"{name}@{digest[:19]}" if digest else name
