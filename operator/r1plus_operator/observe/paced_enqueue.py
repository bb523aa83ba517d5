"""What the observer enqueues by: edits at their namespace's pace, and what lists bring behind everything else."""

from functools import partial

from r1plus_operator.observe.keys import PassKey
from r1plus_operator.runtime.fairness import Pace, Priority
from r1plus_operator.runtime.queue import WorkQueue


class PacedEnqueue:
    """`keys.Enqueue` into a work queue."""

    def __init__(self, queue: WorkQueue[PassKey], pace: Pace[tuple[str, ...]]) -> None:
        self._queue = queue
        self._pace = pace

    def __call__(self, key: PassKey, priority: Priority = Priority.NORMAL, *, is_edit: bool = False) -> None:
        """Enqueue a key, or an edit's key once its namespace's pace lets it through."""
        if is_edit:
            # The edit filter's key of the same CR is another one.
            if self._pace.take_turn((key.namespace, str(key)), partial(self._queue.add, key)):
                self._queue.add(key)
            return
        # Before the first pass everything comes from lists.
        is_listed = priority is Priority.NORMAL and not self._queue.has_workers
        self._queue.add(key, Priority.LOW if is_listed else priority)
