"""Flakes: tests that failed, and passed when they ran again alone in the same run.

`evidence/flakes.jsonl` has a row for each. A row is open until the commit that mends the test fills its `mended`.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from evidence.repository import ROOT

FILE: Final = ROOT / "evidence" / "flakes.jsonl"
MOST_OPEN: Final = 10
"""With more open rows `make test` is red: the suite is no longer believed."""
MOST_OUTPUT: Final = 4_000
"""Characters of a failure's output that a row keeps."""


class FlakeError(Exception):
    """A row cannot be read; the message names the line."""


@dataclass(frozen=True, slots=True)
class Flake:
    """A test that failed once and passed alone."""

    test: str
    """Its pytest id."""
    part: str
    date: str
    commit: str
    load: float
    """Processes that wanted a core when the run ended, average of a minute."""
    hogs: int
    stalls: int
    output: str
    """What pytest said of the failure."""
    count: int = 1
    """How often it was seen while the row was open."""
    mended: str = ""
    """What mended it, one sentence; empty while the row is open."""


def read_flakes(file: Path = FILE) -> list[Flake]:
    """Return all rows. Raises FlakeError."""
    rows = []
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else (), 1):
        try:
            rows.append(Flake(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise FlakeError(f"{file}:{number}: no row of a flake ({error})") from error
    return rows


def list_open(file: Path = FILE) -> list[Flake]:
    """Return the rows that no commit has mended. Raises FlakeError."""
    return [flake for flake in read_flakes(file) if not flake.mended]


def format_row(flake: Flake) -> str:
    """Return a row as a line of the file."""
    return json.dumps(asdict(replace(flake, output=flake.output[-MOST_OUTPUT:])), ensure_ascii=False)


def add_flakes(seen: list[Flake], file: Path = FILE) -> None:
    """Add a row for each flake; one whose row is open counts up instead, and keeps the newest output."""
    rows = read_flakes(file)
    for flake in seen:
        place = next((n for n, row in enumerate(rows) if row.test == flake.test and not row.mended), None)
        if place is None:
            rows.append(flake)
        else:
            rows[place] = replace(flake, count=rows[place].count + 1)
    file.write_text("".join(f"{format_row(row)}\n" for row in rows))
