"""Every test that THREAT_MODEL.md names is there, and every admission policy that it counts on."""

import re
from pathlib import Path

import pytest

from support.named_tests import is_test

ROOT = Path(__file__).parents[3]
THREATS = (ROOT / "THREAT_MODEL.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.-]+(?:::\w+)?)`", THREATS)))
ROWS = [line for line in THREATS.partition("## Threats")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_is_named_is_there(named: str) -> None:
    assert is_test(named)


def test_every_threat_has_a_defence_and_a_test() -> None:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in ROWS[1:]]
    cells = [row for row in cells if set(row[0]) != {"-"}]
    assert len(cells) > 15
    assert [row[0] for row in cells if len(row) != 4 or not row[1] or not ("`" in row[2] or "e2e" in row[2])] == []


def test_every_policy_that_is_named_is_in_the_chart_and_explained() -> None:
    rendered = "".join(path.read_text() for path in (ROOT / "charts/r1plus-operator/templates").glob("*policies.yaml"))
    there = set(re.findall(r"name: \{\{ \$name \}\}-([\w-]+)\n", rendered))
    named = {
        word
        for found in re.findall(r"polic(?:y|ies) ((?:`[\w-]+`(?:, | and )?)+)", THREATS)
        for word in re.findall(r"`([\w-]+)`", found)
    }
    assert named
    assert named - there == set()
    assert {f"`...-{name}`" for name in there} - set(
        re.findall(r"`\.\.\.-[\w-]+`", (ROOT / "docs/reference/admission.md").read_text())
    ) == set()
