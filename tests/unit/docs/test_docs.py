"""Documents keep up with the code: every reason has its page, and what README shows is valid."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_cli.deployment.validate import find_problems
from r1plus_cli.documents import Document
from r1plus_cli.local import DEFAULT_FAMILY, SHIPPED_CATALOG, build_config, load_engines
from r1plus_contract import metrics, names
from r1plus_operator.api import crd
from r1plus_operator.api.conditions import KSTATUS_CONDITIONS, ConditionType, Reason
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import R1PlusDeploymentSpec

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
README_TOP = "\n".join(README.splitlines()[:60])
"""What a reader has to read before a first try."""
CONDITIONS = (ROOT / "docs" / "conditions.md").read_text()
ISOLATION = (ROOT / "docs" / "isolation.md").read_text()
ISOLATION_REASONS = (ROOT / "docs" / "reference" / "isolation.md").read_text()
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "monitoring/runbooks/*.md", "monitoring/suites/*.md", "changelog.d/*.md")
    for page in ROOT.glob(pattern)
)


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 130
    assert {"make quickstart", "make demo", "make down"} <= set(re.findall(r"^make [a-z]+", README_TOP, re.MULTILINE))


def test_the_snippet_in_the_readme_is_the_example_that_the_demo_runs() -> None:
    _, _, code = (ROOT / "examples" / "ask.py").read_text().partition('"""\n\n')
    assert f"```python\n{code}```\n" in README


def test_the_deployment_in_the_readme_is_valid() -> None:
    body = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])

    assert find_problems(Document("README.md", body), load_engines(SHIPPED_CATALOG), build_config(DEFAULT_FAMILY)) == []


def test_the_table_in_the_readme_has_the_columns_that_kubectl_prints() -> None:
    version = crd.build_definitions()["r1plus.ai_r1plusdeployments.yaml"]["spec"]["versions"][0]
    columns = ["NAME", *(column["name"].upper() for column in version["additionalPrinterColumns"])]
    tables = [block.splitlines()[1:] for block in re.findall(r"```text\n(.*?)```", README, re.DOTALL)]

    assert [heads.split() for heads, *_ in tables] == [["NAMESPACE", *columns], columns]
    for _, *rows in tables:
        assert {row.split()[-2] for row in rows} <= set(Reason)


def test_troubleshooting_names_conditions_and_reasons_that_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", row)}

    assert len(rows) >= 20
    assert named - set(Reason) - set(ConditionType) == {"ImagePullBackOff", "QueueFull"}  # Kubernetes', the engine's


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
    long = set(re.findall(r"^\| `(?:True|False|Unknown)` `(\w+)` \|", ISOLATION_REASONS, re.MULTILINE))

    assert short | {Reason.PENDING} == long


@pytest.mark.parametrize("kind", list(ConditionType))
def test_every_condition_has_its_section(kind: ConditionType) -> None:
    assert f"\n## {kind}: " in CONDITIONS or (kind in KSTATUS_CONDITIONS and f"`{kind}`" in CONDITIONS)


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
    prose = re.sub(r"`[^`\n]*`", "", page.read_text())
    links = [link for link in re.findall(r"(?<!\\)\]\(([^)]+)\)", prose) if "://" not in link]

    assert [link for link in links if not leads_somewhere(page, link)] == []


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of all values that are no mapping."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def is_listed(name: str, page: str) -> bool:
    """Return whether a reference page has a name."""
    return f"`{name}`" in page or f"[{name}]" in page


def test_the_reference_has_every_value_field_metric_and_label() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")}
    values = yaml.safe_load((ROOT / "charts" / "r1plus-operator" / "values.yaml").read_text())
    fields = [field.alias or name for name, field in R1PlusDeploymentSpec.model_fields.items()]
    exported = [text for name, text in vars(metrics).items() if name.isupper() and isinstance(text, str)]
    written = [text for name, text in vars(names).items() if name.startswith(("LABEL_", "ANNOTATION_"))]
    wanted = {"api": [f"spec.{field}" for field in fields], "labels": written, "metrics": exported}
    assert all(wanted.values())
    missing = [one for page, names_of in wanted.items() for one in names_of if not is_listed(one, pages[page])]
    # A mapping that has a line of its own needs none for each value in it.
    missing += [
        path
        for path in leaves(values)
        if not any(is_listed(one, pages["values"]) for one in (path, path.rpartition(".")[0]) if one)
    ]
    assert missing == []


TEXTS = (".py", ".md", ".yaml", ".yml", ".toml", ".tpl", ".sh", "Makefile", "Containerfile")
TREES = "charts|docs|examples|gateway|edge|model_repo|monitoring|operator|policies|tests"
POINTERS = (
    re.compile(rf"(?<![\w./-])((?:{TREES})/[\w./-]+\.(?:py|md|yaml|json|jsonl|toml|pbtxt))(?![\w*{{-])"),
    re.compile(r"(?<![\w./-])([A-Z][A-Z_]{3,}\.md)\b"),
)
"""Paths from the root, and pages beside it."""
TOYS = ("tests/unit/evidence/", "tests/unit/mutation/", "tests/unit/runner/test_second_run.py")
POINTS_ELSEWHERE = ("CHANGELOG.md", "tests/golden/", "tests/unit/docs/test_docs.py", *TOYS)
"""Texts that speak of what was there once, or of what is nowhere: toy projects of tests have files of their own."""
NOT_OURS = frozenset({"NAME.md", "PULL_REQUEST_TEMPLATE.md", "examples/bindings/executor/example_advanced.py"})
"""A placeholder, a file below .github, and one of TensorRT-LLM."""


def pointing_texts() -> list[str]:
    """Return every text of the repository that may point at a file."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [name for name in listed if name.endswith(TEXTS) and not name.startswith(POINTS_ELSEWHERE)]


@pytest.mark.unit_slow
def test_no_text_or_comment_points_at_a_file_that_is_not_there() -> None:
    pointers = [
        (name, pointer)
        for name in pointing_texts()
        for pattern in POINTERS
        for pointer in pattern.findall((ROOT / name).read_text())
    ]
    assert len(pointers) > 100
    missing = [
        (name, pointer) for name, pointer in pointers if not (ROOT / pointer).exists() and pointer not in NOT_OURS
    ]
    # A link of a page is relative to its folder: docs/ has folders named as those of the code.
    assert [
        (name, pointer)
        for name, pointer in missing
        if not (name.endswith(".md") and (ROOT / name).parent.joinpath(pointer).exists())
    ] == []
