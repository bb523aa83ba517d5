"""The cache: keyed by version, whole or absent, one builder at a time."""

from pathlib import Path

import pytest

from devcluster.binaries import with_released_siblings
from devcluster.cache import binary, staged
from devcluster.parts import GO_BINARIES, KUBERNETES, go_binary


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


GO_MOD = """module k8s.io/kubernetes
replace (
	k8s.io/api => ./staging/src/k8s.io/api
	example.com/kept => example.com/fork v1.2.3
)
replace go.etcd.io/etcd/api/v3 => ../api
"""


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        pytest.param(
            "v0.34.4",
            ["k8s.io/api => k8s.io/api v0.34.4", "example.com/kept => example.com/fork v1.2.3"],
            ["./staging", "../api"],
            id="with a version, folders become that release",
        ),
        pytest.param("", ["example.com/kept"], ["./staging", "../api"], id="without one, the required versions count"),
    ],
)
def test_replacements_by_folders_go(version: str, present: list[str], absent: list[str]) -> None:
    text = with_released_siblings(GO_MOD, version)
    assert [word for word in present if word not in text] == []
    assert [word for word in absent if word in text] == []


def test_the_programs_of_kubernetes_say_their_version() -> None:
    assert f"gitVersion=v{KUBERNETES}" in go_binary("kubelet").ldflags
