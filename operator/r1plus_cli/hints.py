"""Hints that work as printed: commands to run next, named the way this command was called.

In a clone it is .venv/bin/r1plus, next to .venv/bin/kubectl, or .venv-edge/bin/r1plus, and not on PATH. Hints say
`r1plus` and `kubectl`, also those in a status, which the operator wrote.
"""

import re
import shutil
import sys
from pathlib import Path

PROGRAM = "r1plus"
_VERBS = (
    "ack|advise|ask|audit|bundle|edge|engine|engines|evaluations|explain|fit|history|key|knowledge|pause|pin|plan"
    "|preflight|refresh|resume|rollback|rollouts|serve|status|suite|tenant|try|unpin|usage|validate|wait"
)
_COMMAND = re.compile(rf"(?<![\w./-])(?:{PROGRAM}(?= (?:{_VERBS})\b(?! runs))|kubectl(?= [a-z]))")


def runnable_hint(text: str, program: str | None = None) -> str:
    """Return `text` with commands named so that they can be run; `program` is by default the called one."""
    program_path = Path(sys.argv[0] if program is None else program)
    if program_path.name != PROGRAM:
        return text
    return _COMMAND.sub(lambda match: _resolve_command(match.group(), program_path), text)


def _resolve_command(name: str, program_path: Path) -> str:
    on_path, sibling = shutil.which(name), program_path.absolute().parent / name
    if on_path is not None and (name != PROGRAM or Path(on_path).absolute() == sibling):
        return name
    if name != PROGRAM and not sibling.exists():
        return name
    return str(sibling.relative_to(Path.cwd()) if sibling.is_relative_to(Path.cwd()) else sibling)
