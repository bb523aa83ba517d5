"""`make bench NAME=model`: what R1+'s architecture costs and saves, on SmolLM2-135M as `r1plus engine convert` writes it.

Parts: `quality`, perplexity against sparsity and window, and the suite against sparsity, without training; `cache`,
bytes of keys and values at 64K as allocated; `speed`, decoding at batch 1 and 16 in turn with the dense model of the
same code; `healing`, the same figures before, during and after distillation, and what the bias is worth; `served`, a
healed model as an engine of the edge tier: gated on a suite of its own and on the dense model's, timed in turn with the
dense engine, and served by `r1plus serve`. Not a test: it prints. The last line is JSON.

`--steps 1200` heals for about two hours on two quiet cores, `--work DIR` lets it continue after a kill.
"""

import argparse
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.running import exit_at_sigterm
from support.model import environment

PARTS: Final = ("quality", "cache", "speed", "healing", "served")
SUITE: Final = "smollm2-full-v1"


def main() -> None:
    """Measure what is asked for; print tables, and a JSON line last."""
    arguments = _parse()
    exit_at_sigterm()
    environment.add_to_path()
    # torch is in the cache, not in this environment: only now can it be imported.
    from bench.model.parts import Bench

    began, load = datetime.now(UTC), os.getloadavg()[0]
    bench = Bench(arguments)
    figures: dict[str, Any] = {part: getattr(bench, f"measure_{part}")() for part in arguments.part}
    record = {
        "measured_at": f"{began:%Y-%m-%dT%H:%M:%SZ}",
        "command": shlex.join(["python", "-m", "bench.model", *sys.argv[1:]]),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "threads": arguments.threads,
        **figures,
    }
    print(json.dumps(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="R1+'s architecture, measured here.")
    parser.add_argument("--part", action="append", choices=PARTS, help="one of them, several times; default: all")
    parser.add_argument("--windows", type=int, default=4, help="of 512 tokens, for perplexity (default: 4)")
    parser.add_argument("--long-windows", type=int, default=2, help="of 2048 tokens, for attention (default: 2)")
    parser.add_argument("--items", type=int, default=0, help=f"of the suite {SUITE}, evenly; 0: all (default: 0)")
    parser.add_argument("--tokens", type=int, default=40, help="decoded in turn by each model (default: 40)")
    parser.add_argument("--steps", type=int, default=80, help="of healing (default: 80; 1200 are about two hours)")
    parser.add_argument(
        "--heal", action="append", default=[], help="a model of bench.model.healed.HEALED; default: all"
    )
    parser.add_argument("--prompts", type=int, default=400, help="that healing trains on (default: 400)")
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoints and answers; default: a temporary one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    arguments.part = arguments.part or list(PARTS)
    for name in ("windows", "long_windows", "tokens", "steps", "prompts", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return arguments


if __name__ == "__main__":
    main()
