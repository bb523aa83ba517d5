"""The cache: keyed by version, whole or absent, one builder at a time."""

from pathlib import Path

import pytest

from devcluster.cache import binary, staged
from devcluster.parts import GO_BINARIES, KUBERNETES, GoBinary, go_binary, required


def test_every_program_has_its_version_in_its_folder() -> None:
    for part in GO_BINARIES:
        path = binary(part.name)
        assert path.parts[-3:] == ("bin", f"{part.name}-{part.version}", part.name)


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


def test_prometheus_says_the_version_that_its_module_stands_for() -> None:
    assert go_binary("prometheus").version == "0.310.0"
    assert go_binary("prometheus").ldflags.endswith(".Version=3.10.0")


def test_the_programs_of_kubernetes_say_their_version() -> None:
    assert f"gitVersion=v{KUBERNETES}" in go_binary("kubelet").ldflags
