"""A checkpoint as the backend torch serves it: its R1PlusEngine."""

import subprocess
from pathlib import Path

from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.model import TORCH, Claims
from r1plus_model_repo.importing.options import ImportOptions
from r1plus_model_repo.importing.package.manifest import build_spec
from r1plus_model_repo.importing.readers import read_source
from support.edge.served import COMMAND


def describe_for_torch(checkpoint: Path, name: str = "smollm2-edge-torch", cpu: str = "1") -> Engine:
    """Return the R1PlusEngine that `r1plus engine import --backend torch` makes of the checkpoint."""
    options = ImportOptions(name, "edge", "smollm2", cpu=cpu, backend=TORCH)
    model = read_source(checkpoint, Claims(), TORCH)
    return Engine(name, build_spec(options, model, "0" * 64, checkpoint.name))


def import_checkpoint(checkpoint: Path, name: str, suite: str, out: Path, *options: str) -> Path:
    """Import it for the tier edge with the family `r1`, as a user does; return its folder, below `out`."""
    words = ["--backend", "torch", "--name", name, "--tier", "edge", "--family", "r1", "--suite", suite]
    command = [str(COMMAND), "engine", "import", str(checkpoint), *words, "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / name
