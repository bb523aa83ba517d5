"""The command line as a person runs it, and what it prints."""

from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console
from typer.testing import CliRunner, Result

from r1plus_cli.main import app


def run(*words: object) -> Result:
    """Run `r1plus` with these words."""
    return CliRunner().invoke(app, [*map(str, words)])


def printed(show: Callable[..., object], *shown: Any, width: int = 200) -> str:
    """Return what `show` prints of these to a console of this width."""
    out = StringIO()
    show(Console(file=out, width=width), *shown)
    return out.getvalue()
