"""The `r1plus` command, as a person runs it against the cluster."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.kube import Kube
from e2e.waiting import StoryError

PROGRAM = Path(sys.executable).parent / "r1plus"
SECONDS = 120


def run_r1plus(kube: Kube, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `r1plus WORDS` and return what it printed, in columns for a wide terminal; raise StoryError if it failed."""
    environment = {**os.environ, "KUBECONFIG": str(kube.kubeconfig), "COLUMNS": "160", **(env or {})}
    done = subprocess.run(
        [str(PROGRAM), *words], capture_output=True, text=True, check=False, timeout=SECONDS, env=environment
    )
    if done.returncode != 0:
        raise StoryError(f"r1plus {' '.join(words)} exited {done.returncode}: {done.stdout}{done.stderr}".strip())
    return done
