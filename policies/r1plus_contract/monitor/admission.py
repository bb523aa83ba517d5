"""The admission token: a file that the monitor writes and Triton's readiness probe reads.

Line 1 is the identity digest alone, so that a shell can compare it without a JSON parser: NVIDIA's image has no code of
ours. Line 2 is an `Admission` for people and for the monitor after a restart.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.verdict import Gate, Verdict

TOKEN_FILE: Final = "token"


@dataclass(frozen=True, slots=True)
class Admission:
    """Why the pod may serve."""

    identity: str
    gate: Gate
    verdict: Verdict
    suite_hash: str
    written_at: str


def write_token(folder: Path, admission: Admission) -> None:
    """Write the token atomically (rename), readable by Triton's user."""
    replace_text(folder / TOKEN_FILE, f"{admission.identity}\n{dumps(admission)}\n", mode=0o644)


def read_token(folder: Path) -> Admission | None:
    """Read the token; None where there is none or it is damaged (then it admits no pod)."""
    try:
        first, second = (folder / TOKEN_FILE).read_text(encoding="utf-8").splitlines()[:2]
        admission = loads(Admission, second)
    except (FileNotFoundError, ValueError, ContractError):
        return None
    return admission if admission.identity == first else None
