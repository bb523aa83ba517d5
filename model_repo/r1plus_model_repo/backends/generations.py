"""Who runs, in an engine that gives out the new tokens of all requests at once: they wait here until the loop reads.

Used by `vllm_engine` and `trtllm_engine`, from the loop's thread only.
"""

from collections.abc import Callable, Hashable, Sequence

from r1plus_contract.inference import FinishReason


class Generation:
    """The loop's `Handle`."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._ids: list[int] = []
        self._reason: FinishReason | None = None

    def read(self) -> tuple[Sequence[int], FinishReason | None]:
        """See `Handle`."""
        ids, self._ids = self._ids, []
        return ids, self._reason

    def cancel(self) -> None:
        """See `Handle`."""
        self._cancel()

    def push(self, ids: Sequence[int], reason: FinishReason | None) -> None:
        """What the engine gave out for it."""
        self._ids.extend(ids)
        self._reason = reason


class Generations:
    """Those that run, by the engine's own ids. `cancel` tells the engine to let one go."""

    def __init__(self, cancel: Callable[[Hashable], None]) -> None:
        self._cancel = cancel
        self._running: dict[Hashable, Generation] = {}

    def begin(self, request_id: Hashable) -> Generation:
        """The engine has taken a request."""
        generation = self._running[request_id] = Generation(lambda: self._let_go(request_id))
        return generation

    def push(self, request_id: Hashable, ids: Sequence[int], reason: FinishReason | None) -> None:
        """New tokens of a request, and why it ended, once it has."""
        self._running[request_id].push(ids, reason)
        if reason is not None:
            del self._running[request_id]

    def __contains__(self, request_id: Hashable) -> bool:
        """Does it run? What still comes for one that was cancelled is nobody's."""
        return request_id in self._running

    def _let_go(self, request_id: Hashable) -> None:
        if self._running.pop(request_id, None) is not None:
            self._cancel(request_id)
