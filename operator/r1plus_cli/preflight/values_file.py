"""The file of the chart's values that preflight writes: what this cluster needs otherwise than the defaults, and why.

The file's first lines hold a digest of the rest, so that nobody's own changes are overwritten.
"""

import hashlib
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from r1plus_cli.errors import UsageError
from r1plus_cli.preflight.outcome import ChartValue

DEFAULT_PATH = Path("my-values.yaml")
WIDTH = 120
_DOCUMENT_END = "...\n"
"""What PyYAML writes below a scalar."""
_HEAD = """\
# The chart's values for this cluster, by `r1plus preflight`. What is not here keeps the chart's default.
# sha256 of what follows, without your changes: {digest}
"""
_DIGEST = re.compile(r"^# sha256 of what follows, without your changes: ([0-9a-f]{64})\n", re.MULTILINE)


def format_values(values: Iterable[ChartValue]) -> str:
    """Return the text of the file: nested fields, each value below a comment with its reason."""
    tree: dict[str, Any] = {}
    for value in values:
        *fields, last = value.path.split(".")
        branch = tree
        for field in fields:
            branch = branch.setdefault(field, {})
        branch[last] = value
    body = "".join(_format_branch(tree, 0)) or "# This cluster needs nothing else.\n{}\n"
    return _HEAD.format(digest=_hash(body)) + body


def check_writable(path: Path) -> None:
    """Raise UsageError if the file exists and a person made or changed it."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--values {path}: cannot be read: {error}") from error
    match = _DIGEST.search(text)
    if match is None or match[1] != _hash(text[match.end() :]):
        which = "another program or a person made it" if match is None else "it was changed since preflight wrote it"
        raise UsageError(
            f"--values {path}: {which}; give another file, --force to overwrite it, or --no-values to write none"
        )


def write_values(path: Path, values: Iterable[ChartValue]) -> None:
    """Write the file. Raise UsageError if that fails."""
    try:
        path.write_text(format_values(values), "utf-8")
    except OSError as error:
        raise UsageError(f"--values {path}: cannot be written: {error}") from error


def _format_branch(branch: dict[str, Any], depth: int) -> Iterable[str]:
    indent = "  " * depth
    previous_reason = ""
    for field, value in branch.items():
        if isinstance(value, ChartValue):
            if value.reason != previous_reason:
                lines = textwrap.wrap(f"{value.reason[0].upper()}{value.reason[1:]}.", WIDTH - len(indent) - 2)
                yield from (f"{indent}# {line}\n" for line in lines)
            previous_reason = value.reason
            flow = yaml.safe_dump(value.value, default_flow_style=True, width=10**6, sort_keys=False)
            yield f"{indent}{field}: {flow.removesuffix(_DOCUMENT_END).rstrip()}\n"
        else:
            yield f"{indent}{field}:\n"
            yield from _format_branch(value, depth + 1)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
