"""Options of the commands that read specs from files, and how the problems of a spec are printed."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

FileOption = Annotated[
    str, typer.Option("-f", "--file", help="A file or folder with R1PlusDeployments; - is standard input.")
]
CatalogOption = Annotated[
    Path, typer.Option("--catalog", help="Folder with R1PlusEngines; by default the shipped catalog.")
]
FamilyOption = Annotated[
    str, typer.Option("--family", help="Engine family if the spec has none: the chart's `defaultFamily`.")
]


def show_problems(title: str, problems: list[str]) -> None:
    """Print the title of what is invalid and a line for each of its problems, on standard error."""
    console = Console(stderr=True, soft_wrap=True)
    count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    console.print(Text(f"{title}: {count}", style="red"))
    for problem in problems:
        console.print(Text(f"  {problem}"))
