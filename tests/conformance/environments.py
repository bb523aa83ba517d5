"""Environments for programs that must not meet the project's own packages: one each, in the cache, every version pinned."""

import hashlib
import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any, Final

from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.shell import run
from devcluster.toolchain import uv

TABLES: Final[dict[str, dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("environments.toml").read_text())
NODE_FILES: Final = ("package.json", "package-lock.json")


def prepare(name: str) -> Path:
    """Return the environment's folder of programs; made on first use, and again when a version in the file changes."""
    pins = TABLES[name]["packages"]
    sources = [_find_node_folder(name) / file for file in NODE_FILES] if "node" in TABLES[name] else []
    text = json.dumps(pins) + "".join(source.read_text() for source in sources)
    folder = cache_dir() / "conformance" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with locked("conformance"):
        if not folder.is_dir():
            log = log_dir() / "conformance.log"
            with staged(folder) as made:
                run([uv(), "venv", "--relocatable", made], log=log)
                # Without the project's settings of uv, which leave a package out.
                install = [uv(), "pip", "install", "--no-config", "--no-deps", "--python", made / "bin" / "python"]
                run([*install, *pins], log=log)
                for source in sources:
                    shutil.copy(source, made)
                if sources:
                    environ = {**os.environ, "PATH": f"{made / 'bin'}:{os.environ['PATH']}"}
                    run([made / "bin" / "npm", "ci", "--ignore-scripts"], env=environ, cwd=made, log=log)
    return folder / "bin"


def name_version(name: str) -> str:
    """Return the package that an environment is for, with its version."""
    if (package := TABLES[name].get("node")) is not None:
        versions = json.loads((_find_node_folder(name) / NODE_FILES[0]).read_text())["dependencies"]
        return f"{package} {versions[package]}"
    return str(TABLES[name]["packages"][0]).replace("==", " ")


def _find_node_folder(name: str) -> Path:
    return Path(__file__).parent / "scripts" / name.replace("-", "_")
