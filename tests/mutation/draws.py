"""The packages whose mutants are drawn together, and the tests that judge them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of mutants. A draw does not depend on the others: each has its own share of `--count`."""

    name: str
    sources: Sequence[str]
    """Packages, as folders relative to the root."""
    tests: Sequence[str]
    """Patterns of test files or folders, relative to the root."""

    def find_tests(self, root: Path) -> list[str]:
        """Return the files and folders that the patterns match, relative to `root`."""
        return [path.relative_to(root).as_posix() for pattern in self.tests for path in sorted(root.glob(pattern))]


DRAWS = (
    Draw(
        "plan",
        ("policies/r1plus_policies", "policies/r1plus_contract", "operator/r1plus_operator/plan"),
        ("tests/unit/policies", "tests/unit/contract", "tests/unit/operator/plan", "tests/unit/operator/test_*.py"),
    ),
    # Without the tests of a gateway's own process: it imports the unchanged module.
    Draw(
        "store",
        (
            *(f"gateway/r1plus_gateway/{room}" for room in ("store", "access")),
            "addons/assistant/r1plus_assistant/store",
            "monitoring/r1plus_monitoring/scoring",
        ),
        (
            "tests/unit/gateway/test_[!p]*.py",
            "tests/unit/gateway/test_plaintext_cache.py",
            "tests/unit/gateway/test_pods.py",
            *(
                f"tests/unit/monitoring/test_{name}.py"
                for name in ("curate", "curate_record", "long_context", "replay", "scorers", "sources", "suites")
            ),
        ),
    ),
)
