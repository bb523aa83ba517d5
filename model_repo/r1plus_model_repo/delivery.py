"""The init container `verify`: is the delivered engine the one that was promised? Then lay out Triton's repository.

`python -m r1plus_model_repo.delivery --revision-dir R --delivery-dir D`. Reads R/identity.json and R/config.pbtxt,
checks D/engine against them, and assembles D/models. Of an engine that was built on its GPU nobody could promise the
bytes: it is checked against its own `built.json`, and that against the revision. Standard library and contract only; a
rerun does the same.
"""

import argparse
import hashlib
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import r1plus_contract
import r1plus_model_repo
from r1plus_contract import inference
from r1plus_contract.delivery import digest_folder
from r1plus_contract.engine_fetch import BUILT_FILE, BuildRecord
from r1plus_contract.identity import ServingIdentity
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.termination import TERMINATION_LOG, write_termination_message
from r1plus_model_repo import built_engine
from r1plus_model_repo.kv_shape import MODEL as DESCRIPTION
from r1plus_model_repo.kv_shape import kv_shape

IDENTITY_FILE = "identity.json"
CONFIG_FILE = "config.pbtxt"
MODEL = '''"""Generated: what Triton loads."""

from r1plus_model_repo.backends.{module} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
CPU_MODULE, GPU_MODULE = "openvino_genai", "triton_model"
IN_PROCESS = frozenset({b"vllm", b"tensorrtllm"})
"""Backends that run inside the Python backend of NVIDIA's images, which carry no code of ours: it comes along."""
_PARAMETER = r'key: "%s"\s+value \{\s+string_value: "(%s)"'
_CLAIM = re.compile((_PARAMETER % ("kv_bytes_per_token", "[0-9]{1,18}")).encode())
_BUILT = re.compile((_PARAMETER % ("built", "[0-9a-f]{64}")).encode())
_BACKEND = re.compile((_PARAMETER % ("backend", "[a-z]{1,32}")).encode())


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
        # First: what the configuration says of a build is believed in what follows.
        _config_refusal(identity, config)
        or _engine_refusal(identity, config, engine)
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
    backend = _BACKEND.search(config)
    in_process = backend is not None and backend.group(1) in IN_PROCESS
    (version / "model.py").write_text(MODEL.format(module=GPU_MODULE if in_process else CPU_MODULE), encoding="utf-8")
    if in_process:
        _bring_code(version)
    (part / inference.MODEL_NAME / CONFIG_FILE).write_bytes(config)
    if models.exists():
        shutil.rmtree(models)
    part.rename(models)


def _bring_code(version: Path) -> None:
    """Ours, from where this very module is: Triton's Python backend looks beside model.py (pb_stub.cc, sys.path)."""
    contract, own = (Path(package.__path__[0]) for package in (r1plus_contract, r1plus_model_repo))
    target = version / own.name
    target.mkdir()
    shutil.copyfile(own / "__init__.py", target / "__init__.py")
    for source, place in ((contract, version / contract.name), (own / "backends", target / "backends")):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, place, ignore=ignored, copy_function=shutil.copyfile)


def _engine_refusal(identity: ServingIdentity, config: bytes, folder: Path) -> Refusal | None:
    key = _BUILT.search(config)
    if not folder.is_dir() or not any(folder.iterdir()):
        hint = "its Job builds it" if key else "does its image hold them under /engine?"
        return Refusal("EngineMissing", f"engine {identity.engine}: there are no files; {hint}")
    try:
        if key is not None:
            return _built_refusal(identity, key.group(1).decode(), folder)
        found = digest_folder(folder)
    except ValueError as error:
        remedy = "its Job builds it again" if key else "build the engine's image again"
        return Refusal("EngineInvalid", f"engine {identity.engine}: {error}; {remedy}")
    if found == identity.engine_digest:
        return None
    return Refusal(
        "EngineDigestMismatch",
        f"engine {identity.engine}: sha256 is {found}, the catalog promises {identity.engine_digest};"
        " these are other files than were measured: deliver the right ones,"
        " or register these files as an engine of their own",
    )


def _built_refusal(identity: ServingIdentity, key: str, folder: Path) -> Refusal | None:
    """Of an engine that was built: for this GPU, by this recipe, of these files, and as it was then?

    Raises:
        ValueError: there is what an engine may not hold, or a `built.json` that is none.
    """
    files, told = built_engine.rest_digest(folder), built_engine.told(folder)
    if told is None:
        text = f"engine {identity.engine}: there is no {BUILT_FILE}, so that nothing was built; its Job builds it"
        return Refusal("EngineMissing", text)
    if told.gpu_product != identity.gpu_product:
        what = f"{told.gpu_product}, this revision needs {identity.gpu_product}: it runs on no other"
    elif told.key != key:
        what = f"{told.gpu_product} by recipe {told.key}, this revision needs {key}: batch, lengths or runtime differ"
    else:
        return _changed(identity, told, files)
    text = f"engine {identity.engine} was built for {what}; its Job builds it again"
    return Refusal("EngineIncompatible", text)


def _changed(identity: ServingIdentity, told: BuildRecord, files: str) -> Refusal | None:
    if told.source != identity.engine_digest:
        what = f"was built of files with sha256 {told.source}, the catalog promises {identity.engine_digest}"
    elif told.files != files:
        what = f"has files with sha256 {files}, and {told.files} when it was built"
    else:
        return None
    return Refusal("EngineDigestMismatch", f"engine {identity.engine} {what}; its Job builds it again")


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
    write_termination_message(arguments.termination_log, str(refusal))
    return 1


if __name__ == "__main__":
    sys.exit(main())
