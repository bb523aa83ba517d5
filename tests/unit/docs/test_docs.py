"""Documents keep up with the code: every reason and every alert has its page, and what README shows is valid."""

import re
from pathlib import Path

import pytest
import yaml

from r1plus_cli.documents import Document
from r1plus_cli.local import DEFAULT_FAMILY, SHIPPED_CATALOG, config_for, engines_in
from r1plus_cli.validate import problems_of
from r1plus_contract import metrics
from r1plus_operator.api.conditions import ConditionType, Reason

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
CONDITIONS = (ROOT / "docs" / "conditions.md").read_text()
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/conditions.md",
    "docs/admission.md",
    "docs/suites.md",
    "docs/upgrades.md",
    "monitoring/runbooks/README.md",
)


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 150


def test_the_deployment_in_the_readme_is_valid() -> None:
    body = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])

    assert problems_of(Document("README.md", body), engines_in(SHIPPED_CATALOG), config_for(DEFAULT_FAMILY)) == []


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    assert f"`{reason}`" in CONDITIONS


@pytest.mark.parametrize("kind", list(ConditionType))
def test_every_condition_has_its_section(kind: ConditionType) -> None:
    assert f"\n## {kind}: " in CONDITIONS


@pytest.mark.parametrize("alert", [value for name, value in vars(metrics).items() if name.startswith("ALERT_")])
def test_every_alert_has_a_runbook(alert: str) -> None:
    page = (ROOT / "monitoring" / "runbooks" / f"{alert}.md").read_text()

    assert re.findall(r"^#+ (.*)$", page, re.MULTILINE) == [alert, "Meaning", "Impact", "Diagnosis", "Mitigation"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]

    assert [link for link in links if link and not (ROOT / page).parent.joinpath(link).exists()] == []
