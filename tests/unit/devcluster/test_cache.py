"""The cache: keyed by version, whole or absent, one builder at a time."""

from pathlib import Path

import pytest

from devcluster.cache import staged
from devcluster.parts import GO_BINARIES, KUBERNETES, GoBinary, convert_prometheus_version, go_binary, required


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
