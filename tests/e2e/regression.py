"""Another engine for a deployment that serves: refused by its gate, then forced past it, and found out by its monitor."""

import time
from concurrent.futures import Future
from dataclasses import dataclass

from e2e import story
from e2e.asking import Asker
from e2e.background import run_in_background
from e2e.kube import Json
from e2e.story import FULL_Q4, FULL_Q4_OBSERVE, Alert, Name
from e2e.target import Target
from e2e.tiers import FirstDay, first_day
from e2e.waiting import wait_for
from r1plus_cli.view import DeploymentView
from r1plus_contract.names import PORT_GRPC

CALM: Json = {"probesPerMinute": None}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came of the gate."""

    view: DeploymentView
    """How the deployment stands then."""
    before: str
    after: str
    """The revisions that took traffic."""
    failures: list[str]
    """Requests that failed meanwhile."""


class Regression:
    """`full` serves, and is then asked to serve from another engine: by its gate, which refuses, and past it."""

    def __init__(self, full: Name, accuracy: Json, target: Target) -> None:
        self.full, self._accuracy, self._target = full, accuracy, target
        self.first_day: Future[FirstDay]
        self.refused: Future[Refusal]
        self.alerted: Future[Alert]
        steps = (lambda: first_day(target, full), self._until_refused, self._until_alerted)
        self.first_day, self.refused, self.alerted = run_in_background(*steps)

    def _until_refused(self) -> Refusal:
        kube, full = self._target.kube, self.full
        before = story.serving_revision(kube, full)
        with self._target.reach(full.namespace, full.name, PORT_GRPC) as address, Asker(address, pause_s=1.0) as asker:
            kube.apply(story.deployment_in(FULL_Q4, self._accuracy))
            seen = story.follow(kube, [full], story.refused, "the gate refuses", print)[full]
        return Refusal(seen, before, story.serving_revision(kube, full), asker.failures)

    def _until_alerted(self) -> Alert:
        kube, since = self._target.kube, time.time()
        before = story.serving_revision(kube, self.full)
        kube.apply(story.deployment_in(FULL_Q4_OBSERVE, self._accuracy))
        wait_for(lambda: story.serving_revision(kube, self.full) != before, "traffic moves")
        alert = story.until_alert(self._target, self.full, since, print)
        # The other gates need the processors more than an engine that is known to be worse.
        kube.patch("r1plusdeployments", self.full.namespace, self.full.name, {"spec": {"accuracy": CALM}})
        return alert
