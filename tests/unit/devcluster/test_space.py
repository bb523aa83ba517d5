"""Disk: what is missing is told before anything is built, and what stays is told when the cluster goes."""

from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import down, space
from devcluster.layout import Layout, cluster_layout
from devcluster.space import GB, Need

TOO_MUCH = 10**9 * GB


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("R1PLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("R1PLUS_DEVCLUSTER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("GOPATH", "GOMODCACHE", "GOCACHE", "XDG_CACHE_HOME", "UV_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return replace(cluster_layout(), run=tmp_path / "run")


def test_what_does_not_fit_is_named_with_folder_size_and_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    said = space.shortage([Need(folder, TOO_MUCH, "images", "R1PLUS_CACHE"), Need(tmp_path, 1, "logs", "OTHER")])
    assert said.startswith("Too little disk space. ")
    assert f"GB in {folder} (images; R1PLUS_CACHE=DIR puts it elsewhere)" in said
    assert "are free" in said


def test_what_fits_is_no_matter(tmp_path: Path) -> None:
    assert space.shortage([Need(tmp_path, 1, "logs", "OTHER")]) == ""


def test_what_lies_there_already_is_not_needed_again(tmp_path: Path) -> None:
    assert space.shortage([Need(tmp_path, TOO_MUCH, "images", "R1PLUS_CACHE", holds=TOO_MUCH)]) == ""


def test_a_first_run_needs_room_for_gos_folders_as_well(layout: Layout, tmp_path: Path) -> None:
    folders = [need.folder for need in space.needs()]
    assert folders == [
        tmp_path / "cache",
        tmp_path / "state",
        tmp_path / "home" / "go" / "pkg" / "mod",
        tmp_path / "home" / ".cache" / "go-build",
    ]


def test_larger_engines_need_room_in_the_cache_and_in_the_cluster(layout: Layout) -> None:
    more = [after.bytes - before.bytes for before, after in zip(space.needs(), space.needs(more=5), strict=True)]
    assert more == [5, 5, 0, 0]


def test_used_counts_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    assert 3_000_000 <= space.used(tmp_path) < 4_000_000
    assert space.used(tmp_path / "none") == 0


def test_down_tells_what_it_stopped_and_what_it_leaves(layout: Layout, tmp_path: Path) -> None:
    for folder in (tmp_path / "cache", layout.state, tmp_path / "home" / ".cache" / "uv"):
        folder.mkdir(parents=True)
    before = {"process": ["1: etcd", "2: kubelet"], "mount": ["/a"], "network namespace": ["r1plus"], "file": ["/b"]}
    text = "\n".join(down.told(before, layout))
    assert "Stopped and removed: 2 processes, 1 mount, 1 network namespace" in text
    assert f"To remove this project's: rm -rf {tmp_path / 'cache'} {layout.state}\n" in text
    assert f"if no other project here uses Go and uv: rm -rf {tmp_path}/home/.cache/uv" in text


def test_down_without_a_cluster_says_so(layout: Layout) -> None:
    assert down.told({}, layout) == ["No cluster was running", "Nothing is kept"]
