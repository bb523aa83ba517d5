"""What tests/apiserver imports from here until it waits through support.waiting itself."""

from collections.abc import Callable

from support import waiting


async def eventually(condition: Callable[[], object], deadline_s: float = waiting.DEADLINE_SECONDS) -> None:
    """Wait until the condition holds."""
    await waiting.eventually(condition, "the condition holds", deadline_s)
