"""The digest of a delivered engine: a folder of files, tokenizer and chat template included.

Used to build an engine (model_repo), to verify it in the pod, and to show it.
"""

import hashlib
from pathlib import Path


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def build_listing(folder: Path) -> str:
    """Return `sha256sum`-style lines (digest, two spaces, POSIX path) of every file below `folder`, sorted by path.

    ValueError for links, special files and unprintable names: an engine contains plain files only.
    """
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)}: an engine may hold plain files only")
        if not path.name.isprintable():
            # A line break in a name would let two different folders have one listing.
            raise ValueError(f"{path.name!r:.200}: an engine's names have printable characters only")
        if path.is_file():
            lines.append(f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def parse_listing(text: str) -> dict[str, str]:
    """Parse a listing: path -> sha256."""
    lines = (line.split("  ", 1) for line in text.split("\n") if line)
    return {path: digest for digest, path in lines}


def digest_listing(text: str) -> str:
    """Return the digest of an engine by its listing. 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_folder(folder: Path) -> str:
    """Return the engine's digest: sha256 over its listing. 64 hex digits."""
    return digest_listing(build_listing(folder))
