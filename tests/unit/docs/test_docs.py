"""Documents keep up with the code: every reason has its page, and what README shows is valid."""

import re
from pathlib import Path

import pytest
import yaml

from r1plus_cli.documents import Document
from r1plus_cli.local import DEFAULT_FAMILY, SHIPPED_CATALOG, build_config, load_engines
from r1plus_cli.validate import find_problems
from r1plus_contract import names
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.tenants import R1PlusTenantSpec

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
CONDITIONS = (ROOT / "docs" / "conditions.md").read_text()
ISOLATION = (ROOT / "docs" / "isolation.md").read_text()
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "monitoring/runbooks/*.md", "monitoring/suites/*.md")
    for page in ROOT.glob(pattern)
)


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 150


def test_the_deployment_in_the_readme_is_valid() -> None:
    body = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])

    assert find_problems(Document("README.md", body), load_engines(SHIPPED_CATALOG), build_config(DEFAULT_FAMILY)) == []


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    assert f"`{reason}`" in CONDITIONS


def test_the_tenant_in_the_documentation_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", ISOLATION, re.DOTALL)
    namespace, tenant = yaml.safe_load_all(text)

    assert namespace["metadata"]["labels"] == {names.LABEL_TENANT: "true", names.LABEL_POD_SECURITY: "restricted"}
    assert (tenant["kind"], tenant["apiVersion"]) == (names.KIND_TENANT, names.API_VERSION)
    assert tenant["metadata"] == {"name": names.TENANT, "namespace": namespace["metadata"]["name"]}
    spec = R1PlusTenantSpec.model_validate(tenant["spec"])
    assert all(getattr(spec, field) != getattr(R1PlusTenantSpec(), field) for field in R1PlusTenantSpec.model_fields)


def test_isolation_is_explained_alike_in_both_places() -> None:
    section = CONDITIONS.partition("\n## IsolationVerified: ")[2].partition("\n## ")[0]
    short = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    long = set(re.findall(r"^\| `(?:True|False|Unknown)` `(\w+)` \|", ISOLATION, re.MULTILINE))

    assert short | {Reason.PENDING} == long


@pytest.mark.parametrize("kind", list(ConditionType))
def test_every_condition_has_its_section(kind: ConditionType) -> None:
    assert f"\n## {kind}: " in CONDITIONS


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether the file is there, and in it the heading."""
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]

    assert [link for link in links if not leads_somewhere(page, link)] == []
