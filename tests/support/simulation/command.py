"""The simulation's command, in a process of its own: the order of sets follows from its hash seed."""

import json
import os
import subprocess
import sys
from typing import Any

from support.paths import TESTS


def run_simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m simulation`."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "simulation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS.parent, check=False)


def read_figures(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the JSON line that it prints last."""
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
