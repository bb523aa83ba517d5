"""Run seeds of the simulation: `python -m simulation --seeds 200`. A JSON line last; 1 if a promise was broken.

`--seed N` runs one and prints the table of its failure, `--schedule FILE` what a file holds. `--shrink FILE` writes the
shortest schedule that still breaks the same promise. The same seed is the same run: so Python's hashes are fixed.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from simulation.mutants import MUTANTS
from simulation.promises import NAMES
from simulation.run import Outcome, run_schedule, run_schedules
from simulation.schedule import Schedule, ScheduleError, draw_schedule, read_schedule, write_schedule
from simulation.shrink import shrink_failure
from simulation.table import format_failure


def main() -> int:
    """Parse, run, print."""
    arguments = _parse()
    only = frozenset(filter(None, arguments.only.split(",")))
    try:
        schedules = _select(arguments)
    except ScheduleError as error:
        print(f"simulation: {error}", file=sys.stderr)
        return 2
    began, hours, events, violations = time.monotonic(), 0.0, 0, []
    tried: Counter[str] = Counter()
    for schedule, outcome in zip(schedules, run_schedules(schedules, only, arguments.jobs), strict=True):
        hours += outcome.seconds / 3600
        events += len(schedule.happenings) + outcome.writes
        tried.update(outcome.tried)
        if outcome.violation is not None:
            violations.append({"seed": schedule.seed, "invariant": outcome.violation.invariant})
            _report(schedule, outcome, arguments.shrink)
        if arguments.digest:
            print(f"seed {schedule.seed}: {outcome.digest}")
    figures = {
        "seeds": len(schedules),
        "violations": violations,
        "events": events,
        "simulated_hours": round(hours, 2),
        "seconds": round(time.monotonic() - began, 1),
        "tried": dict(sorted(tried.items())),
    }
    print(json.dumps(figures))
    return 1 if violations else 0


def _select(arguments: argparse.Namespace) -> list[Schedule]:
    if arguments.mutant:
        mutant = MUTANTS[arguments.mutant]
        mutant.apply()
        return [mutant.schedule]
    if arguments.schedule:
        return [read_schedule(arguments.schedule)[0]]
    if arguments.seed is not None:
        return [draw_schedule(arguments.seed)]
    return [draw_schedule(seed) for seed in range(arguments.first, arguments.first + arguments.seeds)]


def _report(schedule: Schedule, outcome: Outcome, path: Path | None) -> None:
    violation = outcome.violation
    assert violation is not None
    if path is not None:
        schedule = shrink_failure(schedule, violation.invariant, violation.at)
        outcome = run_schedule(schedule, frozenset((violation.invariant,)))
        write_schedule(schedule, path, breaks=violation.invariant, found=violation.text)
    print(format_failure(schedule, outcome.violation or violation, outcome.rows), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--schedule", type=Path, help="a schedule that was kept")
    parser.add_argument("--mutant", choices=MUTANTS, help="a change of the operator that one invariant has to find")
    parser.add_argument("--shrink", type=Path, help="where to write the shortest schedule of a failure")
    parser.add_argument("--only", default="", help=f"judge these alone, with commas between: {', '.join(NAMES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds at once (one a processor)")
    parser.add_argument("--digest", action="store_true", help="print a digest of each run's writes")
    arguments = parser.parse_args()
    for name in filter(None, arguments.only.split(",")):
        if name not in NAMES:
            parser.error(f"--only: {name} is no invariant; there are {', '.join(NAMES)}")
    for option in ("seeds", "jobs"):
        if (value := getattr(arguments, option)) < 1:
            parser.error(f"--{option}: {value} must be 1 or more")
    return arguments


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of texts follows from it.
        os.execve(
            sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    sys.exit(main())
