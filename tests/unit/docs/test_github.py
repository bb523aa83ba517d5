"""Files below .github: workflows call targets that exist and may write little; forms and Renovate's groups are whole."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.runner.toy_project import run, write_project
from support.toy_repository import ToyRepository

ROOT = Path(__file__).parents[3]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((GITHUB / "workflows").glob("*.yaml"))}
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yaml"))
RENOVATE = json.loads((GITHUB / "renovate.json").read_text())
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def list_steps(name: str) -> list[dict[str, Any]]:
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]


def list_targets(script: str) -> set[str]:
    """Return the targets that a script makes."""
    return set(re.findall(r"(?:^|[;&|] *)make ([a-z][a-z0-9-]*)", script, re.MULTILINE))


def test_the_workflows_are_those_that_contributing_speaks_of() -> None:
    assert set(WORKFLOWS) == {"ci", "nightly", "audit", "release"}


@each_workflow
def test_a_workflow_calls_targets_and_programs_that_exist(name: str) -> None:
    scripts = "\n".join(step.get("run", "") for step in list_steps(name))
    there = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert list_targets(scripts) - there == set()
    assert [path for path in re.findall(r"(?:^|\s)(\.ci/\S+)", scripts) if not os.access(ROOT / path, os.X_OK)] == []
    assert list_targets(scripts) or ".ci/run" in scripts


def test_targets_are_found_at_the_beginning_of_commands() -> None:
    assert list_targets("make audit\ncd x && make check\napt-get install git make curl\n") == {"audit", "check"}


@each_workflow
def test_an_action_is_pinned_by_its_commit(name: str) -> None:
    used = re.findall(r"uses: (.*)", (GITHUB / "workflows" / f"{name}.yaml").read_text())
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


@each_workflow
def test_a_workflow_may_write_nothing_by_itself(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] in ({}, {"contents": "read"})
    # In YAML 1.1 the word `on` is true.
    assert "pull_request_target" not in workflow[True]
    assert "workflow_run" not in workflow[True]
    text = (GITHUB / "workflows" / f"{name}.yaml").read_text()
    assert re.findall(r"secrets\.(\w+)", text) == (["RELEASE_SIGNING_KEY"] if name == "release" else [])


def test_the_key_of_releases_is_of_an_environment_that_a_person_approves_and_of_a_job_that_writes_nothing() -> None:
    make, push = (WORKFLOWS["release"]["jobs"][name] for name in ("make", "push"))
    assert (make["environment"], make["permissions"]) == ("release", {"contents": "read"})
    assert "secrets." not in yaml.safe_dump(push)
    assert list(WORKFLOWS["release"][True]) == ["push"]
    assert list(WORKFLOWS["release"][True]["push"]) == ["tags"]


@each_workflow
def test_a_job_that_may_write_runs_no_code_of_the_repository(name: str) -> None:
    for job in WORKFLOWS[name]["jobs"].values():
        if "write" in job.get("permissions", {}).values():
            assert list_targets("\n".join(step.get("run", "") for step in job["steps"])) == set()
            assert job["runs-on"] == "ubuntu-24.04"


@each_workflow
def test_a_script_takes_what_a_person_typed_by_its_environment_only(name: str) -> None:
    assert [step["run"] for step in list_steps(name) if "${{" in step.get("run", "")] == []


def find_step(name: str, words: str) -> str:
    (script,) = [step["run"] for step in list_steps(name) if step.get("name", "").startswith(words)]
    return str(script)


def summarize(folder: Path) -> str:
    """Run the summary's step of ci in `folder`, and return what it writes."""
    env = {**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    subprocess.run(["bash", "-eo", "pipefail", "-c", find_step("ci", "Summarise")], cwd=folder, env=env, check=True)
    return (folder / "summary.md").read_text()


@pytest.mark.unit_slow
def test_the_summary_names_what_failed_how_to_run_it_alone_and_flakes(tmp_path: Path) -> None:
    repository = ToyRepository(tmp_path)
    write_project(tmp_path)
    repository.commit({".gitignore": "build/\n__pycache__/\n"})
    _, output = run(tmp_path, "bad", "flaky", "--keep-going", in_ci=True)
    (tmp_path / "build" / "ci.log").write_text(output)
    summary = summarize(tmp_path)
    assert "failed: test_bad.py::test_breaks" in summary
    assert "alone: .venv/bin/pytest 'test_bad.py::test_breaks'" in summary
    assert "FLAKE in flaky: test_flaky.py::test_chance[1]" in summary
    assert re.search(r"^\d+ passed, \d+ failed, \d+ skipped$", summary, re.MULTILINE)


def test_the_summary_of_a_run_that_did_not_end_says_so(tmp_path: Path) -> None:
    assert "It did not come to its end." in summarize(tmp_path)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_asks_for_and_some_answer_that_must_be_given(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    ids = [part["id"] for part in questions]
    assert form["name"]
    assert form["description"]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in questions)
    assert any(part.get("validations", {}).get("required") for part in questions)


def test_the_forms_are_for_bugs_and_features() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature"]


def test_a_pull_request_is_asked_for_behaviour_proof_and_evidence() -> None:
    text = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Behaviour", "Proof", "Evidence"]
    assert "`make evidence`" in text


def test_every_path_has_an_owner() -> None:
    assert (GITHUB / "CODEOWNERS").read_text() == "* @r1plus/maintainers\n"


def list_dependencies() -> Iterator[str]:
    """Yield the names of what the package and its extras depend on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in (
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ):
        name = re.split(r"[\[<>=;~! ]", line)[0]
        if name != project["name"]:
            yield name


def test_renovate_has_every_dependency_in_one_group() -> None:
    groups = [rule for rule in RENOVATE["packageRules"] if rule["matchManagers"] == ["pep621"]]
    grouped = [name for rule in groups for name in rule["matchPackageNames"]]
    assert sorted(grouped) == sorted(set(list_dependencies()))
    assert all(rule["groupName"] for rule in groups)


def test_renovate_looks_at_files_that_are_there() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "devcluster" / "go").rglob("go.mod")}
    named = {pattern for rule in RENOVATE["packageRules"] for pattern in rule.get("matchFileNames", [])}
    assert [pattern for pattern in named if not any(fnmatch(file, pattern) for file in files)] == []
    assert [
        file for file in files if not any(fnmatch(file, pattern) for pattern in named - {"tests/devcluster/go/**"})
    ] == []


@pytest.mark.parametrize("manager", RENOVATE["customManagers"], ids=lambda manager: manager["depNameTemplate"])
def test_renovate_finds_the_version_of_a_tool(manager: dict[str, Any]) -> None:
    (file,) = manager["managerFilePatterns"]
    path = ROOT / file.strip("/^$").replace("\\", "")
    pattern = manager["matchStrings"][0].replace("(?<", "(?P<")
    found = [match["currentValue"] for match in re.finditer(pattern, path.read_text())]
    assert len(found) == 1
    assert re.fullmatch(r"\d+\.\d+\.\d+", found[0])
