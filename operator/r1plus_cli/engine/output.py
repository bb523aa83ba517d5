"""What the commands of `engine` print, and the errors of an import as those of the command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from r1plus_cli.hints import runnable_hint
from r1plus_cli.library_errors import translate_errors

if TYPE_CHECKING:
    from r1plus_model_repo.importing.engine import ImportResult


@contextmanager
def translate_import_errors() -> Iterator[None]:
    """Translate errors of the import to CliError."""

    def explain(error: RuntimeError) -> str | None:
        from r1plus_model_repo.importing.errors import ImportingError

        return str(error) if isinstance(error, ImportingError) else None

    with translate_errors("making engines", "engine", "no files were left behind", explain):
        yield


def report_import(result: "ImportResult") -> None:
    """Print notes and the folder on standard error, and the commands to run next on standard output."""
    for note in result.notes:
        say(f"Note: {note}", style="yellow")
    say(f"{result.folder}: sha256 {result.sha256}", style="green")
    say("Next:")
    for line in (
        f"podman build -t {result.image} {result.folder}",
        f"podman push {result.image}",
        f"kubectl apply -f {result.folder / 'engine.yaml'}",
    ):
        sys.stdout.write(runnable_hint(line) + "\n")


def report_progress(line: str) -> None:
    """Print a step of the work, dimmed."""
    say(line, style="dim")


def say(line: str, style: str = "") -> None:
    """Print to standard error, so that standard output only has commands to run."""
    Console(stderr=True, soft_wrap=True).print(Text(line, style=style))
