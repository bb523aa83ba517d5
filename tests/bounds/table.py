"""The table of what a caller can take: each resource, who can take it, its bounds, and the tests that take them.

The rows are data (`*.toml`). docs/bounds.md is generated from them, and `tests/unit/docs/test_bounds.py` holds them to the code.
"""

import importlib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
PARTS: Final = ("gateway", "backend", "monitor", "registry", "calculator", "documents", "embedder", "serve", "operator")
TAKERS: Final = ("no key", "key", "end user", "local user", "document", "model output")
_REQUIRED: Final = ("id", "resource", "part", "takers", "bound", "at_bound", "first")


class BoundError(Exception):
    """A row that cannot be read; the message names file, row and field."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One resource that a caller can hold or use up."""

    id: str
    resource: str
    part: str
    """One of PARTS."""
    takers: tuple[str, ...]
    """Some of TAKERS."""
    bound: tuple[str, ...]
    """Bound in all: import paths of numbers (`module:NAME`), or texts."""
    at_bound: str
    """What happens there: the error with its remedy, and who is served on."""
    first: str
    """What was found when the row was written: `open` or `held`."""
    owner: str = "none"
    """Whose share there is: key, end user, address, namespace, request, none."""
    owner_bound: tuple[str, ...] = ()
    unit: str = ""
    cost: str = ""
    """Measured cost of the bound; empty if it is not measured."""
    tests: tuple[str, ...] = ()
    finding: str = ""


def load_bounds(folder: Path = FOLDER) -> tuple[Bound, ...]:
    """Return all rows, by part and file. Raises BoundError."""
    rows = [_read_row(file.name, row) for file in sorted(folder.glob("*.toml")) for row in _read_rows(file)]
    doubles = sorted({one.id for one in rows if sum(other.id == one.id for other in rows) > 1})
    if doubles:
        raise BoundError(f"ids that two rows have: {', '.join(doubles)}")
    return tuple(sorted(rows, key=lambda one: PARTS.index(one.part)))


def resolve(path: str) -> float | None:
    """Return the number that a bound names; None: the bound is a text.

    Raises:
        BoundError: the module has no such number.
    """
    module, colon, name = path.partition(":")
    if not colon or " " in path:
        return None
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise BoundError(f"{path}: {error}") from error
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BoundError(f"{path} is no number: {found!r}")
    return found


def show(paths: tuple[str, ...], unit: str) -> str:
    """Return bounds as text for a page: the figures that the code has now."""
    texts = [path if (number := resolve(path)) is None else _format(number, unit) for path in paths]
    return ", ".join(dict.fromkeys(texts)) or "none"


def _format(number: float, unit: str) -> str:
    if unit == "bytes":
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if number >= size and number % size == 0:
                return f"{number / size:,.0f} {name}"
    return f"{number:,g} {unit}".strip() if number < 10**6 else f"{number:,.0f} {unit}".strip()


def _read_rows(file: Path) -> list[dict[str, Any]]:
    try:
        return list(tomllib.loads(file.read_text())["row"])
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise BoundError(f"{file.name}: {error}") from error


def _read_row(file: str, row: dict[str, Any]) -> Bound:
    where = f"{file}, {row.get('id', 'a row without id')}"
    known = {one.name for one in fields(Bound)}
    if problems := [*sorted(row.keys() - known), *(name for name in _REQUIRED if not row.get(name))]:
        raise BoundError(f"{where}: unknown or missing: {', '.join(problems)}")
    values = {name: _to_tuple(value) if name in _LISTS else value for name, value in row.items()}
    bound = Bound(**values)
    if bound.part not in PARTS:
        raise BoundError(f"{where}: part {bound.part}: one of {', '.join(PARTS)}")
    if unknown := set(bound.takers) - set(TAKERS):
        raise BoundError(f"{where}: takers {', '.join(sorted(unknown))}: some of {', '.join(TAKERS)}")
    if bound.first not in ("open", "held"):
        raise BoundError(f"{where}: first {bound.first}: open or held")
    return bound


_LISTS: Final = ("takers", "bound", "owner_bound", "tests")


def _to_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
