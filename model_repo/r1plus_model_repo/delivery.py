"""The init container `verify`: check that the delivered engine is the expected one, then assemble Triton's repository.

`python -m r1plus_model_repo.delivery --revision-dir R --delivery-dir D`. Reads R/identity.json and R/config.pbtxt,
checks D/engine against them, and assembles D/models. The digest of an engine that was built on its GPU is not known in
advance: the engine is checked against its `built.json`, and that against the revision. Uses only the standard library
and the contract. It can run again with the same result.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import r1plus_contract
import r1plus_model_repo
from r1plus_contract import inference, names
from r1plus_contract.early_exit import end_at_sigterm
from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import BUILT_FILE, BuildRecord
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.process.termination import TERMINATION_LOG, write_termination_message
from r1plus_model_repo import built_engine
from r1plus_model_repo.kv_shape import MODEL as DESCRIPTION
from r1plus_model_repo.kv_shape import read_kv_shape

IDENTITY_FILE = "identity.json"
CONFIG_FILE = "config.pbtxt"
MODEL = '''"""Generated: what Triton loads."""

from r1plus_model_repo.backends.{module} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
CPU_MODULE, GPU_MODULE = "openvino_genai", "triton_model"
IN_PROCESS = frozenset({b"vllm", b"tensorrtllm"})
"""Backends that run in the Python backend of NVIDIA's images. These images lack our code, so it is copied there."""
_PARAMETER = r'key: "%s"\s+value \{\s+string_value: "(%s)"'
_DECLARED_BYTES = re.compile((_PARAMETER % ("kv_bytes_per_token", "[0-9]{1,18}")).encode())
_BUILD_KEY = re.compile((_PARAMETER % ("built", "[0-9a-f]{64}")).encode())
_BACKEND = re.compile((_PARAMETER % ("backend", "[a-z]{1,32}")).encode())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the pod must not serve. `reason` is stable, for the operator; the message says what to do."""

    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def deliver(revision: Path, delivery: Path, engine: Path | None = None) -> Refusal | None:
    """Verify the engine and assemble the model repository. Return None if Triton may start.

    `engine`: the folder of its files; None: the one in `delivery`.
    """
    try:
        identity = loads(ServingIdentity, (revision / IDENTITY_FILE).read_text(encoding="utf-8"))
        config = (revision / CONFIG_FILE).read_bytes()
    except (OSError, ContractError) as error:
        return Refusal("RevisionUnreadable", f"{error}; the operator writes the revision's ConfigMap again")
    engine = engine or delivery / "engine"
    refusal = (
        # First, because the next checks trust what the configuration says of a build.
        _check_config(identity, config)
        or _check_engine(identity, config, engine)
        or _check_architecture(identity, config, engine)
    )
    if refusal is not None:
        return refusal
    try:
        assemble(config, delivery)
    except OSError as error:
        text = f"engine {identity.engine}: the model repository cannot be assembled: {error}"
        return Refusal(
            "EngineInvalid", f"{text}; check what the engine's image writes, or make room on the node's disk"
        )
    return None


def assemble(config: bytes, delivery: Path) -> None:
    """Assemble models/ in another folder and rename it: Triton loads every folder in it as a model.

    The engine's image ran before this, could write anything here, and is not trusted: nothing of it may stay in them.

    Raises:
        OSError: something there cannot be removed or written.
    """
    part, models = delivery / ".models.part", delivery / "models"
    _remove(part)
    version = part / inference.MODEL_NAME / "1"
    version.mkdir(parents=True)
    backend = _BACKEND.search(config)
    in_process = backend is not None and backend.group(1) in IN_PROCESS
    (version / "model.py").write_text(MODEL.format(module=GPU_MODULE if in_process else CPU_MODULE), encoding="utf-8")
    if in_process:
        _copy_backend_code(version)
    (part / inference.MODEL_NAME / CONFIG_FILE).write_bytes(config)
    _remove(models)
    part.rename(models)


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a link or file of its name. Raises OSError: something stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_backend_code(version: Path) -> None:
    """Copy our packages next to model.py, where the Python backend looks for modules (pb_stub.cc, sys.path)."""
    contract, own = (Path(package.__path__[0]) for package in (r1plus_contract, r1plus_model_repo))
    target = version / own.name
    target.mkdir()
    shutil.copyfile(own / "__init__.py", target / "__init__.py")
    for source, destination in ((contract, version / contract.name), (own / "backends", target / "backends")):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, destination, ignore=ignore, copy_function=shutil.copyfile)


def _check_engine(identity: ServingIdentity, config: bytes, folder: Path) -> Refusal | None:
    key = _BUILD_KEY.search(config)
    if folder.is_symlink():
        text = "the folder itself is a link, and an engine may hold plain files only; build the engine's image again"
        return Refusal("EngineInvalid", f"engine {identity.engine}: {text}")
    if not folder.is_dir() or not any(folder.iterdir()):
        hint = "wait for its Job to build it" if key else "check that its image has them under /engine"
        return Refusal("EngineMissing", f"engine {identity.engine}: there are no engine files; {hint}")
    try:
        if key is not None:
            return _check_built_engine(identity, key.group(1).decode(), folder)
        digest = digest_folder(folder)
    except ValueError as error:
        remedy = "its Job builds it again" if key else "build the engine's image again"
        return Refusal("EngineInvalid", f"engine {identity.engine}: {error}; {remedy}")
    if digest == identity.engine_digest:
        return None
    return Refusal(
        "EngineDigestMismatch",
        f"engine {identity.engine}: these are not the files that were measured: sha256 is {digest},"
        f" the catalog has {identity.engine_digest}; deliver the right files, or register these as another engine",
    )


def _check_built_engine(identity: ServingIdentity, key: str, folder: Path) -> Refusal | None:
    """Check that an engine was built for this GPU, by this recipe, from these files, and has not changed since.

    Raises:
        ValueError: the folder has forbidden contents, or an invalid `built.json`.
    """
    files, built = built_engine.compute_files_digest(folder), built_engine.read_built(folder)
    if built is None:
        text = f"engine {identity.engine}: {BUILT_FILE} is missing, so the engine is not built; its Job builds it"
        return Refusal("EngineMissing", text)
    # A student runs anywhere. The key of other builds has their GPU.
    if built.gpu_product not in ("", identity.gpu_product):
        difference = (
            f"{built.gpu_product}, this revision needs {identity.gpu_product}: an engine runs only on the"
            " GPU it was built for"
        )
    elif built.key != key:
        recipe = f"{built.gpu_product or 'CPU'} by recipe {built.key}"
        difference = f"{recipe}, this revision needs {key}: batch, lengths or runtime differ"
    else:
        return _check_build_inputs(identity, built, files)
    text = f"engine {identity.engine} was built for {difference}; its Job builds it again"
    return Refusal("EngineIncompatible", text)


def _check_build_inputs(identity: ServingIdentity, built: BuildRecord, files: str) -> Refusal | None:
    if built.source != identity.engine_digest:
        difference = f"was built from files with sha256 {built.source}, the catalog has {identity.engine_digest}"
    elif built.files != files:
        difference = f"has files with sha256 {files}, but {built.files} when it was built"
    else:
        return None
    return Refusal("EngineDigestMismatch", f"engine {identity.engine} {difference}; its Job builds it again")


def _check_config(identity: ServingIdentity, config: bytes) -> Refusal | None:
    digest = hashlib.sha256(config).hexdigest()
    if digest == identity.config_digest:
        return None
    return Refusal(
        "ConfigDigestMismatch",
        f"{CONFIG_FILE}: the revision's ConfigMap was changed: sha256 is {digest}, the revision has"
        f" {identity.config_digest}; the operator writes it again",
    )


def _check_architecture(identity: ServingIdentity, config: bytes, folder: Path) -> Refusal | None:
    """Check that the KV cache is sized for this model: the shape in the catalog entry must match the files."""
    declaration = _DECLARED_BYTES.search(config)
    if declaration is None or not (folder / DESCRIPTION).is_file():
        return None
    try:
        shape = read_kv_shape(folder)
    except ValueError:
        return None  # The files do not say their shape.
    declared_bytes = int(declaration.group(1))
    if declared_bytes == shape.bytes_per_token:
        return None
    return Refusal(
        "ArchitectureMismatch",
        f"engine {identity.engine}: layers, kvHeads and headSize in spec.architecture do not match the files:"
        f" {declared_bytes} bytes of KV cache per token, the files need {shape.bytes_per_token}: layers"
        f" {shape.layers}, kvHeads {shape.kv_heads},"
        f" headSize {shape.head_size}; correct the R1PlusEngine",
    )


def main() -> int:
    """Return 0 if Triton may start, otherwise 1 with the reason on stderr and in the pod's status."""
    parser = argparse.ArgumentParser(description="Verify a delivered engine and assemble Triton's model repository.")
    parser.add_argument("--revision-dir", type=Path, required=True)
    parser.add_argument("--delivery-dir", type=Path, required=True)
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    arguments = parser.parse_args()
    # Where a pod is processes, its folders are links: who runs them names the engine's, which none of them can change.
    given = os.environ.get(names.ENV_ENGINE_DIR)
    refusal = deliver(arguments.revision_dir, arguments.delivery_dir, Path(given).resolve() if given else None)
    if refusal is None:
        print("The engine is verified and the model repository is assembled")
        return 0
    print(refusal, file=sys.stderr)
    write_termination_message(arguments.termination_log, str(refusal))
    return 1


if __name__ == "__main__":
    end_at_sigterm()
    sys.exit(main())
