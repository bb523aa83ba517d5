"""`install.pyz`, which is written beside a bundle: the modules that read and install one, as one file for Python."""

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Final

import r1plus_contract
import r1plus_edge

INSTALLER: Final = "install.pyz"
_MODULES: Final = (
    "__init__",
    "base_folders",
    "bundle/__init__",
    "bundle/archive",
    "bundle/install",
    "bundle/keys",
    "bundle/manifest",
    "bundle/signature",
    "errors",
)
_MAIN: Final = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("Error: this python3 is older than 3.11, for which the bundle is; Debian 12 has 3.11")

from r1plus_edge.bundle.install import main

sys.exit(main(sys.argv[1:]))
"""
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_OLDEST: Final = (1980, 1, 1, 0, 0, 0)


def build_installer() -> bytes:
    """Return the file. The same release gives the same bytes."""
    contract, edge = Path(r1plus_contract.__path__[0]), Path(r1plus_edge.__path__[0])
    files = {
        f"{contract.name}/{path.relative_to(contract)}": path.read_text(encoding="utf-8")
        for path in contract.rglob("*.py")
    }
    files |= {f"{edge.name}/{name}.py": (edge / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    archive = BytesIO()
    # Not compressed: another zlib would write other bytes.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as output:
        for name, text in sorted({"__main__.py": _MAIN, **files}.items()):
            output.writestr(zipfile.ZipInfo(name, _OLDEST), text)
    return _SHEBANG + archive.getvalue()
