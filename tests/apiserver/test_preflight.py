"""`r1plus preflight` on a real API server: as an administrator, as a user without rights, and where nobody answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.apiserver_only import ApiServer
from support.apiserver.manifests import Json
from support.apiserver.people import Person
from support.cli.command import run

pytestmark = pytest.mark.apiserver


@pytest.fixture
def node(admin: Person) -> Iterator[None]:
    """A node with room, of the images' platform."""
    body = {
        "metadata": {"name": "n1", "labels": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}},
        "status": {"allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"}},
    }
    admin.do("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", **body})
    yield
    admin.do("DELETE", "/api/v1/nodes/n1")


def check(
    server: ApiServer, *words: str, user: str = "admin", groups: tuple[str, ...] = ("system:masters",)
) -> tuple[int, Json]:
    """Run preflight; returns exit status, and check -> what it says."""
    kubeconfig = server.kubeconfig_for(user, groups)
    done = run("preflight", "-o", "json", "--skip-network", "--kubeconfig", kubeconfig, *words)
    document = json.loads(done.stdout)
    return done.exit_code, {one["name"]: one for one in document["checks"]}


def test_an_administrator_sees_what_is_there_and_gets_values(
    installed_server: ApiServer, node: None, tmp_path: Path
) -> None:
    path = tmp_path / "my-values.yaml"
    status, checks = check(installed_server, "--values", str(path))
    assert checks["Kubernetes"]["result"] == "OK"
    assert checks["admission"]["result"] == "OK"
    assert "all Deny" in checks["admission"]["seen"], "the chart's own bindings"
    assert checks["rights"]["result"] == "OK", checks["rights"]
    assert checks["nodes"]["seen"] == "nodes: 1 of linux/amd64"
    assert checks["capacity"]["result"] == "OK", checks["capacity"]
    assert checks["alerts"]["result"] == "Warn"
    assert checks["API server"]["seen"] == "ports 443 at no address", "it listens on loopback only"
    written = yaml.safe_load(path.read_text())
    assert written["registry"] == {"enabled": False}, "there is no StorageClass"
    assert checks["NetworkPolicy"]["seen"] == "not proven: no pods were started"
    assert status == 0, checks


def test_a_user_without_rights_sees_what_is_missing(installed_server: ApiServer) -> None:
    status, checks = check(installed_server, "--no-values", user="olaf", groups=())
    assert status == 1
    assert checks["rights"]["result"] == "Fail"
    assert "you may not" in checks["rights"]["seen"]
    assert checks["nodes"]["seen"] == "not known: you may not list nodes"


def test_an_api_server_that_does_not_answer_is_no_failed_check(installed_server: ApiServer, tmp_path: Path) -> None:
    text = installed_server.kubeconfig_for("admin", ("system:masters",)).read_text()
    (tmp_path / "kubeconfig").write_text(text.replace(installed_server.url, "https://127.0.0.1:1"))
    done = run("preflight", "--no-values", "--kubeconfig", tmp_path / "kubeconfig")
    assert done.exception is not None
    assert getattr(done.exception, "status", None) == 2
    assert "does not answer" in str(done.exception)
