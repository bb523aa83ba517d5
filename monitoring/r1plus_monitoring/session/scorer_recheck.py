"""Whether the scorer is still what it was: asked by whoever is about to call an engine bad, answered by the prober.

A scorer that breaks while a pod lives makes a sound engine look bad within a dozen probes, long before the next replay
is due. So before an alarm is counted and before a gate's Fail is written down, everything mounted is read and replayed
again; where recorded answers get other scores, the episode ends as `SuiteMismatch` and nothing is said of the engine.
"""

import asyncio


class Doubt:
    """One question at a time."""

    def __init__(self) -> None:
        self.raised = asyncio.Event()
        """Set while somebody waits."""
        self._answered = asyncio.Event()

    async def settled(self) -> None:
        """Return once a replay that began after this call has found nothing; never, where it found something."""
        self._answered.clear()
        self.raised.set()
        await self._answered.wait()

    def answer(self) -> None:
        """The scorer is what it was, or whoever asked is gone."""
        self.raised.clear()
        self._answered.set()
