"""`make faults`: every point of the trace and every single fault, three seeds; a JSON line last.

    python -m faults [--seeds 3] [--at-once 24] [--part 1.0]

Exits with 1 if anything did not survive, after naming it and what differed. A point that did not come in three tries,
since two writes fell together each time, is named too; it counts as no survivor.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from devcluster.apiserver_only import ApiServer
from faults import singles
from faults.campaign import Result, learn, matrix
from faults.rig import rig, scratch, started


def main() -> None:
    """Run, report, exit."""
    asked = argparse.ArgumentParser(prog="faults", description=__doc__)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--at-once", type=int, default=24)
    asked.add_argument("--part", type=float, default=1.0, help="share of the points, drawn by the seed")
    chosen = asked.parse_args()
    began, folder = time.monotonic(), scratch()
    print(f"The operator's logs: {folder}", flush=True)
    total = Result()
    with started() as server:
        for seed in range(1, chosen.seeds + 1):
            total.add(asyncio.run(matrix(server, folder, seed, chosen.at_once, _say, chosen.part)))
        total.add(asyncio.run(one_by_one(server, folder)))
    report(total, chosen.seeds, folder, time.monotonic() - began)


async def one_by_one(server: ApiServer, folder: Path) -> Result:
    """The faults that concern everybody, with an operator of their own."""
    async with rig(server, 0, folder) as made:
        return await singles.run(made, await learn(made), _say)


def report(total: Result, seeds: int, folder: Path, seconds: float) -> None:
    """What did not survive, then the JSON line."""
    for name, problems in total.failed:
        print(f"\nNot survived: {name}")
        for problem in problems[:12]:
            print(f"  {problem}")
    for name in total.unreached:
        print(f"\nNot reached: {name}")
    figures = {
        "points": total.points,
        "survived": total.survived,
        "failed": len(total.failed),
        "unreached": len(total.unreached),
        "seeds": seeds,
        "slowest_run_s": round(total.slowest, 1),
        "seconds": round(seconds),
        "logs": str(folder),
    }
    print(json.dumps(figures), flush=True)
    sys.exit(1 if total.failed else 0)


def _say(line: str) -> None:
    print(f"faults: {line}", flush=True)


if __name__ == "__main__":
    main()
