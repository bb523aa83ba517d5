"""The long targets: `evidence/targets.toml`, one table each."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evidence.repository import ROOT

FILE: Final = ROOT / "evidence" / "targets.toml"
HOME: Final = "two-cores"
"""The machine on which every target is to be recorded; others may be, too."""


class TargetError(Exception):
    """`targets.toml` is wrong; the message names table, field and remedy."""


@dataclass(frozen=True, slots=True)
class Target:
    """A long target with its arguments, and what its figures depend on."""

    name: str
    make: str
    """The target of the Makefile."""
    arguments: tuple[str, ...]
    """Variables of the call, such as `PART=speed`; a call with others is not recorded."""
    entry: tuple[str, ...]
    """Files and folders of which it depends on all that they import."""
    also: tuple[str, ...]
    """Files and folders that no import shows: charts, suites, rules."""
    minutes: float
    """How long it takes, until a record says so."""

    @property
    def command(self) -> str:
        """What a person types."""
        return type_command(shlex.join(["make", self.make, *self.arguments]))


def load_targets(file: Path = FILE) -> dict[str, Target]:
    """Return the targets by name. Raises TargetError."""
    return {name: _parse(name, table) for name, table in tomllib.loads(file.read_text()).items()}


def type_command(command: str) -> str:
    """Return a call of make as `make help` shows it: `make bench NAME=gateway` for `make bench-gateway`."""
    for pattern, typed in _MEMBERS.items():
        command = re.sub(rf"^make {pattern}(?= |$)", f"make {typed}", command)
    return command


def find_target(make: str, arguments: tuple[str, ...], targets: dict[str, Target]) -> Target | None:
    """Return the target that `make` with just these arguments is, in any order; None if no table has them."""
    wanted = (make, sorted(arguments))
    return next((one for one in targets.values() if (one.make, sorted(one.arguments)) == wanted), None)


_MEMBERS: Final = {
    r"bench-(\S+)": r"bench NAME=\1",
    r"e2e-(\S+)": r"e2e STORY=\1",
    r"test-(?!flaky|long)(\S+)": r"test-long NAME=\1",
    r"(unit-long|fuzz-cr|cel-mutants)": r"test-long NAME=\1",
}
"""Targets that belong to one of the Makefile's lists, and how they are typed."""

_FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "make": str,
    "arguments": str,
    "entry": list,
    "also": list,
    "minutes": (int, float),
}


def _parse(name: str, table: dict[str, Any]) -> Target:
    for field, value in table.items():
        kind = _FIELDS.get(field)
        if kind is None:
            raise TargetError(f"targets.toml [{name}] {field}: no such field; known are {', '.join(_FIELDS)}")
        if not isinstance(value, kind):
            raise TargetError(f"targets.toml [{name}] {field}: {value!r} is a {type(value).__name__}")
    for field in ("entry", "minutes"):
        if field not in table:
            raise TargetError(f"targets.toml [{name}]: {field} is missing")
    return Target(
        name,
        table.get("make", name),
        tuple(shlex.split(table.get("arguments", ""))),
        tuple(table["entry"]),
        tuple(table.get("also", ())),
        float(table["minutes"]),
    )
