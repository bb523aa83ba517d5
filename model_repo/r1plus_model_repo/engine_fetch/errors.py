"""The error that says why a volume has no engine."""

from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, EXIT_RETRYABLE, FillRefusal

_RETRYABLE = frozenset(
    {
        FillRefusal.FETCH_FAILED,
        FillRefusal.FETCH_STALLED,
        FillRefusal.STORAGE_FULL,
        FillRefusal.STORAGE_FAILED,
        FillRefusal.BUILD_FAILED,
    }
)
"""Another attempt may succeed."""


class FillError(Exception):
    """An engine could not be fetched. `reason` is stable, for the operator; the message says what to do."""

    def __init__(self, reason: FillRefusal, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason

    @property
    def exit_code(self) -> int:
        """EXIT_RETRYABLE if the Job should retry, otherwise EXIT_PERMANENT."""
        return EXIT_RETRYABLE if self.reason in _RETRYABLE else EXIT_PERMANENT
