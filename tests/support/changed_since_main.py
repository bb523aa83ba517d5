"""Which files differ from the main branch: what need not run again is decided by it, and what is new."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.paths import TESTS

ROOT = TESTS.parent
MAIN_BRANCHES = ("origin/main", "main")
"""The first that has a commit to compare with counts: in a clone the remote's, in the repository itself its own."""


def main_ref(root: Path = ROOT) -> str | None:
    """Return the commit where HEAD left the main branch; None where there is nothing to compare with.

    That is so on the main branch itself, behind it, in a clone without its history, and outside git.
    """
    head = _git(root, "rev-parse", "HEAD")
    for branch in MAIN_BRANCHES:
        base = _git(root, "merge-base", "HEAD", branch)
        if base and base != head:
            return base.strip()
    return None


def changed_paths(base: str, root: Path = ROOT) -> frozenset[str]:
    """Return the paths below `root`, relative to it, that differ from the commit `base`.

    These are committed, staged, unstaged and untracked files, those that are gone, and both names of a renamed one.
    Raises LookupError if git knows no such commit.
    """
    listings = (
        ("diff", "--name-only", "--no-renames", "-z", base, "--"),
        ("diff", "--name-only", "--no-renames", "-z", "--cached", base, "--"),
        ("ls-files", "--others", "--exclude-standard", "-z"),
    )
    return frozenset(path for listing in listings for path in _paths(root, listing))


def _paths(root: Path, listing: Sequence[str]) -> list[str]:
    output = _git(root, *listing)
    if output is None:
        raise LookupError(f"git {' '.join(listing)} failed in {root}: is the commit in this clone?")
    return [path for path in output.split("\0") if path]


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it fails, or is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
