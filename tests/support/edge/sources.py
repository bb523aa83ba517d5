"""A copy of this clone's sources: what an installation or a bundle is made of."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROOMS = ("edge", "policies", "model_repo", "monitoring", "operator", "gateway", "addons")
"""Folders with packages."""
_FILES = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", "Makefile")


def copy_sources(target: Path) -> Path:
    """Copy them to a new folder; return it."""
    target.mkdir()
    for name in _FILES:
        shutil.copy(ROOT / name, target)
    for name in ROOMS:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target
