"""The recheck of the scorer: requested before an engine is reported bad, answered by the prober.

A scorer that breaks while a pod runs makes a sound engine look bad within a dozen probes, long before the next replay
is due. So before an alarm is counted and before a gate's Fail is stored, all mounted files are read and replayed
again.
Where recorded answers get other scores, the session ends as `SuiteMismatch` and the engine is not blamed.
"""

import asyncio


class ScorerRecheck:
    """One request at a time."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        """Set while a caller waits."""
        self._confirmed = asyncio.Event()

    async def wait_until_confirmed(self) -> None:
        """Return once a replay that began after this call found no difference; never where it found one."""
        self._confirmed.clear()
        self.requested.set()
        await self._confirmed.wait()

    def confirm(self) -> None:
        """Report the scorer as unchanged; called also where no caller waits any more."""
        self.requested.clear()
        self._confirmed.set()
