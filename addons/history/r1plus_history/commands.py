"""The verbs that this add-on has of `r1plus`, by their names; `r1plus_cli.assembly` adds them."""

from collections.abc import Callable, Mapping
from typing import Final

from r1plus_history.verbs import engines_command, evaluations_command, history_command

COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "history": history_command,
    "evaluations": evaluations_command,
    "engines": engines_command,
}
