"""`make bench-distillation`: what a student of SmolLM2-135M gains by its teacher's logits, against text alone.

Each arm is `r1plus_model.distillation`, as `r1plus engine distill` runs it, on the same data: the teacher's answers to
questions that no golden suite has, and paragraphs of perl-doc. `KD` learns the teacher's distribution, `CE` the tokens of
the same text. The suite is answered by the student in torch. Not a test: it prints. The last line is JSON.

`--work DIR` keeps data, students and what a killed arm has done.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.running import exit_at_sigterm
from support.model import environment

ARMS: Final = {"KD": 0.0, "CE": 1.0}
"""Name -> share of the text's own tokens in the loss."""


def main() -> None:
    """Train and measure each arm; print a table, and a JSON line last."""
    arguments = _parse()
    exit_at_sigterm()
    environment.add_to_path()
    # torch is in the cache, not in this environment: only now can it be imported.
    from bench.distillation.arms import Bench

    began, load = datetime.now(UTC), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as scratch:
        rows = Bench(arguments, arguments.work or Path(scratch)).measure()
    record = {
        "measured_at": f"{began:%Y-%m-%dT%H:%M:%SZ}",
        "command": shlex.join(["python", "-m", "bench.distillation", *sys.argv[1:]]),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "threads": arguments.threads,
        "rows": rows,
    }
    print(json.dumps(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Distillation of SmolLM2-135M, measured here.")
    parser.add_argument("--steps", type=int, action="append", help="of an arm, several times; default: 30, 60, 120")
    parser.add_argument("--arm", action="append", choices=ARMS, help="one of them, several times; default: all")
    parser.add_argument("--layers", type=int, default=24, help="of the teacher's 30 (default: 24)")
    parser.add_argument("--prompts", type=int, default=1394, help="at most, that the teacher answers (default: 1394)")
    parser.add_argument("--prose", type=int, default=60_000, help="tokens of perl-doc (default: 60000)")
    parser.add_argument("--items", type=int, default=0, help="of the suite, evenly; 0: all (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="bfloat16", help="float32 or bfloat16 (default: bfloat16)")
    parser.add_argument("--work", type=Path, help="folder that keeps data and students; default: a temporary one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    arguments.steps, arguments.arm = arguments.steps or [30, 60, 120], arguments.arm or list(ARMS)
    return arguments


if __name__ == "__main__":
    main()
