"""Whose cluster KUBECONFIG names: what the demo says to export chooses no other one."""

import os
from pathlib import Path

import pytest

from devcluster import kubeconfig
from devcluster.layout import cluster_layout


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the embedded cluster has its kubeconfig; the file itself is not there, as after make down."""
    monkeypatch.setenv("R1PLUS_DEVCLUSTER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    path = cluster_layout().kubeconfig("admin")
    assert path.is_relative_to(tmp_path)
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Of a cluster of the user's own."""
    path = tmp_path / "own.kubeconfig"
    path.write_text("{}")
    return path


def test_without_the_variable_the_embedded_cluster_is_meant(embedded: Path) -> None:
    assert kubeconfig.of_ones_own({}) is None
    assert kubeconfig.of_ones_own({"KUBECONFIG": ""}) is None


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("way", ["as printed", "relative", "through a link", "twice"])
def test_the_embedded_clusters_kubeconfig_is_none_of_ones_own(
    way: str, running: bool, embedded: Path, tmp_path: Path
) -> None:
    if running:
        embedded.parent.mkdir(parents=True)
        embedded.write_text("{}")
    (tmp_path / "link").symlink_to(embedded)
    named = {
        "as printed": str(embedded),
        "relative": os.path.relpath(embedded),
        "through a link": str(tmp_path / "link"),
        "twice": f"{embedded}{os.pathsep}{tmp_path / 'link'}",
    }[way]
    assert kubeconfig.of_ones_own({"KUBECONFIG": named}) is None
    assert kubeconfig.names_embedded({"KUBECONFIG": named})


def test_a_cluster_of_ones_own_is_taken(embedded: Path, own: Path) -> None:
    assert kubeconfig.of_ones_own({"KUBECONFIG": str(own)}) == own
    assert not kubeconfig.names_embedded({"KUBECONFIG": str(own)})
    assert kubeconfig.of_ones_own({"KUBECONFIG": f"{embedded}{os.pathsep}{own}"}) == own


def test_a_copy_of_the_embedded_one_is_ones_own(embedded: Path, own: Path) -> None:
    embedded.parent.mkdir(parents=True)
    embedded.write_text(own.read_text())
    assert kubeconfig.of_ones_own({"KUBECONFIG": str(own)}) == own


def test_a_file_that_is_not_there_is_named(embedded: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"/gone, which is not there: .*unset KUBECONFIG"):
        kubeconfig.of_ones_own({"KUBECONFIG": str(tmp_path / "gone")})


def test_two_clusters_of_ones_own_are_one_too_many(embedded: Path, own: Path) -> None:
    with pytest.raises(RuntimeError, match="names 2 files"):
        kubeconfig.of_ones_own({"KUBECONFIG": f"{own}{os.pathsep}/other"})
