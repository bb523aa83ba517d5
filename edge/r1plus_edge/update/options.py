"""The options of `serve`, with which an update can be put on top of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from r1plus_edge.start.options import ServeOptions
from r1plus_edge.update.request import UpdateRequest


@dataclass(frozen=True, slots=True)
class UpdatableOptions(ServeOptions):
    """What to serve, and how an update changes it."""

    reread: Callable[[UpdateRequest], "UpdatableOptions"] = field(kw_only=True)
    """Return these options with those of an update on top. EdgeError: they cannot be read."""
