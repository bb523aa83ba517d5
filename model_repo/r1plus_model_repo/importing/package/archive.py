"""An engine as one tar for an https server, and the R1PlusEngine that fetches it.

The same files give the same bytes.
"""

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from r1plus_contract.engine.delivery import hash_file
from r1plus_contract.engine.engine_fetch import ENGINE_FOLDER, SIGNATURE_FILE
from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_model_repo.catalog.types import ArchiveFile
from r1plus_model_repo.importing.errors import ImportingError

MANIFEST = "engine.yaml"
_SOURCE_LINE = re.compile(r"(?m)^(  artifact:\n)    (?:image|archive):.*\n((?:      .*\n)*)")
"""The line of the manifest that says where the files are, and the lines below it."""


@dataclass(frozen=True, slots=True)
class PackedEngine:
    """The written files."""

    tar: Path
    sha256: str
    manifest: Path
    signed: bool


def pack(folder: Path, url: str) -> PackedEngine:
    """Write FOLDER/NAME.tar, and set its `url` in FOLDER/engine.yaml.

    Raises:
        ImportingError: the folder is not a complete engine, or the URL is invalid.
    """
    engine, manifest = folder / ENGINE_FOLDER, folder / MANIFEST
    for part in (engine, manifest):
        if not part.exists():
            raise ImportingError(f"{part}: missing; give the folder that `r1plus engine import` wrote")
    text = manifest.read_text(encoding="utf-8")
    if len(_SOURCE_LINE.findall(text)) != 1:
        raise ImportingError(f"{manifest}: spec.artifact has no line `image:`; write {url} into it by hand")
    target = folder / f"{folder.resolve().name}.tar"
    part, signature = target.with_suffix(".tar.part"), folder / SIGNATURE_FILE
    files = sorted(path for path in engine.rglob("*") if path.is_file())
    with tarfile.open(part, "w") as tar:
        for path in [*([signature] if signature.exists() else []), *files]:
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                tar.addfile(member, content)
    sha256, size = hash_file(part), mebibytes(sum(path.stat().st_size for path in files) + 2**20)
    try:
        ArchiveFile(url=url, sha256=sha256, size=size)
    except ValidationError as error:
        part.unlink()
        raise ImportingError(f"--url {url:.200}: {error.errors()[0]['msg']}") from error
    part.replace(target)
    archive = (
        f"\\g<1>    archive:\n      url: '{url.replace(chr(39), '%27')}'\n      sha256: {sha256}\n      size: {size}\n"
    )
    manifest.write_text(_SOURCE_LINE.sub(archive, text), encoding="utf-8")
    return PackedEngine(target, sha256, manifest, signature.exists())
