"""How what serves becomes other software: one release starts another one, or turns into it by `exec`.

So process, lock, and the socket at which callers wait stay the same, and a service of systemd sees no change. Both
releases read this value: a new one may add fields, and changes none.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import ContractError, loads, to_jsonable
from r1plus_edge.errors import EdgeError
from r1plus_edge.start.background import ENV_PARENT
from r1plus_edge.update.request import UpdateRequest
from r1plus_edge.update.slots import find_program

ENV_HANDOVER: Final = "R1PLUS_SERVE_HANDOVER"
MOST_PROBLEM: Final = 8000
"""Characters: a variable has 128 KiB at most, and each may be written as six."""


class HandoverKind(StrEnum):
    """Why one release starts another one."""

    TRIAL = "Trial"
    """To gate it beside what serves, in a folder of its own."""
    FORWARD = "Forward"
    """To serve with it from now on."""
    BACK = "Back"
    """It has not come up, and what served before serves again."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What a release of r1plus says to the one that it starts."""

    kind: HandoverKind
    request: UpdateRequest = field(default_factory=UpdateRequest)
    """What the new software serves, on top of the options."""
    data: str = ""
    """Folder of a trial."""
    listener: int = 0
    """Descriptor of the socket at which callers wait."""
    asker: int = 0
    """Descriptor of the connection to who asked for the update."""
    former: str = ""
    """Folder of the software that served before."""
    problem: str = ""
    """Why it goes back."""

    def go_back(self, problem: str) -> "Handover":
        """Return the way back from software that has not come up."""
        # A path may have bytes that are no text.
        text = problem[-MOST_PROBLEM:].encode(errors="replace").decode()
        return replace(self, kind=HandoverKind.BACK, problem=text)


def take_handover(environ: MutableMapping[str, str] = os.environ) -> Handover | None:
    """Return what the release that started this process says, and remove it from the environment; None: none did.

    Raises:
        EdgeError: it cannot be read.
    """
    text = environ.pop(ENV_HANDOVER, "")
    try:
        return loads(Handover, text, tolerant=True) if text else None
    except ContractError as error:
        raise EdgeError(f"{ENV_HANDOVER}: {error}; another release of r1plus sets it: unset it") from error


def build_environment(handover: Handover) -> dict[str, str]:
    """Return the environment of the other release."""
    own = {name: value for name, value in os.environ.items() if name != ENV_PARENT}
    # In ASCII: a locale may have no bytes for what a log has said, and then nothing could be started.
    return own | {ENV_HANDOVER: json.dumps(to_jsonable(handover))}


def become(software: Path, words: Sequence[str], handover: Handover, descriptors: Iterable[int]) -> None:
    """Turn this process into other software. What it has started must have ended. It returns only by an error.

    `words`: the arguments that this process was started with; `descriptors`: open files that the other software gets.

    Raises:
        OSError: the software cannot be started.
    """
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    program = str(find_program(software))
    os.execve(program, [program, *words], build_environment(handover))  # noqa: S606 - our own program


def return_handover(handover: Handover, problem: str, words: Sequence[str]) -> None:
    """Let what served before serve again. It returns only where that cannot be started.

    The lock of the data folder has stayed open: nothing of this software has had it yet.
    """
    descriptors = tuple(filter(None, (handover.listener, handover.asker)))
    with contextlib.suppress(OSError):
        become(Path(handover.former), words, handover.go_back(problem), descriptors)


def tell_asker(descriptor: int, line: str) -> None:
    """Write a line to who asked for an update, if somebody has, and end the connection. It may be gone."""
    if descriptor:
        with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as connection:
            connection.sendall(f"{line}\n".encode(errors="replace"))
