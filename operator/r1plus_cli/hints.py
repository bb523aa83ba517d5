"""How this command was called: what it tells people to type next must work where they typed this.

In a clone it is .venv/bin/r1plus, beside .venv/bin/kubectl, and on nobody's PATH. Hints say `r1plus` and `kubectl`,
also those in a status, which the operator wrote.
"""

import re
import shutil
import sys
from pathlib import Path

NAME = "r1plus"
_VERBS = (
    "ack|ask|engine|engines|evaluations|explain|fit|history|pause|pin|plan|refresh|resume|rollback|rollouts|status"
    "|suite|unpin|validate"
)
_COMMAND = re.compile(rf"(?<![\w./-])(?:{NAME}(?= (?:{_VERBS})\b)|kubectl(?= [a-z]))")


def as_typed(text: str, typed: str | None = None) -> str:
    """`text` with commands named as they can be called; `typed` is the program's first word, by default this one's."""
    called = Path(sys.argv[0] if typed is None else typed)
    if called.name != NAME:
        return text
    return _COMMAND.sub(lambda found: _callable(found.group(), called), text)


def _callable(name: str, called: Path) -> str:
    on_path, beside = shutil.which(name), called.absolute().parent / name
    if on_path is not None and (name != NAME or Path(on_path).absolute() == beside):
        return name
    if name != NAME and not beside.exists():
        return name
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
