"""Another engine for a deployment that serves: refused by its gate, then forced past it, and found out by its monitor."""

import time
from concurrent.futures import Future

from e2e import story
from e2e.asking import Asker
from e2e.background import run_in_background
from e2e.story import FULL_Q4, FULL_Q4_OBSERVE, Alert, Name
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_cli.view import DeploymentView
from r1plus_contract.names import PORT_GRPC


class Regression:
    """`full` is asked to serve from another engine: by its gate, which refuses, and then past it."""

    def __init__(self, full: Name, target: Target) -> None:
        self.full, self._target = full, target
        self.before = story.serving_revision(target.kube, full)
        self.refused: Future[tuple[DeploymentView, str, list[str]]]
        """How it stands then, the revision that takes traffic, and requests that failed meanwhile."""
        self.alerted: Future[Alert]
        self.refused, self.alerted = run_in_background(self._until_refused, self._until_alerted)

    def _until_refused(self) -> tuple[DeploymentView, str, list[str]]:
        kube, full = self._target.kube, self.full
        with self._target.reach(full.namespace, full.name, PORT_GRPC) as address, Asker(address, pause_s=1.0) as asker:
            story.apply(kube, FULL_Q4)
            seen = story.follow(kube, [full], story.refused, "the gate refuses", print)[full]
        return seen, story.serving_revision(kube, full), asker.failures

    def _until_alerted(self) -> Alert:
        kube, since = self._target.kube, time.time()
        story.apply(kube, FULL_Q4_OBSERVE)
        wait_for(lambda: story.serving_revision(kube, self.full) != self.before, "traffic moves")
        return story.until_alert(self._target, self.full, since, print)
