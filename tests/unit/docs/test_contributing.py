"""What contributors read is short, and the hooks of pre-commit check what `make check` does."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_contributing_fits_in_200_lines() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 200


def list_hook_packages() -> Iterator[str]:
    """Yield the packages that the hooks of pre-commit install."""
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]:
        for hook in repository["hooks"]:
            yield from hook["additional_dependencies"]


def test_the_hooks_of_pre_commit_run_the_locked_ruff() -> None:
    locked = {one["name"]: one["version"] for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert set(list_hook_packages()) == {f"ruff=={locked['ruff']}"}
