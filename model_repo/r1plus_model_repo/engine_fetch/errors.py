"""Why a volume was not filled."""

from r1plus_contract.engine_fetch import EXIT_PERMANENT, EXIT_RETRYABLE, FillRefusal

_PASSING = frozenset(
    {
        FillRefusal.FETCH_FAILED,
        FillRefusal.FETCH_STALLED,
        FillRefusal.STORAGE_FULL,
        FillRefusal.STORAGE_FAILED,
        FillRefusal.BUILD_FAILED,
    }
)
"""What may be otherwise at the next attempt."""


class FillError(Exception):
    """`reason` is stable, for the operator; the message says what to do."""

    def __init__(self, reason: FillRefusal, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason

    @property
    def exit_code(self) -> int:
        """Whether the Job should try again."""
        return EXIT_RETRYABLE if self.reason in _PASSING else EXIT_PERMANENT
