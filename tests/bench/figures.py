"""Figures of a run, for the programs that draw them."""

import json
from pathlib import Path
from typing import Any

from evidence.records import RecordError, read_record


def read_figures(file: Path) -> dict[str, Any]:
    """Return the figures of a record (evidence/records/MACHINE/TARGET.json), or of a file with a run's output.

    Raises ValueError if the output has no JSON line, or the record cannot be believed. Raises OSError.
    """
    if file.suffix == ".json":
        try:
            return read_record(file).figures
        except RecordError as error:
            raise ValueError(str(error)) from error
    lines = file.read_text("utf-8").splitlines()
    line = next((line for line in reversed(lines) if line.startswith("{")), None)
    if line is None:
        raise ValueError(f"{file}: no JSON line in it")
    return dict(json.loads(line))
