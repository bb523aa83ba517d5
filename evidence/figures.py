"""Figures for pages. A page has them by cog, and `make check` refuses one that no record has.

<!-- [[[cog from evidence import figure; cog.outl(f"{figure('bench-gateway', 'ttft_ms.p99')} ms") ]]] -->
<!-- [[[end]]] -->
"""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from evidence import records
from evidence.targets import HOME, load_targets, type_command


class FigureError(Exception):
    """A page asks for a figure that no record has; the message names target, path and what there is."""


def figure(target: str, path: str, form: str = ",.3g", machine: str = HOME, folder: Path | None = None) -> str:
    """Return one figure of a record as text.

    `path` is that of the JSON line, with dots: `parts.unit.seconds`, `rows.0.name`. A name may have a dot itself.
    `form` is a format specification for numbers. Raises FigureError.
    """
    found = value(target, path, machine, folder)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return str(found)
    # An integer keeps its digits: 13,521 tests, not 1.35e+04.
    return format(found, "," if isinstance(found, int) and form.endswith("g") else form)


def value(target: str, path: str, machine: str = HOME, folder: Path | None = None) -> Any:
    """Return one figure of a record as it is, or a part of its JSON line: rows for a table. Raises FigureError."""
    return _follow(_load(target, machine, folder).figures, path.split("."), f"{machine}/{target}: {path}")


def origin(target: str, machine: str = HOME, folder: Path | None = None) -> str:
    """Return where the figures of a target are from, for the line below a table: machine, date, commit."""
    record = _load(target, machine, folder)
    day = datetime.fromisoformat(record.date)
    where = f"{record.machine.name.replace('-', ' ')} ({record.machine.gpu or record.machine.processor})"
    load = f", load {record.load_before:.1f} before" if record.load_before >= 1 else ""
    end = ", failed" if record.result == "FAILED" else ", from before the ledger" if record.transcribed_from else ""
    return f"`{type_command(record.command)}` on {where}, {day.day} {day:%B %Y}, commit {record.commit[:8]}{load}{end}"


def duration(target: str, machine: str = HOME, folder: Path | None = None) -> str:
    """Return how long a target takes, such as "15 minutes": by its record, or by `targets.toml` until one says so."""
    known, file = load_targets().get(target), (folder or records.FOLDER) / machine / f"{target}.json"
    if known is None:
        raise FigureError(f"targets.toml has no table [{target}]: {', '.join(load_targets())}")
    seconds = _load(target, machine, folder).seconds if file.exists() else 0.0
    minutes = max(1, round(seconds / 60 or known.minutes))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@cache
def _load(target: str, machine: str, folder: Path | None) -> records.Record:
    file = (folder or records.FOLDER) / machine / f"{target}.json"
    if not file.exists():
        raise FigureError(f"no record {machine}/{target}.json: run `make evidence` to see how it is made")
    return records.read_record(file)


def _follow(value: Any, names: list[str], place: str) -> Any:
    if not names:
        return value
    if isinstance(value, list) and names[0].lstrip("-").isdigit():
        return _follow(value[int(names[0])], names[1:], place)
    if isinstance(value, dict):
        for count in range(1, len(names) + 1):
            if (name := ".".join(names[:count])) in value:
                return _follow(value[name], names[count:], place)
    there = ", ".join(value) if isinstance(value, dict) else f"{value!r:.60}"
    raise FigureError(f"{place}: no {'.'.join(names)!r} there, but {there}")
