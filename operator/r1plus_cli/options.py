"""Options that several verbs take, and how their answers are printed."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import typer
import yaml
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from r1plus_cli.errors import UsageError
from r1plus_contract.jsonable import dumps, to_jsonable
from r1plus_contract.plain_text import to_printable

T = TypeVar("T")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")


class Output(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="table for people; json or yaml for programs.")]
NamespaceOption = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Tenant; by default your context's namespace.")
]
RegistryOption = Annotated[
    str,
    typer.Option("--registry", envvar="R1PLUS_REGISTRY", help="NAMESPACE/NAME of its StatefulSet, or its URL."),
]
KubeconfigOption = Annotated[
    str | None, typer.Option("--kubeconfig", help="By default $KUBECONFIG, then ~/.kube/config.")
]


def takes_arguments(arguments: Callable[..., T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Return a decorator: the command's options are the fields of a dataclass, and it takes one value of it."""

    def decorate(command: Callable[[T], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(arguments(**values))

        parameters = [_build_parameter(field) for field in fields(arguments)]  # type: ignore[arg-type]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _build_parameter(field: Field[Any]) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)


def parse_duration(option: str, text: str) -> int:
    """Return the seconds of `90d`, `24h`, `30m` or `45s`. Raises UsageError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: {text!r} is not a duration; give a number and s, m, h or d, such as 90d")
    return int(match[1]) * _SECONDS[match[2]]


def open_console() -> Console:
    """Return a console on standard output. Lines that a pipe reads are not wrapped."""
    return Console(soft_wrap=not sys.stdout.isatty())


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their heads, each column as wide as its longest cell. Nothing is cut in a narrow window."""
    lines = [[to_printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    console = Console(soft_wrap=True)
    for line in lines:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        console.print(Text("  ".join(cells).rstrip()))


def print_document(value: Any, output: Output) -> None:
    """Print a value of the contract, or plain JSON, as JSON or YAML."""
    if output is Output.JSON:
        sys.stdout.write(dumps(value) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(to_jsonable(value), sort_keys=False, allow_unicode=True))


def write_at_once(text: str) -> None:
    """Write to standard output and flush: a pipe reads each piece as it is written."""
    sys.stdout.write(text)
    sys.stdout.flush()
