"""`make faults`: every point of the trace and every single fault, with three seeds; a JSON line for each, and one last.

    python -m faults [--seed 2] [--kinds conflict,kill,singles] [--sample 0.1] [--lease 60]

Exits with 1 if anything did not survive, after naming it and what differed. A point that did not come in six tries,
since two writes fell together each time, is named too; it counts as no survivor. `clean` is what survived without any
run having been told again because it ran out of time, as happens on a busy machine: `late_s` says how busy it was.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from devcluster.apiserver_only import ApiServer
from faults import seed
from faults.campaign import Result
from faults.rig import AT_WORK, LEASE_SECONDS, scratch

SEEDS = (1, 2, 3)


def main() -> None:
    """Run, report, exit."""
    seeds, asked = _asked()
    began, folder = time.monotonic(), scratch()
    print(f"The operators' logs: {folder}", flush=True)
    with seed.servers(asked.stations) as stations:
        total = asyncio.run(_all(stations, seeds, asked, folder))
    figures = _figures(total, began) | {"seeds": list(seeds), "sample": asked.sample, "logs": str(folder)}
    print(json.dumps(figures), flush=True)
    sys.exit(0 if total.survived == total.points else 1)


async def _all(stations: Sequence[ApiServer], seeds: Sequence[int], asked: seed.Asked, folder: Path) -> Result:
    """One seed after the other, in one event loop: an API server that was started again ends with the thread that did."""
    total = Result()
    for number in seeds:
        began = time.monotonic()
        found = await seed.run(stations, number, asked, folder, seed.Progress(_say))
        _tell(found)
        print(json.dumps({"seed": number} | _figures(found, began)), flush=True)
        total.add(found)
    return total


def _asked() -> tuple[tuple[int, ...], seed.Asked]:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, help=f"only this one; by default {SEEDS}, one after the other")
    parser.add_argument("--kinds", default=",".join(seed.KINDS), help=f"of {', '.join(seed.KINDS)}")
    parser.add_argument("--sample", type=float, default=1.0, help="share of the points, drawn by the seed: 0 to 1")
    parser.add_argument(
        "--at-work", type=int, default=AT_WORK, help="stories that act at once; fewer on a busy machine"
    )
    parser.add_argument(
        "--lease", type=float, default=LEASE_SECONDS, help="seconds; more on a busy machine, where operators lose it"
    )
    chosen = parser.parse_args()
    kinds = tuple(chosen.kinds.replace(",", " ").split())
    if unknown := [kind for kind in kinds if kind not in seed.KINDS]:
        parser.error(f"--kinds: {', '.join(unknown)} is none of {', '.join(seed.KINDS)}")
    if not 0 < chosen.sample <= 1:
        parser.error(f"--sample: {chosen.sample:g} is not above 0 and at most 1")
    if chosen.at_work < 1:
        parser.error(f"--at-work: {chosen.at_work} is below 1")
    if chosen.lease < LEASE_SECONDS:
        parser.error(f"--lease: {chosen.lease:g} is below {LEASE_SECONDS:g}")
    seeds = SEEDS if chosen.seed is None else (chosen.seed,)
    return seeds, seed.Asked(kinds, chosen.sample, chosen.at_work, chosen.lease)


def _tell(found: Result) -> None:
    """What did not survive."""
    for name, problems in found.failed:
        print(f"\nNot survived: {name}")
        for problem in problems[:12]:
            print(f"  {problem}")
    for name in found.unreached:
        print(f"\nNot reached: {name}")


def _figures(found: Result, began: float) -> dict[str, float | bool]:
    return {
        "points": found.points,
        "survived": found.survived,
        "failed": len(found.failed),
        "unreached": len(found.unreached),
        "retold": found.retold,
        "watched_a_minute": found.minutes,
        "late_s": round(found.late, 1),
        "clean": found.survived == found.points and not found.retold,
        "writes": found.writes,
        "events": found.events,
        "slowest_convergence_s": round(found.latest, 1),
        "slowest_run_s": round(found.slowest, 1),
        "seconds": round(time.monotonic() - began),
    }


def _say(line: str) -> None:
    print(f"faults: {line}", flush=True)


if __name__ == "__main__":
    main()
