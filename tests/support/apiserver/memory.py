"""How much memory a process has held, and how much the chart lets the operator hold."""

from pathlib import Path

import yaml

from r1plus_model_repo.catalog.quantity import bytes_of
from support.apiserver.server import CHART

MEMORY_LIMIT = bytes_of(yaml.safe_load((CHART / "values.yaml").read_text())["resources"]["limits"]["memory"])


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
