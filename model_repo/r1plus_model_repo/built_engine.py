"""The `built.json` of an engine that was built where it is served, and a check that the other files still match it.

Written by the Job's stage `seal`; read by its stage `fetch` and by the init container `verify`. No two builds have the
same bytes, so nothing external can confirm them: the digest detects damage, not a writer with access to the volume.
"""

from pathlib import Path

from r1plus_contract.engine.delivery import build_listing, digest_listing, parse_listing
from r1plus_contract.engine.engine_fetch import BUILT_FILE, BuildRecord
from r1plus_contract.jsonable import dumps, loads


def compute_files_digest(folder: Path) -> str:
    """Return `digest_of_listing` of all files but `built.json`. Raise ValueError for forbidden contents."""
    lines = build_listing(folder).splitlines(keepends=True)
    return digest_listing("".join(line for line in lines if BUILT_FILE not in parse_listing(line)))


def read_built(folder: Path) -> BuildRecord | None:
    """Return the content of `built.json`, or None if there is no such file. Raise ContractError if it is not valid."""
    path = folder / BUILT_FILE
    # Tolerant, because another version may have written the volume.
    return loads(BuildRecord, path.read_bytes(), tolerant=True) if path.is_file() else None


def write_built(folder: Path, built: BuildRecord) -> None:
    """Write `built.json`."""
    (folder / BUILT_FILE).write_text(dumps(built), encoding="utf-8")
