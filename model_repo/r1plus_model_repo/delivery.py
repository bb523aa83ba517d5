"""The init container `verify`: is the delivered engine the one that was promised? Then lay out Triton's repository.

`python -m r1plus_model_repo.delivery --revision-dir R --delivery-dir D`. Reads R/identity.json and R/config.pbtxt,
checks D/engine against them, and assembles D/models. Standard library and contract only; a rerun does the same.
"""

import argparse
import hashlib
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract import inference
from r1plus_contract.delivery import digest_of
from r1plus_contract.identity import ServingIdentity
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.termination import TERMINATION_LOG, leave_word
from r1plus_model_repo.kv_shape import MODEL as DESCRIPTION
from r1plus_model_repo.kv_shape import kv_shape

IDENTITY_FILE = "identity.json"
CONFIG_FILE = "config.pbtxt"
MODEL = '''"""Generated: what Triton loads."""

from r1plus_model_repo.backends.openvino_genai import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_CLAIM = re.compile(rb'key: "kv_bytes_per_token"\s+value \{\s+string_value: "([0-9]{1,18})"')


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the pod must not serve. `reason` is stable, for the operator; the message says what to do."""

    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def deliver(revision: Path, delivery: Path) -> Refusal | None:
    """Verify and assemble; None when Triton may start."""
    try:
        identity = loads(ServingIdentity, (revision / IDENTITY_FILE).read_text(encoding="utf-8"))
        config = (revision / CONFIG_FILE).read_bytes()
    except (OSError, ContractError) as error:
        return Refusal("RevisionUnreadable", f"{error}; the operator writes the revision's ConfigMap again")
    engine = delivery / "engine"
    refusal = (
        _engine_refusal(identity, engine)
        or _config_refusal(identity, config)
        or _architecture_refusal(identity, config, engine)
    )
    if refusal is None:
        assemble(config, delivery)
    return refusal


def assemble(config: bytes, delivery: Path) -> None:
    """Make models/ whole: built beside, then renamed, since Triton takes every folder in it for a model."""
    part, models = delivery / ".models.part", delivery / "models"
    shutil.rmtree(part, ignore_errors=True)
    version = part / inference.MODEL_NAME / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL, encoding="utf-8")
    (part / inference.MODEL_NAME / CONFIG_FILE).write_bytes(config)
    if models.exists():
        shutil.rmtree(models)
    part.rename(models)


def _engine_refusal(identity: ServingIdentity, folder: Path) -> Refusal | None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return Refusal(
            "EngineMissing", f"engine {identity.engine}: there are no files; does its image hold them under /engine?"
        )
    try:
        found = digest_of(folder)
    except ValueError as error:
        return Refusal("EngineInvalid", f"engine {identity.engine}: {error}; build the engine's image again")
    if found == identity.engine_digest:
        return None
    return Refusal(
        "EngineDigestMismatch",
        f"engine {identity.engine}: sha256 is {found}, the catalog promises {identity.engine_digest};"
        " these are other files than were measured: deliver the right ones,"
        " or register these files as an engine of their own",
    )


def _config_refusal(identity: ServingIdentity, config: bytes) -> Refusal | None:
    found = hashlib.sha256(config).hexdigest()
    if found == identity.config_digest:
        return None
    return Refusal(
        "ConfigDigestMismatch",
        f"{CONFIG_FILE}: sha256 is {found}, the revision promises {identity.config_digest};"
        " the revision's ConfigMap was changed; the operator writes it again",
    )


def _architecture_refusal(identity: ServingIdentity, config: bytes, folder: Path) -> Refusal | None:
    """Is the KV cache sized for this very model? The catalog entry says its shape, and the files have one."""
    claim = _CLAIM.search(config)
    if claim is None or not (folder / DESCRIPTION).is_file():
        return None
    try:
        found = kv_shape(folder)
    except ValueError:
        return None  # No claim that these files could contradict.
    claimed = int(claim.group(1))
    if claimed == found.bytes_per_token:
        return None
    return Refusal(
        "ArchitectureMismatch",
        f"engine {identity.engine}: spec.architecture: its layers, kvHeads and headSize make {claimed} bytes of KV"
        f" cache per token, the files' make {found.bytes_per_token}: layers {found.layers}, kvHeads {found.kv_heads},"
        f" headSize {found.head_size}; correct the R1PlusEngine",
    )


def main() -> int:
    """0: Triton may start; 1: it must not, and why is on stderr and in the pod's status."""
    parser = argparse.ArgumentParser(description="Verify a delivered engine and assemble Triton's model repository.")
    parser.add_argument("--revision-dir", type=Path, required=True)
    parser.add_argument("--delivery-dir", type=Path, required=True)
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    arguments = parser.parse_args()
    refusal = deliver(arguments.revision_dir, arguments.delivery_dir)
    if refusal is None:
        print("The engine is the one that was promised; the model repository is assembled")
        return 0
    print(refusal, file=sys.stderr)
    leave_word(arguments.termination_log, str(refusal))
    return 1


if __name__ == "__main__":
    sys.exit(main())
