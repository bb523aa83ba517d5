"""The verbs that this add-on has of `r1plus engine`, by their names; `r1plus_cli.assembly` adds them."""

from collections.abc import Callable, Mapping
from typing import Final

from r1plus_training.engine_distil import distil_command
from r1plus_training.engine_export import export_command
from r1plus_training.engine_reinforce import reinforce_command

COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "distill": distil_command,
    "reinforce": reinforce_command,
    "export": export_command,
}
