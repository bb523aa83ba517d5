"""Running requests of an engine that returns the new tokens of all requests at once, until the loop reads them.

Used by `vllm_engine`, `trtllm_engine` and `torch_engine`, only from the loop's thread.
"""

from collections.abc import Callable, Hashable, Sequence

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.requests import RefusedError


class EngineGeneration:
    """The loop's `Handle`."""

    def __init__(self, cancel: Callable[[], None], constraint: str) -> None:
        self._cancel = cancel
        self._ids: list[int] = []
        self.constraint = constraint
        """Input that constrains the answer; empty without one."""
        self.refusal = ""
        self._reason: FinishReason | None = None

    def read(self) -> tuple[Sequence[int], FinishReason | None]:
        """See `Handle`."""
        if self.refusal:
            raise RefusedError(self.refusal)
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
        self._running: dict[Hashable, EngineGeneration] = {}

    def begin(self, request_id: Hashable, constraint: str = "") -> EngineGeneration:
        """Register a request that the engine accepted. `constraint` names the input that constrains its answer."""
        generation = self._running[request_id] = EngineGeneration(lambda: self._cancel_request(request_id), constraint)
        return generation

    def refuse(self, request_id: Hashable, reason: str) -> bool:
        """End a request on which the engine failed. Return False unless its constraint may be the cause."""
        generation = self._running[request_id]
        if not generation.constraint:
            return False
        generation.refusal = f"{generation.constraint}: the engine failed on it: {reason}"
        del self._running[request_id]
        return True

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
