"""Run parts of the tests, say where each is, and leave nothing running: `python -m runner [--keep-going] unit e2e`.

A part is a target of the Makefile. `make test`, `make test-fast` and `make test-flaky` call this; `make PART` runs one part without it.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from devcluster import down as teardown
from devcluster import host
from devcluster.layout import cluster_layout
from devcluster.steps import Steps
from evidence.flakes import FlakeError, list_open
from evidence.recording import INSIDE, BusyError, Recording, hold_machine
from evidence.targets import load_targets
from runner import flaky
from runner.hogs import hog_cores
from runner.lanes import run_lanes
from runner.part import Result
from runner.processes import adopt_orphans, descendants, end_descendants
from runner.second_run import FLAKES, report_flakes, run_failures_again
from runner.stalls import stall_processes

LOGS = Path("build/test-logs")


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every part passed, 1 if one failed, 130 after an interrupt."""
    options = _parser().parse_args(arguments)
    adopt_orphans()
    with _left_clean(), hog_cores(options.hogs), stall_processes(options.stalls):
        if options.repeat:
            load = {"hogs": options.hogs, "stalls": options.stalls}
            return flaky.repeat_parts(options.parts, options.repeat, LOGS, load)
        return _run_parts(options)


def _run_parts(options: argparse.Namespace) -> int:
    steps = Steps(len(options.parts) + len(options.beside) + len(options.last))
    try:
        list_open(Path.cwd() / FLAKES)
    except FlakeError as error:
        print(error)
        return 2
    with contextlib.ExitStack() as stack:
        recording = _start_recording(options, stack)
        return _run_all(options, steps, recording)


def _run_all(options: argparse.Namespace, steps: Steps, recording: Recording | None) -> int:
    root = Path.cwd()

    def should_stop(result: Result) -> bool:
        """Without --keep-going what failed runs again at once, so that a real failure ends the run early."""
        if options.keep_going or not result.failed:
            return False
        run_failures_again([result], LOGS, steps, root)
        return bool(result.failed)

    results = run_lanes((options.parts, options.beside), LOGS, steps, should_stop=should_stop)
    has_all = len(results) == len(options.parts) + len(options.beside)
    if has_all and (options.keep_going or not any(result.failed for result in results)):
        results += run_lanes([options.last], LOGS, steps, should_stop=should_stop)
    if options.keep_going:
        run_failures_again(results, LOGS, steps, root)
    _print_slowest(results, options.slowest)
    for result in results:
        _print_failures(result)
    is_red = report_flakes(results, options.hogs, options.stalls, root) or any(result.failed for result in results)
    ended = {result.part for result in results}
    if absent := [part for part in (*options.parts, *options.beside, *options.last) if part not in ended]:
        print(f"\nStopped, or not run, since a part had failed: {', '.join(absent)}")
        is_red = True
    figures = _summarize(results, steps.elapsed, options.hogs)
    if recording:
        recording.end(int(is_red), figures)
    print(json.dumps(figures))
    passed, failed, skipped = (sum(getattr(r, what) for r in results) for what in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(is_red)


def _start_recording(options: argparse.Namespace, stack: contextlib.ExitStack) -> Recording | None:
    """Return the recording of a whole run without hogs, stalls or options of pytest, while `stack` holds the machine."""
    is_plain = options.record and not (options.hogs or options.stalls or os.environ.get("PYTEST_ADDOPTS"))
    if not is_plain or os.environ.get("CI") or INSIDE in os.environ:
        return None
    try:
        stack.enter_context(hold_machine(options.record))
    except BusyError as error:
        print(f"Not recorded: {error}")
        return None
    return Recording(load_targets()[options.record], lambda line: print(line, flush=True))


def _print_failures(result: Result) -> None:
    """Print what failed and how to run it alone; the log's last lines where no test is to blame."""
    if not result.failed:
        return
    print(f"\nFAILED in {result.part}; the whole output: {result.log}")
    if result.details:
        print(result.details)
    for test in result.failures:
        print(f"  failed: {test}\n   alone: .venv/bin/pytest '{test}'")
    print(f"  the part alone: make {result.part}")


def _print_slowest(results: Sequence[Result], count: int) -> None:
    for result in results if count else ():
        print(f"\n{result.part}: the slowest {count} (a setup is that of its fixtures)")
        for seconds, when, test in sorted(result.durations, reverse=True)[:count]:
            print(f"  {seconds:7.1f} s  {when:<8}  {test}")


def _summarize(results: Sequence[Result], seconds: float, hogs: int) -> dict[str, Any]:
    """Return the figures of a run: seconds of each part on the clock and of processors, tests, flakes."""
    return {
        "seconds": round(seconds),
        "hogs": hogs,
        "passed": sum(result.passed for result in results),
        "failed": sum(result.failed for result in results),
        "flakes": sorted(test for result in results for test in result.flakes),
        "parts": {
            result.part: {
                "seconds": round(result.seconds),
                "cpu_seconds": round(result.cpu_seconds, 1),
                "passed": result.passed,
            }
            for result in results
        },
    }


@contextlib.contextmanager
def _left_clean() -> Iterator[None]:
    """End every process that is left, also after an interrupt; with R1PLUS_KEEP the embedded cluster stays."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted: ending what was started", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        # A cluster that is no descendant was there before this run.
        of_cluster = set(host.cgroup_pids()) & set(descendants())
        keeps_cluster = bool(os.environ.get("R1PLUS_KEEP"))
        end_descendants(spared=of_cluster if keeps_cluster else ())
        if of_cluster and not keeps_cluster:
            teardown.down(cluster_layout())  # Its mounts, namespace and cgroups, too.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runner", description=__doc__)
    parser.add_argument("parts", nargs="+", metavar="PART", help="targets of the Makefile, in this order")
    parser.add_argument("--beside", nargs="+", default=[], metavar="PART", help="parts that run at the same time")
    parser.add_argument("--last", nargs="+", default=[], metavar="PART", help="parts that run once those are over")
    parser.add_argument("--keep-going", action="store_true", help="run the other parts after one has failed")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="list the N slowest tests of each part")
    parser.add_argument("--hogs", type=int, default=0, metavar="N", help="keep N processes busy beside the tests")
    parser.add_argument(
        "--stalls", type=int, default=0, metavar="SEED", help="stop all tests for moments, as a machine does"
    )
    parser.add_argument(
        "--record", default="", metavar="TARGET", help="write a record of this target of evidence/targets.toml"
    )
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="run each part N times; a JSON line last")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
