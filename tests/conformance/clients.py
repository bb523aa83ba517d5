"""The `openai` client of three major versions, each in its own environment, with the same script."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conformance.environments import prepare
from conformance.results import Result

CLIENTS: Final = ("openai-3", "openai-2", "openai-1")
SCRIPT: Final = Path(__file__).with_name("client_script.py")
TIMEOUT_SECONDS: Final = 1800


def run_client(name: str, url: str, keys: dict[str, str]) -> Iterator[Result]:
    """Run the script with one version of the client. It prints a line of JSON for each case."""
    environ = {
        "PATH": os.environ["PATH"],
        "GATEWAY": url,
        "KEYS": json.dumps(keys),
        "PYTHONWARNINGS": "error",
    }
    command = [prepare(name) / "python", "-I", SCRIPT]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in lines:
        yield Result(line["case"], problem=line["problem"])
    if done.returncode or not lines:
        yield Result("the script ends", problem=f"status {done.returncode}: {done.stderr[-800:]}")
