"""Where the paths and ports of a pod are on this machine.

A container's command, environment and settings name paths and ports inside the pod. There are no mounts and no network
of its own here, so they are translated: a mount to a folder, a container's port to one of loopback or to a socket.
"""

import contextlib
import errno
import os
import re
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
_SCRIPT_FLAGS: Final = frozenset({"-c", "-ec"})
"""After one of these, a shell reads a script."""


@dataclass(frozen=True, slots=True)
class PodPlaces:
    """The places of one pod, or of one container of it."""

    folders: Mapping[str, Path]
    """Path of a mount -> folder."""
    ports: Mapping[int, int]
    sockets: Mapping[int, Path] = field(default_factory=dict)
    """Port of the pod -> the Unix socket that is here instead."""

    def find(self, path: str) -> Path:
        """Return where a path of the pod is. KeyError: no mount has it."""
        mount = next(one for one in self._mounts() if path == one or path.startswith(f"{one}/"))
        return self.folders[mount] / path[len(mount) :].lstrip("/")

    def translate(self, text: str, *, is_script: bool = False) -> str:
        """Return the text with this machine's paths and ports; those in a shell's script are quoted."""
        # Ports first: a folder's own name may look like one.
        for port, actual in self.ports.items():
            text = re.sub(rf"(?<=[=/:]){port}(?![\w.])", str(actual), text)
        if self.folders:
            mounts = "|".join(map(re.escape, self._mounts()))
            text = re.sub(rf"(?<![\w./-])({mounts})(?=/|$|[^\w.-])", lambda m: self._quote(m[1], is_script), text)
        return text

    def translate_command(self, words: Sequence[str]) -> list[str]:
        """Return a command for this machine."""
        previous, translated = "", []
        for word in words:
            translated.append(self.translate(word, is_script=previous in _SCRIPT_FLAGS))
            previous = word
        return translated

    def translate_document(self, document: Any) -> Any:
        """Return a JSON document with this machine's paths."""
        if isinstance(document, dict):
            return {key: self.translate_document(value) for key, value in document.items()}
        if isinstance(document, list):
            return [self.translate_document(value) for value in document]
        return self.translate(document) if isinstance(document, str) else document

    def _mounts(self) -> list[str]:
        return sorted(self.folders, key=len, reverse=True)

    def _quote(self, mount: str, is_script: bool) -> str:
        folder = str(self.folders[mount])
        return shlex.quote(folder) if is_script else folder


def find_free_port() -> int:
    """Return a port of loopback that is free at this moment."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there. OSError: the address is none of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Name a socket by its open folder: the kernel takes 107 bytes for a path, and a data folder's may be longer.

    Raises:
        OSError: the folder cannot be opened.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
