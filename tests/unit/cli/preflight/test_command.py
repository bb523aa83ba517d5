"""`r1plus preflight` as it is typed: what it prints, and what it refuses before it asks a cluster."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_cli.errors import UsageError
from r1plus_cli.preflight.checks import list_rights, run_checks
from r1plus_cli.preflight.cluster_view import ClusterView
from r1plus_cli.preflight.preflight_command import build_document, show_results
from support.cli.cluster_api import GOOD, UNUSUAL, node
from support.cli.command import printed, run
from support.tables import for_each


def allowed(view: ClusterView) -> ClusterView:
    """The same cluster before a user who may do everything."""
    return replace(view, rights=dict.fromkeys(list_rights(view.served), True))


@for_each("view, lines", {
    "a cluster that is ready says so": (allowed(GOOD), ["this cluster is ready for r1plus: 14 checks, 0 failed, 0 with a warning"]),
    "a warning says why and what to do": (
        allowed(UNUSUAL),
        ["storage: Warn", "Why: the registry's record and tenants' gateways are on volumes.", "To do: install a StorageClass", "0 failed, 2 with a warning"],
    ),
    "a failure comes with both as well": (
        allowed(replace(GOOD, nodes=(node("a", arch="arm64"),))),
        ["nodes: Fail", "To do: add nodes of linux/amd64", "this cluster is not ready yet for r1plus"],
    ),
})  # fmt: skip
def test_what_is_printed_tells_a_person_what_to_do(
    view: ClusterView, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(show_results, run_checks(view)) + capsys.readouterr().out
    assert [line for line in lines if line not in text] == [], text


def test_json_has_every_check_with_its_values() -> None:
    document = build_document(run_checks(allowed(UNUSUAL)))
    checks = document["checks"]
    assert document["result"] == "Warn"
    assert isinstance(checks, list)
    assert {key for one in checks for key in one} == {"name", "result", "seen", "why", "remedy", "values"}
    assert next(one for one in checks if one["name"] == "storage")["values"] == {"registry.enabled": False}


def test_a_changed_file_is_refused_before_a_cluster_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "my-values.yaml"
    path.write_text("workers: 3\n")
    done = run("preflight", "--values", path, "--kubeconfig", tmp_path / "none")
    assert isinstance(done.exception, UsageError)
    assert "--force to overwrite it, or --no-values" in str(done.exception)
    assert path.read_text() == "workers: 3\n"


def test_without_a_cluster_it_is_used_wrongly_and_nothing_failed(tmp_path: Path) -> None:
    done = run("preflight", "--no-values", "--kubeconfig", tmp_path / "none")
    assert isinstance(done.exception, UsageError)
    assert done.exception.status == 2
    assert "No cluster is configured" in str(done.exception)


def test_other_commands_start_without_the_kubernetes_client() -> None:
    code = "import sys, r1plus_cli.main; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
