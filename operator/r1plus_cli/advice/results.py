"""Figures that were measured, on disk: a run that was interrupted goes on where it was."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1plus_cli.advice.candidates import Candidate
from r1plus_cli.advice.figures import EngineFigures
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.suites.suite import Suite
from r1plus_edge.objects import write_synced

KEY_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Results:
    """A folder of figures, and of trials that have none yet."""

    root: Path

    def find_trial(self, key: str) -> Path:
        """Return the folder of a trial."""
        return self.root / "trials" / key

    def load(self, key: str) -> EngineFigures | None:
        """Return what was measured; None: nothing that can be read."""
        try:
            return loads(EngineFigures, self._find_file(key).read_text(encoding="utf-8"))
        except (OSError, ContractError):
            return None

    def save(self, key: str, figures: EngineFigures) -> None:
        """Keep figures. Raises OSError: the disk does not take them."""
        file = self._find_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_synced(file, dumps(figures))

    def _find_file(self, key: str) -> Path:
        return self.root / "results" / f"{key}.json"


def build_key(candidate: Candidate, suite: Suite, software: Sequence[str], cores: float) -> str:
    """Return the name of what is measured: engine, suite, sizes, software and cores. Change one, and it is measured
    again."""
    identity = {
        "engine": candidate.engine.name,
        "digest": candidate.engine.spec.files.sha256,
        "suite": suite.header.sha256,
        "scorer": suite.header.scorer_version,
        "batch": candidate.fit.batch,
        "context": candidate.fit.context,
        "software": list(software),
        "cores": cores,
    }
    return f"{candidate.engine.name}-{hashlib.sha256(dumps(identity).encode()).hexdigest()[:KEY_DIGITS]}"
