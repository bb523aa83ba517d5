"""Keys for which passes were asked, in place of the work queue."""

from collections.abc import Callable
from dataclasses import dataclass, field

from r1plus_operator.observe.keys import PassKey
from r1plus_operator.runtime.fairness import Priority


@dataclass
class EnqueuedKeys:
    """List that an observer enqueues into."""

    all: list[PassKey] = field(default_factory=list)
    urgent: list[PassKey] = field(default_factory=list)
    """Those of them with that priority."""
    edits: list[PassKey] = field(default_factory=list)
    """Those of them that their namespace's pace may hold back."""
    on_add: Callable[[PassKey, Priority], object] | None = None
    """Called with each key."""

    def __call__(self, key: PassKey, priority: Priority = Priority.NORMAL, *, is_edit: bool = False) -> None:
        """Note the key (`keys.Enqueue`)."""
        self.all.append(key)
        if priority is Priority.URGENT:
            self.urgent.append(key)
        if is_edit:
            self.edits.append(key)
        if self.on_add is not None:
            self.on_add(key, priority)

    def take(self) -> list[PassKey]:
        """Return the keys since the last call, each once and the urgent ones first."""
        keys = list(dict.fromkeys([*self.urgent, *self.all]))
        self.clear()
        return keys

    def clear(self) -> None:
        """Forget them."""
        for keys in (self.all, self.urgent, self.edits):
            keys.clear()
