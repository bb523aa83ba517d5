"""`make test-long NAME=cel-mutants`: does a test notice when a rule of the definitions or of the admission policies is gone?

Runs the tests against the API server once, one after the other, and notes which rule refused a request of which test. Then each
rule is dropped on the running server, and the tests that it refused something to are run again, until one fails. Prints a line
a rule and, last, a JSON line. Exits with 1 if a rule survives.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mutation.cel.rules import POLICY, Rule, find_rules
from mutation.cel.trial import FENCE, Trial
from r1plus_operator.api import fence
from support.apiserver.chart import render_objects
from support.apiserver.server import CHART_CRDS

TESTS = "tests/apiserver"
# Waits of a minute are left out; of the tests with Kubeflow's definitions, the plugin leaves out the stories.
MARKS = "(apiserver and not apiserver_long) or trainjob"
FAILED, SURVIVED, ALL_KILLED = 2, 1, 0


def list_rules() -> list[Rule]:
    """Return all rules of the chart: of its definitions, of its policies, and of the leader's fence."""
    definitions = [body for path in sorted(CHART_CRDS.glob("*.yaml")) for body in yaml.safe_load_all(path.read_text())]
    policies = [body for body in render_objects() if body["kind"] == POLICY]
    assert len(find_rules([fence.build_policy("namespace", "account")])) == 1
    return [*find_rules(definitions), *find_rules(policies), FENCE]


def main(arguments: Sequence[str] | None = None) -> int:
    """Drop each rule in turn; return 1 if one survives, 2 if a test fails while all rules are there."""
    options = _parse(arguments)
    rules = [rule for rule in list_rules() if any(part in rule.id for part in options.rule or [""])]
    if not rules:
        print(f"--rule {options.rule}: no rule has this in its id", file=sys.stderr)
        return FAILED
    trial = Trial(rules, lambda line: print(line, flush=True))
    words = ["-q", "--no-header", "--no-summary", "--capture=no", "-p", "no:cacheprovider", "-m", MARKS]
    code = pytest.main([*words, *(options.test or [TESTS])], plugins=[trial])
    survivors = {rule.id: why for rule, why in trial.survivors.items()}
    if options.report:
        killers = {rule.id: killer for rule, killer in trial.killers.items()}
        options.report.write_text(json.dumps({"killers": killers, "survivors": survivors}, indent=1) + "\n")
    for test in trial.failed:
        print(f"Failed with all rules in force, and judged none: {test}")
    for test in sorted(trial.unrepeatable):
        print(f"Fails when it is run again with all rules in force, and judged none: {test}")
    print(json.dumps({"rules": len(rules), "killed": len(trial.killers), "survivors": sorted(survivors)}))
    if len(trial.killers) + len(survivors) != len(rules):
        print(f"The run ended early: pytest's exit code is {int(code)}", file=sys.stderr)
        return FAILED
    return SURVIVED if survivors else FAILED if trial.failed else ALL_KILLED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutation.cel", description="Drop each admission rule in turn.")
    parser.add_argument("--rule", action="append", metavar="PART", help="only rules whose id has this in it")
    parser.add_argument("--test", action="append", metavar="PATH", help=f"tests to run ({TESTS})")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write which test killed which rule")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
