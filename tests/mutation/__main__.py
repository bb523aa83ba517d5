"""`make mutation`: do the tests notice when a line of the policies or of the plan is wrong?

A sample of mutants, drawn by a seed, is tested one by one. Prints the survivors and, last, a JSON line. A mutant that uses ten
times the processor time counts as killed. Caches which test runs which line; the first run of a tree takes a few minutes longer.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devcluster.cache import cache_dir
from mutation.coverage_map import load_coverage_map
from mutation.mutants import sample_mutants
from mutation.runner import Outcome, Status, run_mutants

SOURCES = ("policies/r1plus_policies", "policies/r1plus_contract", "operator/r1plus_operator/plan")
TESTS = ("tests/unit/policies", "tests/unit/contract", "tests/unit/operator/plan", "tests/unit/operator/test_*.py")
PROGRESS_EVERY = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sample; return 1 if `--compare` shows a mutant that was killed before and survives now."""
    options = _parse(arguments)
    root, began = options.root.resolve(), time.monotonic()
    sources, tests = options.source or SOURCES, _find_tests(root, options.test or TESTS)
    before = json.loads(options.compare.read_text()) if options.compare else None
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(options.cache / "hypothesis"))
    mutants = sample_mutants(root, sources, options.count, options.seed)
    print(f"{len(mutants)} mutants of {len({mutant.file for mutant in mutants})} modules", flush=True)
    coverage = load_coverage_map(root, sources, tests, options.cache)
    print(f"{len(coverage.tests)} tests, {sum(coverage.seconds):.0f} s of processor time", flush=True)

    outcomes: list[Outcome] = []
    for outcome in run_mutants(root, mutants, coverage, options.jobs):
        outcomes.append(outcome)
        if len(outcomes) % PROGRESS_EVERY == 0 or len(outcomes) == len(mutants):
            outcomes.sort(key=lambda outcome: (outcome.mutant.file, outcome.mutant.line, outcome.mutant.id))
            summary = _summarise(outcomes, options.seed, time.monotonic() - began)
            result = {**summary, "outcomes": [_describe(outcome) for outcome in outcomes]}
            _print_progress(summary, len(mutants))
            if options.survivors:
                options.survivors.write_text(json.dumps(result, indent=1) + "\n")

    _print_survivors(outcomes)
    lost = compare_runs(before, result) if before else []
    print(json.dumps(summary))
    return 1 if lost else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutation", description="Test a sample of mutants.")
    parser.add_argument("--count", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=1, help="draws the sample (1)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once (2)")
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="write every outcome, with the survivors' diffs")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="fail if a mutant that FILE's run killed survives")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the tree (the current folder)")
    parser.add_argument(
        "--source", action="append", metavar="PACKAGE", help=f"package to mutate ({', '.join(SOURCES)})"
    )
    parser.add_argument("--test", action="append", metavar="PATH", help=f"tests to run ({', '.join(TESTS)})")
    parser.add_argument("--cache", type=Path, default=cache_dir() / "mutation", help="where the coverage map is kept")
    return parser.parse_args(arguments)


def _find_tests(root: Path, patterns: Sequence[str]) -> list[str]:
    return [path.relative_to(root).as_posix() for pattern in patterns for path in sorted(root.glob(pattern))]


def _print_progress(summary: dict[str, Any], total: int) -> None:
    counts = ", ".join(f"{summary[name]} {name}" for name in ("killed", "survived", "uncovered"))
    spent = f"{summary['processor_seconds']:.0f} s of processor time"
    print(f"{summary['mutants']} of {total}: {counts}; {spent}", file=sys.stderr, flush=True)


def _print_survivors(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.status in (Status.SURVIVED, Status.UNCOVERED):
            mutant = outcome.mutant
            print(f"{mutant.file}:{mutant.line}: {outcome.status} {mutant.operator}, {outcome.tests} tests cover it")
            print(mutant.diff)


def _summarise(outcomes: Sequence[Outcome], seed: int, seconds: float) -> dict[str, Any]:
    """Return the figures of a run. `killed` includes `timeout`; `score` is the killed share of all mutants."""
    counts = Counter(outcome.status for outcome in outcomes)
    killed = counts[Status.KILLED] + counts[Status.TIMEOUT]
    return {
        "mutants": len(outcomes),
        "killed": killed,
        "survived": counts[Status.SURVIVED],
        "timeout": counts[Status.TIMEOUT],
        "uncovered": counts[Status.UNCOVERED],
        "score": round(killed / max(1, len(outcomes)), 4),
        "seed": seed,
        "seconds": round(seconds, 1),
        "processor_seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
    }


def _describe(outcome: Outcome) -> dict[str, Any]:
    mutant = outcome.mutant
    return {
        "id": mutant.id,
        "file": mutant.file,
        "line": mutant.line,
        "status": outcome.status,
        "killer": outcome.killer,
        "tests": outcome.tests,
        "seconds": round(outcome.seconds, 2),
        "diff": mutant.diff,
    }


def compare_runs(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Print and return the mutants that the earlier run killed and this one does not."""
    statuses = {outcome["id"]: outcome["status"] for outcome in now["outcomes"]}
    killed = [outcome for outcome in before["outcomes"] if outcome["status"] in (Status.KILLED, Status.TIMEOUT)]
    common = [outcome for outcome in killed if outcome["id"] in statuses]
    lost = [outcome for outcome in common if statuses[outcome["id"]] in (Status.SURVIVED, Status.UNCOVERED)]
    for outcome in lost:
        print(f"Killed before by {outcome['killer'] or 'a timeout'}, {statuses[outcome['id']]} now: {outcome['id']}")
    print(f"{len(common)} of the {len(killed)} mutants killed before were tested again; {len(lost)} of them live now")
    if killed and not common:
        raise SystemExit("Nothing to compare: the other run has another seed or other sources.")
    return [outcome["id"] for outcome in lost]


if __name__ == "__main__":
    sys.exit(main())
