"""The first minutes of software that takes over from another one: callers wait until it serves, else it goes back."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from r1plus_contract.verdict import Gate, MonitorReport, Phase
from r1plus_edge.control import encode_answer
from r1plus_edge.controller import Controller
from r1plus_edge.errors import EdgeError
from r1plus_edge.report import list_conditions
from r1plus_edge.update.handover import Handover, HandoverKind, tell_asker
from r1plus_edge.update.request import UpdateResult
from r1plus_edge.update.slots import make_current
from r1plus_edge.update.trial import settle_trial
from r1plus_edge.update.updater import describe_failing, describe_measurement
from r1plus_edge.world import World

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

    def restrict(self, world: World) -> World:
        """Return the world in which this software serves only what passes its short check.

        In place the plan lets in what fails it, since nothing else could serve. What served before this software can.
        """
        is_forward = self.handover.kind is HandoverKind.FORWARD
        return _with_readmission(world, is_allowed=not is_forward)

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
        problem = find_problem(controller)
        if self.clock() - self._began > MOST_SECONDS:
            problem = problem or f"it does not serve after {MOST_SECONDS / 60:g} min"
        if problem and self.handover.kind is HandoverKind.FORWARD:
            raise EdgeError(problem)
        if problem:
            self.may_listen.set()  # Nothing else is left to wait for: callers hear that nothing serves.
        return None

    def _finish(self, controller: Controller) -> UpdateResult:
        self.is_done = True
        controller.world = _with_readmission(controller.world, is_allowed=True)
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


def _with_readmission(world: World, *, is_allowed: bool) -> World:
    return replace(world, config=replace(world.config, readmits_in_place=is_allowed))


def find_problem(controller: Controller) -> str:
    """Return why what was started does not serve, or not within minutes; empty: nothing says so."""
    pods = [pod for pod in controller.list_pods() if not pod.is_terminating]
    if not pods:
        conditions = controller.objects.deployment["status"].get("conditions", ())
        return f"the plan starts nothing: {'; '.join(list_conditions(conditions))}"
    # With `Observe` a monitor refuses nothing: one that cannot check its engine admits it when it is loaded.
    may_refuse = controller.request.spec.accuracy.gate is not Gate.OBSERVE
    reports = controller.reports if may_refuse else {}
    problems = (describe_failing(pod) or describe_refusal(reports.get(pod.name)) for pod in pods)
    return next(filter(None, problems), "")


def describe_refusal(report: MonitorReport | None) -> str:
    """Return why a monitor does not admit its pod, or only after a whole gate; empty: it has, or still may.

    The same engine has passed that gate in the trial: a short check is all that it takes here.
    """
    if report is None or report.admitted:
        return ""
    match report.phase:
        case Phase.BLOCKED:
            return f"its monitor cannot check the engine: {report.reason}: {report.message}"
        case Phase.WATCHING:
            return f"its engine has failed the gate: {report.reason}: {report.message}"
        case Phase.GATING if report.progress is None or not report.progress.is_short_check:
            return (
                "the engine answers otherwise than in its trial: its short check has failed, and a whole gate follows;"
                " see logs/monitor.log"
            )
        case _:
            return ""
