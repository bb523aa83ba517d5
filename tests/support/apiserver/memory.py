"""How much memory and processor time a process has taken, and how much memory the chart lets the operator hold."""

import os
from pathlib import Path

import yaml

from r1plus_model_repo.catalog.quantity import bytes_of
from support.apiserver.server import CHART

MEMORY_LIMIT = bytes_of(yaml.safe_load((CHART / "values.yaml").read_text())["resources"]["limits"]["memory"])


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
