"""`make bench NAME=reward`: what SmolLM2-135M gains at translating questions by expert iteration on the calculator's reward.

The training is `r1plus_model.training.reinforcement`, as `r1plus engine reinforce` runs it. Questions are made here, in two halves
that share no template, name, good or number. Asked greedily before and after: the held-out half, and the questions of
`make bench NAME=math` that were written long before (`reported`). The golden suite's items show what the training costs
elsewhere. Not a test: it prints. The last line is JSON.

`--work DIR` keeps questions, checkpoints and what a killed run has done.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.running import exit_at_sigterm
from support.model import environment


def main() -> None:
    """Train and measure; print a JSON line last."""
    arguments = _parse()
    exit_at_sigterm()
    # Threads of torch spin by default, which takes the core from what they wait for where other programs run.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.add_to_path()
    # torch is in the cache, not in this environment: only now can it be imported.
    from bench.reward.measurement import measure

    began, load = datetime.now(UTC), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as scratch:
        figures = measure(arguments, arguments.work or Path(scratch))
    record = {
        "measured_at": f"{began:%Y-%m-%dT%H:%M:%SZ}",
        "command": shlex.join(["python", "-m", "bench.reward", *sys.argv[1:]]),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "threads": arguments.threads,
        **figures,
    }
    print(json.dumps(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Expert iteration on the calculator's translation, measured here.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=70, help="to train on (default: 70)")
    parser.add_argument("--held-out", type=int, default=102, help="to measure with (default: 102)")
    parser.add_argument("--reported", type=int, default=60, help="of bench.math to measure with (default: 60)")
    parser.add_argument("--items", type=int, default=50, help="of the golden suite, evenly; 0: none (default: 50)")
    parser.add_argument("--samples", type=int, default=8, help="for each question in a round (default: 8)")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=16, help="of a round (default: 16)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--precision", default="bfloat16", help="float32 or bfloat16 (default: bfloat16)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder that keeps what is done; default: a temporary one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


if __name__ == "__main__":
    main()
