"""Running requests of an engine that returns the new tokens of all requests at once, until the loop reads them.

Used by `vllm_engine` and `trtllm_engine`, only from the loop's thread.
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
        """Add tokens that the engine returned."""
        self._ids.extend(ids)
        self._reason = reason


class Generations:
    """Running generations by the engine's ids. `cancel` tells the engine to stop one."""

    def __init__(self, cancel: Callable[[Hashable], None]) -> None:
        self._cancel = cancel
        self._running: dict[Hashable, Generation] = {}

    def begin(self, request_id: Hashable) -> Generation:
        """Register a request that the engine accepted."""
        generation = self._running[request_id] = Generation(lambda: self._cancel_request(request_id))
        return generation

    def push(self, request_id: Hashable, ids: Sequence[int], reason: FinishReason | None) -> None:
        """Add new tokens of a request and, once it has ended, the reason."""
        self._running[request_id].push(ids, reason)
        if reason is not None:
            del self._running[request_id]

    def __contains__(self, request_id: Hashable) -> bool:
        """Return whether the request runs. Tokens of a cancelled one are dropped."""
        return request_id in self._running

    def _cancel_request(self, request_id: Hashable) -> None:
        if self._running.pop(request_id, None) is not None:
            self._cancel(request_id)
