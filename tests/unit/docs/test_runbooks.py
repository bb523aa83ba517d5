"""A runbook is read at night: what it names must be there under that name."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from r1plus_cli.local import DEFAULT_FAMILY, build_config
from r1plus_cli.main import app
from r1plus_contract import gateway, metrics, names
from r1plus_contract.monitor.isolation import Against, IsolationProbe
from r1plus_operator.api import crd
from r1plus_operator.plan.manifests.alerts import AlertScope, build_rules
from r1plus_operator.plan.settings import IsolationTerms
from r1plus_operator.plan.tenancy import isolation_test_run

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "monitoring" / "runbooks"
INDEX = (FOLDER / "README.md").read_text()
PAGES = {page.stem: page.read_text() for page in sorted(FOLDER.glob("R1Plus*.md"))}
CHART = [
    rule
    for path in (ROOT / "monitoring" / "rules").glob("*.yaml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
SEVERITIES = {r["alert"]: r["labels"]["severity"] for r in (*build_rules(AlertScope("n", "d", "r"), 0.98), *CHART)}

METRICS = {value for name, value in vars(metrics).items() if name.isupper() and str(value).startswith("r1plus_")}
KINDS = {names.KIND_DEPLOYMENT, names.KIND_ENGINE, names.KIND_TENANT}
CLUSTER_WIDE = (
    "kubectl cordon NODE",
    "kubectl get validatingadmissionpolicies",
    "kubectl get clusterrolebindings -o wide",
)
NAMESPACES = "NAMESPACE|r1plus-system|r1plus-decoy|kube-system"
TERMS = IsolationTerms("r1plus-decoy", other_targets={"prometheus": "http://p:9090", "registry": "http://r:8080"})
PROBES = replace(build_config(DEFAULT_FAMILY), isolation=TERMS)
DOORS = isolation_test_run.list_connection_targets(
    IsolationProbe.CONTROL, isolation_test_run.IsolationTestRun("team", "u", "credit", {}, 0), PROBES
)
TRIES = [
    one.name
    for one in (*DOORS, *isolation_test_run.list_api_requests(PROBES))
    if getattr(one, "against", None) is not Against.OWN
]
UNWANTED = ("anew", "beside", "bears", "whoever", "whom", "likewise", "told", "stands", "hangs on", "walls?", "prober")
"""Words that a stranger misreads."""
each_page = pytest.mark.parametrize("alert", PAGES)


def verbs() -> set[str]:
    """Of the r1plus command."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return set(group.commands)


def has_field(path: str) -> bool:
    """Whether the spec of an R1PlusDeployment or of an R1PlusTenant has it."""
    return any(has_field_of(kind, path) for kind in ("r1plusdeployments", "r1plustenants"))


def has_field_of(kind: str, path: str) -> bool:
    here = crd.build_definitions()[f"r1plus.ai_{kind}.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", *path.split(".")):
        here = here.get("properties", {}).get(part)
        if here is None:
            return False
    return True


def find_on_page(pattern: str, alert: str) -> list[str]:
    """Return what a pattern finds on a page, if it finds anything on any page: else it is the pattern that is wrong."""
    assert any(re.search(pattern, page) for page in PAGES.values()), pattern
    return re.findall(pattern, PAGES[alert])


def test_there_is_a_page_per_alert_and_no_other() -> None:
    assert set(PAGES) == set(SEVERITIES) == {v for k, v in vars(metrics).items() if k.startswith("ALERT_")}


def test_the_index_names_every_alert_with_its_severity() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", INDEX, re.MULTILINE)
    assert {name: severity for name, _, severity in rows} == SEVERITIES
    assert all(name == page for name, page, _ in rows)


@each_page
def test_every_section_says_something(alert: str) -> None:
    sections = re.split(r"^## ", PAGES[alert], flags=re.MULTILINE)
    assert sections[0] == f"# {alert}\n\n"
    headings = re.findall(r"^#+ (.*)$", PAGES[alert], re.MULTILINE)
    assert headings == [alert, "What is wrong", "What users notice", "How to see it", "What to do", "Why it happens"]
    assert len(sections) == len(headings)
    assert all(len(section) > 50 for section in sections[1:])
    assert "`r1plus " in PAGES[alert] or "`kubectl " in PAGES[alert]


@each_page
def test_sentences_are_short_and_plain(alert: str) -> None:
    text = re.sub(r"`[^`]+`|\([^()]*\.md[^()]*\)", "CODE", PAGES[alert].replace("\n  ", " "))
    sentences = re.split(r"(?<=[.?])\s|:\s|\n\n|\n- | \| ", text)
    assert [one for one in sentences if len(one.split()) > 25] == []
    assert [word for word in UNWANTED if re.search(rf"\b{word}\b", text)] == []


@each_page
def test_every_verb_of_r1plus_exists(alert: str) -> None:
    named = set(find_on_page(r"`r1plus ([a-z]+)", alert))
    assert named <= verbs(), named


@each_page
def test_who_intervenes_says_why(alert: str) -> None:
    for command in find_on_page(r"`(r1plus (?:rollback|pin|unpin|ack) [^`]+)`", alert):
        assert command.split()[2:5] == ["NAME", "-n", "NAMESPACE"]
        assert command.endswith('--reason "..."')


@each_page
def test_every_metric_exists(alert: str) -> None:
    named = set(find_on_page(r"\br1plus_\w+", alert))
    assert named <= METRICS, named - METRICS


@each_page
def test_every_field_exists(alert: str) -> None:
    named = set(find_on_page(r"`spec\.([A-Za-z.]+)", alert))
    assert [field for field in named if not has_field(field)] == []


@each_page
def test_every_label_container_and_other_alert_exists(alert: str) -> None:
    keys = {value for value in (*vars(names).values(), gateway.LABEL_GATEWAY) if isinstance(value, str)}
    assert set(find_on_page(r"r1plus\.ai/[a-z-]+", alert)) <= keys
    assert set(find_on_page(r" -c (\w+)", alert)) <= {names.CONTAINER_TRITON, names.CONTAINER_MONITOR}
    assert set(find_on_page(r"R1Plus[A-Z]\w+", alert)) <= set(SEVERITIES) | KINDS


@each_page
def test_every_command_of_kubectl_says_where(alert: str) -> None:
    for command in find_on_page(r"`(kubectl [^`]+)`", alert):
        assert command in CLUSTER_WIDE or re.search(rf" -n ({NAMESPACES})\b", command), command


@pytest.mark.parametrize("name", TRIES)
def test_what_the_prober_may_find_open_is_explained(name: str) -> None:
    assert re.search(rf"^\| .*`{name.partition(':')[0]}[`:].* \|", PAGES[metrics.ALERT_ISOLATION_BROKEN], re.MULTILINE)
