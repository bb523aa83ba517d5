"""The real promtool judges rules: which alerts fire for which series, and which mutated copies would be found out."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from devcluster import binaries
from devcluster.cache import binary
from devcluster.steps import Steps
from r1plus_operator.plan.manifests.promql import quote

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A world, and how often an alert fires in it. Series are promtool's: a value a minute, `1x60` for `1+0x60`."""

    said: str
    series: Mapping[str, str]
    firing: int
    """How many alerts of that name."""
    at: str = "45m"
    labels: Mapping[str, str] = field(default_factory=dict)
    """That one of them must have."""
    every: str = "1m"
    """How often rules are evaluated: a day of minutes is long."""


def promtool(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; build it first where the cache lacks it, since the embedded cluster does without."""
    if not binary("promtool").exists():
        binaries.build(Steps(1), ("promtool",))
    # Threads and garbage collection take two fifths more processor time in all, and tests share it.
    environment = {**os.environ, "GOMAXPROCS": "1", "GOGC": "800"}
    command = [str(binary("promtool")), *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


AT_ONCE = 4
"""How many cases one run of promtool tries: a start costs a twentieth of a second, a case with all mutants much more."""


class Judged:
    """One alert's rule and its mutants: the rule is tried in all cases, a mutant until a case finds it out.

    The shortest cases come first: they are the cheapest, and find out most mutants.
    """

    def __init__(self, folder: Path, rule: Rule, cases: Sequence[Case]) -> None:
        self.mutants = dict(mutants(rule))
        self.wrong = {cases[case].said for _, case in failures(folder, [rule], cases)}
        """Cases that do not end as they say."""
        self._folder = folder
        self._cases = cases

    @cached_property
    def survivors(self) -> set[str]:
        """Mutants that no case tells from the rule. Trying them takes most of the time."""
        survivors = set(self.mutants)
        ordered = sorted(self._cases, key=lambda case: _minutes(case.at))
        for start in range(0, len(ordered), AT_ONCE):
            if left := sorted(survivors):
                tried = [self.mutants[change] for change in left]
                found = failures(self._folder, tried, ordered[start : start + AT_ONCE])
                survivors -= {left[which] for which, _ in found}
        return survivors


def _minutes(at: str) -> int:
    return int(at[:-1]) * {"m": 1, "h": 60}[at[-1]]


def failures(folder: Path, rules: Sequence[Rule], cases: Sequence[Case]) -> set[tuple[int, int]]:
    """Which rule (by its place) does not do in which case what that says."""
    named = [{**rule, "alert": str(place)} for place, rule in enumerate(rules)]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": named}]}))
    found: set[tuple[int, int]] = set()
    for every in {case.every for case in cases}:
        tests = [_test(place, case, len(rules)) for place, case in enumerate(cases) if case.every == every]
        found |= _failed(folder, {"rule_files": ["rules.yaml"], "evaluation_interval": every, "tests": tests})
    return found


def firing_summary(folder: Path, rule: Rule, series: Mapping[str, str]) -> str:
    """Return the summary with which a rule fires on these series."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": _spread(values)} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "30m", "alertname": rule["alert"], "exp_alerts": []}],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}))
    done = promtool("test", "rules", "test.yaml", cwd=folder)
    (found,) = re.findall(r'summary="([^"]*)"', done.stdout + done.stderr)
    return str(found)


def _failed(folder: Path, file: dict[str, Any]) -> set[tuple[int, int]]:
    (folder / "test.yaml").write_text(yaml.safe_dump(file))
    done = promtool("test", "rules", "test.yaml", cwd=folder)
    told = done.stdout + done.stderr
    found = {(int(a), int(b)) for a, b in re.findall(r'alertname=\\"(\d+)\\".*?case!=\\"(\d+)\\"', told)}
    assert "parse" not in told, told
    assert bool(found) == (done.returncode != 0), told
    return found


def _test(place: int, case: Case, rules: int) -> dict[str, Any]:
    extra = "".join(f",{name}={quote(value)}" for name, value in case.labels.items())
    wanted = [("", case.firing), (extra, 1)] if extra else [("", case.firing)]
    # No alert has the label `case`: it says in promtool's complaint whose it is.
    fired = f'alertstate="firing",case!="{place}"'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": _spread(values)} for name, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{rule}",{fired}{selected}}}) or vector(0)',
                "eval_time": case.at,
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for rule in range(rules)
            for selected, value in wanted
        ],
    }


def _spread(values: str) -> str:
    return re.sub(r"(^|\s)(-?[\d.]+|NaN)x(\d+)", r"\1\2+0x\3", values)


_OPERATORS = ("==", ">=", "<=", "!=", ">", "<", " unless ", " or ", " and ")
_INVERSE = {
    "==": "!=",
    "!=": "==",
    ">=": "<",
    "<=": ">",
    ">": "<=",
    "<": ">=",
    " unless ": " and ",
    " or ": " and ",
    " and ": " or ",
}
_EDGE = {">=": ">", "<=": "<", ">": ">=", "<": "<="}


def mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """What changed, and the rule with it: each comparison, set operator, matcher and `for`, one at a time."""
    expr = rule["expr"]
    for found in re.finditer("|".join(map(re.escape, _OPERATORS)), re.sub(r"\{[^}]*\}", _blank, expr)):
        for table in (_INVERSE, _EDGE):
            if (other := table.get(found.group())) is not None:
                changed = expr[: found.start()] + other + expr[found.end() :]
                yield f"{found.group().strip()} at {found.start()} made {other.strip()}", {**rule, "expr": changed}
    for found in re.finditer(r'(\w+)(?:=~?|!=)"[^"]*"', expr):
        changed = f'{expr[: found.start()]}{found.group(1)}=~".*"{expr[found.end() :]}'
        yield f"any {found.group(1)} at {found.start()}", {**rule, "expr": changed}
    if "for" in rule:
        yield "no for", {key: value for key, value in rule.items() if key != "for"}
        yield "for made longer", {**rule, "for": "3h"}


def _blank(found: re.Match[str]) -> str:
    return " " * len(found.group())
