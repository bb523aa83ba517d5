"""`make bench NAME=distillation`: what a student of SmolLM2-135M gains by its teacher's logits, and how it gets to traffic.

Part `arms`: each is `r1plus_model.training.distillation`, as `r1plus engine distill` runs it, on the same data: the teacher's
answers to questions that no golden suite has, and paragraphs of perl-doc. `KD` learns the teacher's distribution, `CE`
the tokens of the same text: at equal steps, and for as many processor seconds. The suite is answered in torch.

Part `served`: the student of the longest `KD`, by the product's commands in the real Triton. `r1plus serve` refuses it
on its teacher's suite, and serves it with one of its own, whose questions the data did not have.

Not a test: it prints. The last line is JSON, which `python -m bench.distillation.picture` draws. `--work DIR` keeps data,
students and figures: the same command goes on there after a kill.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.running import exit_at_sigterm
from support.model import environment

ARMS: Final = {"KD": 0.0, "CE": 1.0}
"""Name -> share of the text's own tokens in the loss."""
PARTS: Final = ("arms", "served")


def main() -> None:
    """Train and measure each arm; print a table, and a JSON line last."""
    arguments = _parse()
    exit_at_sigterm()
    # Threads of torch spin by default, which counts as processor time and takes cores from other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.add_to_path()
    # torch is in the cache, not in this environment: only now can it be imported.
    from bench.distillation.arms import Bench

    began, load = datetime.now(UTC), os.getloadavg()[0]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as scratch:
        bench = Bench(arguments, arguments.work or Path(scratch))
        if "arms" in arguments.part:
            figures["rows"] = bench.measure()
        if "served" in arguments.part:
            figures["served"] = bench.serve()
    record = {
        "measured_at": f"{began:%Y-%m-%dT%H:%M:%SZ}",
        "command": shlex.join(["python", "-m", "bench.distillation", *sys.argv[1:]]),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "threads": arguments.threads,
        **figures,
    }
    print(json.dumps(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Distillation of SmolLM2-135M, measured here.")
    parser.add_argument("--part", action="append", choices=PARTS, help="one of them, several times; default: all")
    parser.add_argument("--steps", type=int, action="append", help="of an arm, several times; default: 30, 60, 120")
    parser.add_argument("--arm", action="append", choices=ARMS, help="one of them, several times; default: all")
    parser.add_argument("--layers", type=int, default=24, help="of the teacher's 30 (default: 24)")
    parser.add_argument("--prompts", type=int, default=860, help="at most, that the teacher answers (default: 860)")
    parser.add_argument("--prose", type=int, default=60_000, help="tokens of perl-doc (default: 60000)")
    parser.add_argument("--items", type=int, default=0, help="of the suites, for a short run; 0: all (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="bfloat16", help="float32 or bfloat16 (default: bfloat16)")
    parser.add_argument("--work", type=Path, help="folder that keeps data, students and figures; default: a new one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    arguments.steps, arguments.arm = arguments.steps or [30, 60, 120], arguments.arm or list(ARMS)
    arguments.part = arguments.part or list(PARTS)
    for name in ("prompts", "prose", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if min(arguments.steps) < 2:
        parser.error("--steps must be at least 2: the pace is taken after the first")
    return arguments


if __name__ == "__main__":
    main()
