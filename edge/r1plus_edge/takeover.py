"""The first minutes of software that takes over from another one: callers wait until it serves, else it goes back."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_edge.control import encode_answer
from r1plus_edge.controller import Controller
from r1plus_edge.errors import EdgeError
from r1plus_edge.handover import Handover, HandoverKind, tell_asker
from r1plus_edge.slots import make_current
from r1plus_edge.trial import settle_trial
from r1plus_edge.update import UpdateResult
from r1plus_edge.updater import describe_failing, describe_measurement

MOST_SECONDS: Final = 600.0
"""From its start until it serves: its engine is loaded, and the monitor asks a part of the suite again."""


@dataclass(slots=True)
class TakeOver:
    """What this software has to do before it is the one that serves."""

    handover: Handover
    clock: Callable[[], float] = time.monotonic
    own: Path = Path(sys.prefix)
    """Folder of this software."""
    may_listen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is a pod for the callers that wait."""
    is_done: bool = False
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def notice_pass(self, controller: Controller, *, is_serving: bool) -> UpdateResult | None:
        """Look at what the last pass has brought up; return the result once it serves.

        Raises:
            EdgeError: it does not come up, so that what served before has to.
        """
        if self.is_done:
            return None
        if controller.serving_pod is not None:
            self.may_listen.set()
        if is_serving:
            return self._finish(controller)
        problem = next(filter(None, map(describe_failing, controller.list_pods())), "")
        if self.clock() - self._began > MOST_SECONDS:
            problem = f"it does not serve after {MOST_SECONDS / 60:g} min"
        if problem and self.handover.kind is HandoverKind.FORWARD:
            raise EdgeError(problem)
        if problem:
            self.may_listen.set()  # Nothing else is left to wait for: callers hear that nothing serves.
        return None

    def _finish(self, controller: Controller) -> UpdateResult:
        self.is_done = True
        status = controller.objects.deployment["status"]
        serves = f"{status['revision']} ({status.get('engine', '')}) serves"
        if self.handover.kind is HandoverKind.BACK:
            result = UpdateResult(False, f"Fail, taken back, {serves}: {self.handover.problem}")
        else:
            make_current(self.own)  # Where it may not, who has asked does.
            settle_trial(controller.folder)
            measured = describe_measurement(status.get("verdict", ""), status.get("accuracy", ""))
            result = UpdateResult(True, f"{measured}, {serves} with the software in {self.own}")
        self.tell(result)
        return result

    def tell(self, result: UpdateResult) -> None:
        """Tell who asked."""
        tell_asker(self.handover.asker, encode_answer(result))
