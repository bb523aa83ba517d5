"""Environments for programs that must not meet the project's own packages: one each, in the cache, every version pinned."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.shell import run
from devcluster.toolchain import uv

PINS: Final[dict[str, list[str]]] = {
    name: table["packages"]
    for name, table in tomllib.loads(Path(__file__).with_name("environments.toml").read_text()).items()
}


def prepare(name: str) -> Path:
    """Return the environment's folder of programs; made on first use, and again when a version in the file changes."""
    pins = PINS[name]
    digest = hashlib.sha256(json.dumps(pins).encode()).hexdigest()[:12]
    folder = cache_dir() / "conformance" / f"{name}-{digest}"
    with locked("conformance"):
        if not folder.is_dir():
            log = log_dir() / "conformance.log"
            with staged(folder) as made:
                run([uv(), "venv", "--relocatable", made], log=log)
                # Without the project's settings of uv, which leave a package out.
                install = [uv(), "pip", "install", "--no-config", "--no-deps", "--python", made / "bin" / "python"]
                run([*install, *pins], log=log)
    return folder / "bin"


def name_version(name: str) -> str:
    """Return the first package of an environment with its version."""
    return PINS[name][0].replace("==", " ")
