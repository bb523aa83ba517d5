"""The lender's example holds together: its commands run as its pages print them, but for those that measure."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from r1plus_contract.suites.suite_files import SuiteFiles
from support.cli.command import run

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "lending"
SUITE = FOLDER / "lending-v1.yaml"
PAGES = (FOLDER / "README.md", ROOT / "docs" / "choosing-a-tier.md")
CHEAP = ("validate", "plan", "suite verify")
"""Verbs that only read files."""


def list_commands() -> list[str]:
    """Return the commands of the pages that are about the example and only read files."""
    blocks = [
        block
        for page in PAGES
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        if not language
    ]
    lines = {line.strip() for block in blocks for line in block.splitlines() if "examples/lending" in line}
    return sorted(line for line in lines if line.startswith(tuple(f"r1plus {verb} " for verb in CHEAP)))


def test_the_pages_have_such_commands() -> None:
    assert len(list_commands()) == 3


@pytest.mark.parametrize("command", list_commands())
def test_a_command_runs_as_it_is_printed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = run(*command.split()[1:])
    assert result.exit_code == 0, result.output


def test_the_deployment_trusts_the_key_that_signed_the_suite_and_no_other() -> None:
    spec = yaml.safe_load((FOLDER / "approvals.yaml").read_text())["spec"]["accuracy"]
    (key,) = spec["suiteKeys"]
    trusted = run("suite", "verify", SUITE, "--min-items", 100, "--trust", key)
    assert trusted.exit_code == 0, trusted.output
    other = run("suite", "verify", SUITE, "--min-items", 100, "--trust", key.swapcase())
    assert other.exit_code == 1


def test_each_item_is_one_of_the_candidates() -> None:
    script = FOLDER / "make_candidates.py"
    lines = subprocess.check_output([sys.executable, str(script)], text=True).splitlines()
    candidates = {one["id"]: one for one in map(json.loads, lines)}
    items = [json.loads(line) for line in SuiteFiles.of(yaml.safe_load(SUITE.read_text())["data"]).items.splitlines()]
    assert len(items) == 100
    assert [one for one in items if candidates.get(one["id"]) != one] == []


def test_the_routes_are_by_labels_and_values_that_alerts_have() -> None:
    routes = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())["route"]["routes"]
    namespace = yaml.safe_load((FOLDER / "approvals.yaml").read_text())["metadata"]["namespace"]
    matchers = [matcher for route in routes for matcher in route["matchers"]]
    assert matchers.count(f'namespace="{namespace}"') == len(routes)
    runbooks = (ROOT / "monitoring" / "runbooks" / "README.md").read_text()
    listed = re.search(r"`component` \(([^)]*)\)", runbooks)
    assert listed is not None
    values = {
        one for matcher in matchers if matcher.startswith("component") for one in matcher.split('"')[1].split("|")
    }
    assert values <= set(listed[1].split(", "))
    assert {matcher for matcher in matchers if matcher.startswith("severity")} == {'severity="critical"'}
