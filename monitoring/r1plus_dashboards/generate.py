"""Writes what the chart ships for Prometheus and Grafana: `python -m r1plus_dashboards.generate [--check]`.

Beside `r1plus_operator.api.generate`, by `make generate` and `make check`, since it needs what only development has.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from r1plus_dashboards.build import Board, to_json
from r1plus_dashboards.deployment import DEPLOYMENT
from r1plus_dashboards.fleet import FLEET
from r1plus_dashboards.operator import OPERATOR
from r1plus_dashboards.serving import SERVING
from r1plus_dashboards.usage import USAGE

ROOT = Path(__file__).resolve().parents[2]
FILES = Path("charts/r1plus-operator/files")
RULES = Path("monitoring/rules")
FOLDERS = (FILES / "dashboards", FILES / "rules")
"""They hold nothing else: a file that is no longer generated is removed."""
BOARDS: dict[str, Board] = {
    "fleet": FLEET,
    "deployment": DEPLOYMENT,
    "serving": SERVING,
    "operator": OPERATOR,
    "usage": USAGE,
}


def outputs(root: Path) -> dict[Path, str]:
    """Every generated file, relative to the repository's root, with its text."""
    made = {FILES / "dashboards" / f"{name}.json": to_json(board) for name, board in BOARDS.items()}
    for source in sorted((root / RULES).glob("*.yaml")):
        made[FILES / "rules" / source.name] = source.read_text("utf-8")
    return made


def differences(root: Path) -> list[str]:
    """What `--check` complains of: one line per file that is absent, differs or is left over."""
    wanted, found = outputs(root), []
    for path, text in wanted.items():
        if not (root / path).exists():
            found.append(f"{path}: is absent")
        elif (root / path).read_text("utf-8") != text:
            found.append(f"{path}: differs")
    return found + [f"{path}: is left over" for path in _leftovers(root, set(wanted))]


def write(root: Path) -> None:
    """Make the files what `outputs` says, and remove what it no longer names."""
    wanted = outputs(root)
    for path in _leftovers(root, set(wanted)):
        (root / path).unlink()
    for path, text in wanted.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def _leftovers(root: Path, wanted: set[Path]) -> list[Path]:
    there = {path.relative_to(root) for folder in FOLDERS for path in (root / folder).glob("*") if path.is_file()}
    return sorted(there - wanted)


def main(arguments: Sequence[str]) -> int:
    """Write, or with `--check` report; returns the exit status."""
    parser = argparse.ArgumentParser(prog="r1plus_dashboards.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    if not options.check:
        write(options.root)
        return 0
    found = differences(options.root)
    for line in found:
        print(f"{line}; run: make generate", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
