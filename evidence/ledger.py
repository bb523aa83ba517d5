"""The ledger of evidence: `make evidence` prints what the code has outrun; long targets record themselves through it.

python -m evidence.ledger report [--minutes 60] [--run]    what is stale, missing, failed, and the order to measure in
python -m evidence.ledger run TARGET -- COMMAND            run a long target and record it
python -m evidence.ledger check                            refuse records that cannot be believed
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from evidence import flakes, report
from evidence.recording import BusyError, run_target
from evidence.repository import ROOT
from evidence.targets import TargetError, find_target, load_targets

USAGE_STATUS = 2


def main(arguments: Sequence[str]) -> int:
    """Return the exit status of a verb."""
    words = list(arguments)
    split = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:split])
    options.command = words[split + 1 :]
    try:
        return int(options.verb(options))
    except (BusyError, TargetError, flakes.FlakeError) as error:
        print(error, file=sys.stderr)
        return USAGE_STATUS


def _run(options: argparse.Namespace) -> int:
    given = tuple(shlex.split(options.variables))
    target = find_target(options.target, given, load_targets())
    if target is None:
        call = shlex.join(["make", options.target, *given])
        _say(f"Not recorded: evidence/targets.toml has no table for `{call}`")
    return run_target(target, options.command, _say)


def _report(options: argparse.Namespace) -> int:
    order = report.print_report(report.judge_targets(), options.minutes, len(flakes.list_open()))
    if not options.run:
        return 0
    # What make was called with here is for none of the targets.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    statuses = [
        subprocess.run(shlex.split(one.target.command), cwd=ROOT, env=env, check=False).returncode for one in order
    ]
    _say("The records are new: `make generate` writes their figures into the pages")
    return int(any(statuses))


def _check(_: argparse.Namespace) -> int:
    wrong = report.check_records()
    flakes.read_flakes()
    for line in wrong:
        print(line, file=sys.stderr)
    return int(bool(wrong))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evidence.ledger", description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run", help="run a target of the Makefile, `-- COMMAND`, and record it")
    run.add_argument("target")
    run.add_argument(
        "--variables", default=os.environ.get("R1PLUS_VARIABLES", ""), help="variables of the call to make"
    )
    run.set_defaults(verb=_run)
    shown = verbs.add_parser("report", help="print what is stale, missing and failed")
    shown.add_argument("--minutes", type=float, default=60.0, help="time to measure in")
    shown.add_argument("--run", action="store_true", help="measure what fits into that time")
    shown.set_defaults(verb=_report)
    checked = verbs.add_parser("check", help="refuse records that cannot be believed")
    checked.set_defaults(verb=_check)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
