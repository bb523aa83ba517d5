"""A checkpoint as the backend torch serves it: its R1PlusEngine."""

from pathlib import Path

from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.model import TORCH, Claims
from r1plus_model_repo.importing.options import ImportOptions
from r1plus_model_repo.importing.package.manifest import build_spec
from r1plus_model_repo.importing.readers import read_source


def describe_for_torch(checkpoint: Path, name: str = "smollm2-edge-torch", cpu: str = "1") -> Engine:
    """Return the R1PlusEngine that `r1plus engine import --backend torch` makes of the checkpoint."""
    options = ImportOptions(name, "edge", "smollm2", cpu=cpu, backend=TORCH)
    model = read_source(checkpoint, Claims(), TORCH)
    return Engine(name, build_spec(options, model, "0" * 64, checkpoint.name))
