"""The git repository: its files, and what has changed in it."""

import contextlib
import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = "evidence"
"""Changes below it alone leave a measured tree clean: a record, or a row of a flake."""
MAIN_BRANCHES: Final = ("origin/main", "main")
"""The first that has a commit to compare with counts: in a clone the remote's, in the repository itself its own."""
CODE: Final = (".py", ".toml")
"""What lies below it and is no result."""


def git(*arguments: str, root: Path = ROOT) -> str:
    """Return what git prints. Raises subprocess.CalledProcessError."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def list_files(root: Path = ROOT) -> tuple[str, ...]:
    """Return the paths that git tracks, relative to `root`."""
    return tuple(path for path in git("ls-files", root=root).splitlines() if (root / path).is_file())


def find_main(root: Path = ROOT) -> str | None:
    """Return the commit where HEAD left the main branch; None where there is nothing to compare with.

    That is so on the main branch itself, behind it, in a clone without its history, and outside git.
    """
    try:
        head = git("rev-parse", "HEAD", root=root)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    for branch in MAIN_BRANCHES:
        with contextlib.suppress(subprocess.CalledProcessError):
            if (base := git("merge-base", "HEAD", branch, root=root)) != head:
                return base.strip()
    return None


def is_ancestor(commit: str, root: Path = ROOT) -> bool:
    """Return whether `commit` is HEAD or one of its ancestors."""
    command = ["git", "-C", str(root), "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def is_shallow(root: Path = ROOT) -> bool:
    """Return whether the clone lacks history, so that nothing can be said of an older commit."""
    return git("rev-parse", "--is-shallow-repository", root=root).strip() == "true"


def changed_paths(commit: str, root: Path = ROOT) -> frozenset[str]:
    """Return the paths that differ between `commit` and the work tree: committed, staged, unstaged, untracked, gone.

    Raises subprocess.CalledProcessError if git knows no such commit.
    """
    listings = (
        ("diff", "--name-only", "--no-renames", "-z", commit, "--"),
        ("diff", "--name-only", "--no-renames", "-z", "--cached", commit, "--"),
        ("ls-files", "--others", "--exclude-standard", "-z"),
    )
    return frozenset(path for listing in listings for path in git(*listing, root=root).split("\0") if path)


def dirty_paths(root: Path = ROOT) -> list[str]:
    """Return the paths that differ from HEAD, without the records and rows below `evidence/`."""
    return sorted(path for path in changed_paths("HEAD", root) if not is_below(path, [FOLDER]) or path.endswith(CODE))


def is_below(path: str, folders: Collection[str]) -> bool:
    """Return whether `path` is one of `folders` or lies below one."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
