"""Folders that several test modules read."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
SOURCES = tuple(
    TESTS.parent / name
    for name in (
        "policies",
        "model_repo",
        "monitoring",
        "operator",
        "gateway",
        "edge",
        "addons/assistant",
        "addons/client",
        "addons/helpers",
        "addons/history",
        "addons/training",
    )
)
"""Folders that hold the product's packages."""
