"""`model.sig` of an engine, verified by `engine_fetch.signature` and by `model_signing verify key`."""

from pathlib import Path
from typing import Any

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.engine.delivery import build_listing, parse_listing
from r1plus_contract.engine.engine_fetch import SIGNATURE_FILE
from r1plus_model_repo.engine_fetch.signature import PREDICATE_TYPE, compute_root_digest
from r1plus_model_repo.engine_fetch.sigstore import STATEMENT_TYPE, load_private_key, sign_statement
from r1plus_model_repo.importing.errors import ImportingError


def sign(folder: Path, key: Path) -> Path:
    """Write FOLDER/model.sig over FOLDER/engine.

    Raise ImportingError if the key is unsuitable or there is no engine.
    """
    engine, target = folder / "engine", folder / SIGNATURE_FILE
    if not engine.is_dir():
        raise ImportingError(f"{engine}: no such folder; give the folder that `r1plus engine import` wrote")
    try:
        private_key = load_private_key(key)
    except ValueError as error:
        raise ImportingError(str(error)) from error
    replace_text(target, sign_statement(build_statement(engine, folder.resolve().name), private_key).decode())
    return target


def build_statement(engine: Path, name: str) -> dict[str, Any]:
    """Return the statement to sign: every file with its sha256."""
    digests = dict(sorted(parse_listing(build_listing(engine)).items()))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": compute_root_digest(list(digests.values()))}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in digests.items()],
        },
    }
