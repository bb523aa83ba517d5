"""An image's reference follows everything that can change the image, and nothing else."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster.images.components import Component, containerfile
from devcluster.images.recipe import Recipe, digest, tree_digest
from devcluster.images.sources import link_file
from devcluster.images.store import older


def _nothing(context: Path, log: Path) -> None:
    """The context of a recipe that is never built."""


BASE = Recipe("base", "FROM scratch", ("python3.11",), _nothing)
RECIPE = Recipe("operator", "FROM ${BASE}", ("aiohttp==3", "rooms 1"), _nothing, BASE)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(RECIPE, containerfile="FROM ${BASE}\nUSER 0"), id="another Containerfile"),
        pytest.param(replace(RECIPE, ingredients=("aiohttp==3", "rooms 2")), id="another ingredient"),
        pytest.param(replace(RECIPE, ingredients=("aiohttp==3rooms", " 1")),
                     id="a character moved between ingredients"),
        pytest.param(replace(RECIPE, base=replace(BASE, ingredients=("python3.12",))), id="another base below it"),
        pytest.param(replace(RECIPE, name="monitor"), id="another name"),
    ],
)  # fmt: skip
def test_whatever_can_change_the_image_changes_its_key(changed: Recipe) -> None:
    assert changed.key != RECIPE.key


def test_the_same_recipe_has_the_same_reference() -> None:
    again = Recipe("operator", "FROM ${BASE}", ("aiohttp==3", "rooms 1"), _nothing, replace(BASE))
    assert again.ref == RECIPE.ref == f"r1plus.local/operator:{RECIPE.key}"


def test_digests_do_not_confuse_one_part_with_two() -> None:
    assert digest(("ab",)) != digest(("a", "b"))


def _write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("b/file", "other", id="another content"),
        pytest.param("b/renamed", "text", id="another name"),
        pytest.param("c/file", "text", id="another folder"),
    ],
)
def test_a_tree_digest_follows_names_and_contents(tmp_path: Path, name: str, text: str) -> None:
    _write(tmp_path / "one", "b/file", "text")
    _write(tmp_path / "same", "b/file", "text")
    _write(tmp_path / "other", name, text)
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "same")
    assert tree_digest(tmp_path / "one") != tree_digest(tmp_path / "other")


def test_a_tree_digest_follows_permissions(tmp_path: Path) -> None:
    _write(tmp_path, "file", "text")
    (tmp_path / "file").chmod(0o644)
    before = tree_digest(tmp_path)
    (tmp_path / "file").chmod(0o755)
    assert tree_digest(tmp_path) != before


def test_a_tree_digest_ignores_what_it_is_told_to(tmp_path: Path) -> None:
    _write(tmp_path, "room/module.py", "text")
    before = tree_digest(tmp_path, frozenset({"__pycache__"}))
    _write(tmp_path, "room/__pycache__/module.pyc", "compiled")
    assert tree_digest(tmp_path, frozenset({"__pycache__"})) == before != tree_digest(tmp_path)


def test_what_was_used_last_stays_and_unfinished_work_is_left_alone(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        _write(tmp_path, name, "image")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    _write(tmp_path, ".being-written.x", "half an image")
    os.utime(tmp_path / ".being-written.x", (1, 1))
    assert [path.name for path in older(tmp_path, 2)] == ["oldest"]
    assert older(tmp_path, 3) == []


@pytest.mark.parametrize(
    ("mode", "linked"),
    [
        pytest.param(0o644, True, id="a file that all may read is linked, not copied"),
        pytest.param(0o600, False, id="a private file is copied and made readable for the image's user"),
    ],
)
def test_context_files_are_readable_by_a_numeric_user(tmp_path: Path, mode: int, linked: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("weights")
    source.chmod(mode)
    link_file(source, target)
    assert target.read_text() == "weights"
    assert target.stat().st_mode & 0o444 == 0o444
    assert source.samefile(target) is linked
    assert source.stat().st_mode & 0o777 == mode


def test_a_component_image_has_its_program_as_entrypoint_and_an_unprivileged_user() -> None:
    text = containerfile(Component("coredns", "/coredns"))
    assert text.splitlines()[0] == "FROM scratch"
    assert text.splitlines()[-2:] == ["USER 65534:65534", 'ENTRYPOINT ["/coredns"]']
