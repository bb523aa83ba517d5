"""The cache: keyed by version, whole or absent, one builder at a time."""

import os
from pathlib import Path

import pytest

from devcluster.cache import cache_dir, staged
from devcluster.parts import GO_BINARIES, KUBERNETES, GoBinary, convert_prometheus_version, go_binary, required
from evidence.recording import find_cache
from support.tables import for_each


def test_an_unknown_program_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="kube-apiserver"):
        go_binary("kube-apiservr")


def test_a_build_that_fails_leaves_neither_target_nor_scratch(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged(tmp_path / "tool") as made:
        made.write_text("half")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_succeeds_leaves_the_target_only(tmp_path: Path) -> None:
    with staged(tmp_path / "tool") as made:
        made.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


def test_every_program_is_a_tool_of_its_module() -> None:
    def listed(part: GoBinary) -> bool:
        package = part.package.replace("./", "r1plus.ai/devcluster/addons/")
        text = (part.folder / "go.mod").read_text()
        return any(f"{before}{package}\n" in text for before in ("\t", "tool "))

    assert [part.name for part in GO_BINARIES if not listed(part)] == []


def test_a_module_that_is_not_required_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match=r"k8s\.io/kubernets"):
        required("k8s.io/kubernets")


@pytest.mark.parametrize(("of_module", "version"), [("0.300.1", "3.0.1"), ("0.310.0", "3.10.0")])
def test_prometheus_says_the_version_that_its_module_stands_for(of_module: str, version: str) -> None:
    assert convert_prometheus_version(of_module) == version
    part = go_binary("prometheus")
    assert part.ldflags.endswith(f".Version={convert_prometheus_version(part.version)}")


def test_the_programs_of_kubernetes_say_their_version() -> None:
    assert f"gitVersion=v{KUBERNETES}" in go_binary("kubelet").ldflags


@for_each("user, variables, folder", {
    "root's": (0, {}, "/var/cache/r1plus"),
    "anybody's": (1000, {"HOME": "/home/a"}, "/home/a/.cache/r1plus"),
    "where a user keeps caches": (1000, {"HOME": "/home/a", "XDG_CACHE_HOME": "/big"}, "/big/r1plus"),
    "chosen": (1000, {"R1PLUS_CACHE": "/here"}, "/here"),
})  # fmt: skip
def test_the_cache_is_where_its_user_may_write(
    user: int, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    for name in ("R1PLUS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == find_cache() == Path(folder)
