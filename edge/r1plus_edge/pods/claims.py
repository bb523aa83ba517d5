"""The claims of engine volumes: folders in which `engine` links to an engine's files, as on a cluster's volume.

They stay when `serve` ends, so that an earlier revision finds its engine again.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_link
from r1plus_edge.data_folder import DataFolder
from r1plus_operator.plan.engine.delivery import EngineVolume

_LINK: Final = "engine"


def link_claim(folder: DataFolder, volume: EngineVolume, files: Path) -> Path:
    """Let the claim of a volume have an engine's files, in one step; return its folder."""
    claim = folder.claims / volume.name
    claim.mkdir(parents=True, exist_ok=True)
    replace_link(claim / _LINK, files)
    return claim


def find_claims(folder: DataFolder, volumes: Iterable[EngineVolume]) -> Mapping[str, Path]:
    """Return the claims of these volumes whose engine is on this machine: name -> folder."""
    claims = {volume.name: folder.claims / volume.name for volume in volumes}
    return {name: claim for name, claim in claims.items() if (claim / _LINK).is_dir()}


def remove_other_claims(folder: DataFolder, volumes: Iterable[EngineVolume]) -> None:
    """Remove all claims but those of these volumes; the files that they link to stay."""
    kept = {volume.name for volume in volumes}
    for claim in folder.claims.iterdir() if folder.claims.is_dir() else ():
        if claim.name not in kept:
            shutil.rmtree(claim, ignore_errors=True)
