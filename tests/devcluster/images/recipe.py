"""What an image is made of, as a value: the text of its Containerfile, its base, and what goes into the build context.

A recipe's key names everything that can change the image, so a reference says what is inside and a node that has a
reference has the right image. `builder` turns recipes into archives; the other modules of this folder make recipes.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "r1plus.local"
KEY_DIGITS = 12
FORM = "reproducible"
"""How images are built, as far as it changes them."""


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image: the reference that pods name, and the OCI archive that a node imports."""

    ref: str
    archive: Path

    @property
    def pinned(self) -> str:
        """The reference by digest: a tag may be moved, and then names another image."""
        with tarfile.open(self.archive) as archive:
            index = archive.extractfile("index.json")
            assert index is not None
            (manifest,) = json.load(index)["manifests"]
        return f"{self.ref.rpartition(':')[0]}@{manifest['digest']}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one image.

    `assemble(context, log)` fills the build context; `ingredients` are names and digests of all that it puts there.
    """

    name: str
    containerfile: str
    ingredients: tuple[str, ...]
    assemble: Callable[[Path, Path], None]
    base: "Recipe | None" = None
    layers_serve_again: bool = False
    """Whether later builds start from this image or repeat only its last layers; others are stored as archives alone."""

    @property
    def key(self) -> str:
        """Hash of everything that can change the image, its base included."""
        base = self.base.ref if self.base is not None else "scratch"
        return digest((FORM, self.name, self.containerfile, base, *self.ingredients))[:KEY_DIGITS]

    @property
    def ref(self) -> str:
        """The image's reference; the tag is the key."""
        return f"{REPOSITORY}/{self.name}:{self.key}"


def digest(parts: tuple[str, ...]) -> str:
    """sha256 of texts, each with its length, so that moving a character from one to the next changes it."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode()
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def stamp(path: Path) -> str:
    """Name, size and time of a file that is only ever replaced as a whole: as good as a digest, and cheap."""
    found = path.stat()
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"


def tree_digest(folder: Path, ignored: frozenset[str] = frozenset()) -> str:
    """sha256 over names, permissions and contents of everything below `folder`; times and `ignored` names don't count."""
    parts: list[str] = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        relative = path.relative_to(folder)
        if not ignored.isdisjoint(relative.parts):
            continue
        if path.is_symlink():
            parts.append(f"link {relative} {path.readlink()}")
        elif path.is_file():
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            parts.append(f"file {relative} {path.stat().st_mode & 0o777:o} {content}")
    return digest(tuple(parts))
