"""Which files a branch changes, asked of real repositories."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from evidence.repository import changed_paths, find_main
from support.tables import for_each
from support.toy_repository import ToyRepository

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Return git in a new repository whose branch main has one commit with the files kept, edited and gone."""

    repository = ToyRepository(tmp_path)
    repository.commit({name: f"{name}\n" * 20 for name in ("kept", "edited", "gone")})
    return repository.git


def commit(git: Git, root: Path, name: str) -> str:
    """Commit a new file, and return the commit."""
    (root / name).write_text(name)
    git("add", name)
    git("commit", "--quiet", f"--message=Add {name}")
    return git("rev-parse", "HEAD")


def test_a_branch_is_compared_with_where_it_left_main(git: Git, tmp_path: Path) -> None:
    base = git("rev-parse", "HEAD")
    git("switch", "--quiet", "--create", "branch")
    commit(git, tmp_path, "of_the_branch")
    git("switch", "--quiet", "main")
    commit(git, tmp_path, "of_main")
    git("switch", "--quiet", "branch")
    assert find_main(tmp_path) == base
    assert changed_paths(base, tmp_path) == {"of_the_branch"}


def test_main_is_compared_with_the_remote_s(git: Git, tmp_path: Path) -> None:
    landed = git("rev-parse", "HEAD")
    git("update-ref", "refs/remotes/origin/main", landed)
    commit(git, tmp_path, "local")
    assert find_main(tmp_path) == landed


def test_a_branch_without_a_commit_of_its_own_in_a_clone_is_compared_with_the_local_main(
    git: Git, tmp_path: Path
) -> None:
    local = git("rev-parse", "HEAD")
    git("switch", "--quiet", "--create", "branch")
    git("update-ref", "refs/remotes/origin/main", commit(git, tmp_path, "landed"))
    assert find_main(tmp_path) == local


@for_each("arguments", {
    "main itself": ("switch", "--quiet", "main"),
    "a commit that main has": ("switch", "--quiet", "--detach", "main~"),
    "no branch main": ("branch", "--quiet", "--move", "main", "trunk"),
    "another history": ("switch", "--quiet", "--orphan", "other"),
})  # fmt: skip
def test_there_is_nothing_to_compare_with(arguments: tuple[str, ...], git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "second")
    git(*arguments)
    assert find_main(tmp_path) is None


def test_outside_a_repository_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    assert find_main(tmp_path) is None


def test_what_is_committed_staged_edited_new_or_gone_has_changed(git: Git, tmp_path: Path) -> None:
    base = git("rev-parse", "HEAD")
    (tmp_path / ".gitignore").write_text("ignored\n")
    git("add", ".gitignore")
    commit(git, tmp_path, "committed")
    (tmp_path / "staged").write_text("staged")
    git("add", "staged")
    (tmp_path / "staged").unlink()
    (tmp_path / "edited").write_text("edited again")
    (tmp_path / "ä new").write_text("untracked")
    (tmp_path / "ignored").write_text("ignored")
    git("mv", "gone", "renamed")
    assert changed_paths(base, tmp_path) == {
        ".gitignore", "committed", "staged", "edited", "ä new", "gone", "renamed",
    }  # fmt: skip


def test_an_unknown_commit_is_an_error(git: Git, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        changed_paths("0" * 40, tmp_path)
