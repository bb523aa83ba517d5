"""What failed runs again, once: a test is red if it fails again, and a flake if it passes.

With --keep-going, as in CI, that is after all parts, when nothing else runs. The failed tests of a file share a process,
so that a cluster starts once for them.

No second run for tests that are marked `first_run_counts` (security, faults), nor for those in files that were added or
changed since the main branch: there a race is a finding. Nor where a part failed as a whole.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster.steps import Steps
from evidence.flakes import FILE, MOST_OPEN, Flake, add_flakes, format_row, list_open
from evidence.records import now, read_load
from evidence.repository import ROOT, changed_paths, find_main, git
from runner.part import TESTS_FAILED, Result, RunningPart, end_parts

FLAKES = FILE.relative_to(ROOT)
MOST_FAILURES = 40
"""More failures of one run are no chance, and would only run for long."""


def run_failures_again(results: Sequence[Result], logs: Path, steps: Steps, root: Path) -> None:
    """Run the failed tests of `results` again, those of a file together; what passes becomes a flake of its result."""
    chosen = choose_tests(results, _changed_since_main(root))
    failed = sum(len(result.failures) for result in results)
    if failed > MOST_FAILURES:
        steps.note(f"{failed} tests failed, over {MOST_FAILURES}: none runs again, this is no chance")
        return
    steps.expect(len(chosen))
    for number, (result, file, tests) in enumerate(chosen, 1):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
        part = RunningPart(
            f"again-{result.part}-{number}", logs, steps, command, title=f"again, alone: {file.removeprefix('tests/')}"
        )
        try:
            part.run_to_end()
        finally:
            end_parts([part])
        outputs = split_failures(result.log.read_text(errors="replace"))
        has_ended = set(part.result.exit_statuses) <= {0, TESTS_FAILED}
        for test in tests:
            if part.result.outcomes.get(test) == "passed" and has_ended:
                result.forgive(test, outputs.get(_title(test), result.details))


def choose_tests(results: Sequence[Result], changed: frozenset[str]) -> list[tuple[Result, str, list[str]]]:
    """Return (result, file, its tests) for what failed and may run again."""
    chosen: dict[tuple[str, str], tuple[Result, str, list[str]]] = {}
    for result in results:
        for test in result.failures if not result.own_options else ():
            file = test.partition("::")[0]
            # A file that could not be collected has no "::".
            if "::" in test and test not in result.first_run_counts and file not in changed:
                chosen.setdefault((result.part, file), (result, file, []))[2].append(test)
    return list(chosen.values())


def report_flakes(results: Sequence[Result], hogs: int, stalls: int, root: Path) -> bool:
    """Print each flake with its output, and keep it as a row of the ledger; in CI the row is printed, to be added.

    Returns whether more rows are open than a suite may have that is believed.
    """
    file = root / FLAKES
    flakes = _list_flakes(results, hogs, stalls, root)
    for flake in flakes:
        print(f"\nFLAKE in {flake.part}: {flake.test}\nIt failed, and passed when it ran again alone. What failed:")
        print(flake.output)
        if os.environ.get("CI"):
            print(f"Its row for evidence/flakes.jsonl:\n{format_row(flake)}")
    if flakes and not os.environ.get("CI"):
        add_flakes(flakes, file)
        print(
            f"\n{len(flakes)} flakes are rows of {file}: commit them; a row closes by the commit that mends its test."
        )
    open_rows = len(list_open(file))
    if open_rows > MOST_OPEN:
        print(f"\n{open_rows} rows of {file} are open, over {MOST_OPEN}: mend flaky tests first.")
    return open_rows > MOST_OPEN


def split_failures(text: str) -> dict[str, str]:
    """Return what pytest's output says of each failure, by its title: `test_name[case]`, `TestClass.test_name`."""
    parts = _TITLE.split(text)
    # The text before the first title, then titles and bodies in turn.
    return {
        title.removeprefix("ERROR at setup of ").removeprefix("ERROR at teardown of "): body.split("\n====", 1)[0]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def _list_flakes(results: Sequence[Result], hogs: int, stalls: int, root: Path) -> list[Flake]:
    seen = [(result.part, *flake) for result in results for flake in result.flakes.items()]
    if not seen:
        return []
    day, load, commit = f"{now():%Y-%m-%d}", round(read_load(), 1), git("rev-parse", "HEAD", root=root).strip()
    return [Flake(test, part, day, commit, load, hogs, stalls, output) for part, test, output in seen]


_TITLE = re.compile(r"^_+ (\S.*?) _+$", re.MULTILINE)


def _title(test: str) -> str:
    return test.partition("::")[2].replace("::", ".")


def _changed_since_main(root: Path) -> frozenset[str]:
    """Return the paths that differ from the main branch; on it, those that are not committed; outside git, none."""
    try:
        return changed_paths(find_main(root) or "HEAD", root)
    except subprocess.CalledProcessError:
        return frozenset()
