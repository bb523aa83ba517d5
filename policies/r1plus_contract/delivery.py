"""The digest of a delivered engine: a folder of files, tokenizer and chat template included.

Shared by who makes an engine (model_repo), who verifies it in the pod, and who shows it.
"""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def listing(folder: Path) -> str:
    """`sha256sum`-style lines (digest, two spaces, POSIX path) of every file below `folder`, sorted by path.

    Links, special files and unprintable names raise ValueError: an engine holds plain files only.
    """
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)}: an engine may hold plain files only")
        if not path.name.isprintable():
            # A line break in a name would let two different folders have one listing.
            raise ValueError(f"{path.name!r:.200}: an engine's names have printable characters only")
        if path.is_file():
            lines.append(f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def listed(text: str) -> dict[str, str]:
    """Path -> sha256 of what a `listing` says."""
    lines = (line.split("  ", 1) for line in text.split("\n") if line)
    return {path: digest for digest, path in lines}


def digest_of_listing(text: str) -> str:
    """The digest of an engine whose `listing` that is. 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(folder: Path) -> str:
    """The engine's digest: sha256 over `listing`. 64 hex digits."""
    return digest_of_listing(listing(folder))
