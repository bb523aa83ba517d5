"""`make mutation`: do the tests notice when a line of the product is wrong?

Samples of mutants, drawn by a seed, are tested one by one: one of the policies, the contract and the plan, one of the gateway's
store and access and the monitor's scorers. Prints the survivors and, last, a JSON line. A mutant that uses ten times the processor
time counts as killed. Caches which test runs which line; the first run of a tree takes a few minutes longer.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from devcluster.cache import cache_dir
from mutation.coverage_map import CoverageMap, load_coverage_map
from mutation.draws import DRAWS, Draw
from mutation.mutants import sample_mutants
from mutation.outcomes import compare_runs, describe, print_survivors, summarise
from mutation.reach import find_lines_only_reached_by, read_ids, select_tests
from mutation.runner import IDLE_LOOKS, LOOK_SECONDS, Outcome, run_mutants

PROGRESS_EVERY = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the samples; return 1 if `--compare` shows a mutant that was killed before and survives now."""
    options = _parse(arguments)
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(options.cache / "hypothesis"))
    if options.only_reached_by:
        return _print_lines_only_reached_by(options)
    before = json.loads(options.compare.read_text()) if options.compare else None
    began, outcomes = time.monotonic(), list[Outcome]()
    for outcome in _run_draws(options):
        outcomes.append(outcome)
        if len(outcomes) % PROGRESS_EVERY == 0:
            _print_progress(outcomes)
            _write(options, outcomes, began)
    outcomes.sort(key=lambda outcome: (outcome.mutant.file, outcome.mutant.line, outcome.mutant.id))
    result = _write(options, outcomes, began)
    print_survivors(outcomes)
    lost = compare_runs(before, result) if before else []
    print(json.dumps(summarise(outcomes, options.seed, time.monotonic() - began)))
    return 1 if lost else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutation", description="Test a sample of mutants.")
    known = [draw.name for draw in DRAWS]
    parser.add_argument("--draw", action="append", choices=known, help="one of the samples (all)")
    parser.add_argument("--count", type=int, default=300, help="how many mutants of each sample (300)")
    parser.add_argument("--seed", type=int, default=1, help="draws the samples (1)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once (2)")
    looks = f"a mutant that sleeps at so many looks, {LOOK_SECONDS:.0f} s apart, waits for ever ({IDLE_LOOKS})"
    parser.add_argument("--idle-looks", type=int, default=IDLE_LOOKS, help=looks)
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="write every outcome, with the survivors' diffs")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="fail if a mutant that FILE's run killed survives")
    parser.add_argument(
        "--only-reached-by", type=Path, metavar="FILE", help="print the lines that only FILE's tests run"
    )
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the tree (the current folder)")
    parser.add_argument("--source", action="append", metavar="PACKAGE", help="a sample of this package instead")
    parser.add_argument("--test", action="append", metavar="PATH", help="with --source, the tests to run")
    parser.add_argument("--cache", type=Path, default=cache_dir() / "mutation", help="where the coverage map is kept")
    options = parser.parse_args(arguments)
    options.root = options.root.resolve()
    if bool(options.source) != bool(options.test):
        parser.error("--source and --test go together")
    return options


def _choose_draws(options: argparse.Namespace) -> list[Draw]:
    if options.source:
        return [Draw("own", options.source, options.test)]
    return [draw for draw in DRAWS if not options.draw or draw.name in options.draw]


def _load_map(options: argparse.Namespace, draw: Draw) -> CoverageMap:
    coverage = load_coverage_map(options.root, draw.sources, draw.find_tests(options.root), options.cache)
    print(f"{draw.name}: {len(coverage.tests)} tests, {sum(coverage.seconds):.0f} s of processor time", flush=True)
    return coverage


def _run_draws(options: argparse.Namespace) -> Iterator[Outcome]:
    for draw in _choose_draws(options):
        mutants = sample_mutants(options.root, draw.sources, options.count, options.seed)
        modules = len({mutant.file for mutant in mutants})
        print(f"{draw.name}: {len(mutants)} mutants of {modules} modules", flush=True)
        yield from run_mutants(options.root, mutants, _load_map(options, draw), options.jobs, options.idle_looks)


def _write(options: argparse.Namespace, outcomes: Sequence[Outcome], began: float) -> dict[str, Any]:
    summary = summarise(outcomes, options.seed, time.monotonic() - began)
    result = {**summary, "outcomes": [describe(outcome) for outcome in outcomes]}
    if options.survivors:
        options.survivors.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _print_progress(outcomes: Sequence[Outcome]) -> None:
    summary = summarise(outcomes, 0, 0.0)
    counts = ", ".join(f"{summary[name]} {name}" for name in ("killed", "survived", "uncovered", "unclear"))
    spent = f"{summary['processor_seconds']:.0f} s of processor time"
    print(f"{summary['mutants']}: {counts}; {spent}", file=sys.stderr, flush=True)


def _print_lines_only_reached_by(options: argparse.Namespace) -> int:
    """Print them; return 1 if there are any, and 2 if a test is in no map, so that nothing is known of it."""
    ids = read_ids(options.only_reached_by)
    unknown, found = set(ids), set()
    for draw in _choose_draws(options):
        coverage = _load_map(options, draw)
        selected, not_here = select_tests(ids, coverage.tests)
        unknown &= set(not_here)
        sources = {file: (options.root / file).read_text() for file in coverage.lines}
        found |= set(find_lines_only_reached_by(selected, coverage, sources))
    for line in sorted(found):
        print(line)
    for one in sorted(unknown):
        print(f"Not among the tests of the map: {one}; name its package and all of its tests by --source and --test")
    packages = [package for draw in _choose_draws(options) for package in draw.sources]
    print(json.dumps({"tests": len(ids), "unknown": len(unknown), "lines": len(found), "packages": packages}))
    return 2 if unknown else 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
