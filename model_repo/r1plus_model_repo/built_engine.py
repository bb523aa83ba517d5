"""An engine that was built where it is served: what its `built.json` says, and whether the other files are still those.

Written by the Job's stage `seal`, read by its stage `fetch` and by the init container `verify`. Nobody outside vouches
for these bytes, since no two builds have the same: the digest tells of damage, not of someone who may write the volume.
"""

from pathlib import Path

from r1plus_contract.delivery import build_listing, digest_listing, parse_listing
from r1plus_contract.engine_fetch import BUILT_FILE, BuildRecord
from r1plus_contract.jsonable import dumps, loads


def rest_digest(folder: Path) -> str:
    """`digest_of_listing` of all files below `folder` but `built.json`; ValueError for what an engine may not hold."""
    lines = build_listing(folder).splitlines(keepends=True)
    return digest_listing("".join(line for line in lines if BUILT_FILE not in parse_listing(line)))


def told(folder: Path) -> BuildRecord | None:
    """What `built.json` says; None where there is none. ContractError where it is no such document."""
    path = folder / BUILT_FILE
    # Tolerant: a volume outlives the version that filled it.
    return loads(BuildRecord, path.read_bytes(), tolerant=True) if path.is_file() else None


def tell(folder: Path, built: BuildRecord) -> None:
    """Write it."""
    (folder / BUILT_FILE).write_text(dumps(built), encoding="utf-8")
