"""Another engine for a deployment that serves: refused by its gate, then forced past it, and found out by its monitor."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from e2e import gateways, story
from e2e.background import run_in_background
from e2e.gateways import GatewayAsker
from e2e.kube import Json
from e2e.story import FULL_Q4, FULL_Q4_OBSERVE, Alert, Name
from e2e.target import Target
from e2e.tiers import FirstDay, first_day
from e2e.waiting import wait_for
from r1plus_cli.deployment.view import DeploymentView

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
    """Requests to the gateway that failed meanwhile."""
    revisions: set[str]
    """Those that the answers name in their headers."""


@dataclass(frozen=True, slots=True)
class ForcedThrough:
    """What came of it past the gate."""

    alert: Alert
    failures: list[str]
    """Requests to the gateway that failed while traffic moved."""


class Regression:
    """`full` serves, and is then asked to serve from another engine: by its gate, which refuses, and past it."""

    def __init__(self, full: Name, accuracy: Json, target: Target) -> None:
        self.full, self._accuracy, self._target = full, accuracy, target
        self.first_day: Future[FirstDay]
        self.refused: Future[Refusal]
        self.alerted: Future[ForcedThrough]
        steps = (lambda: first_day(target, full), self._until_refused, self._until_alerted)
        self.first_day, self.refused, self.alerted = run_in_background(*steps)

    def _until_refused(self) -> Refusal:
        kube, full = self._target.kube, self.full
        before = story.serving_revision(kube, full)
        with self._asking() as asker:
            kube.apply(story.deployment_in(FULL_Q4, self._accuracy))
            seen = story.follow(kube, [full], story.refused, "the gate refuses", print)[full]
        return Refusal(seen, before, story.serving_revision(kube, full), asker.failures, asker.revisions)

    def _until_alerted(self) -> ForcedThrough:
        kube, since = self._target.kube, time.time()
        before = story.serving_revision(kube, self.full)
        with self._asking() as asker:
            kube.apply(story.deployment_in(FULL_Q4_OBSERVE, self._accuracy))
            wait_for(lambda: story.serving_revision(kube, self.full) != before, "traffic moves")
            after = story.serving_revision(kube, self.full)
            wait_for(lambda: after in asker.revisions, f"the gateway answers with {after}", asker.summary)
        alert = story.until_alert(self._target, self.full, since, print)
        # The other gates need the processors more than an engine that is known to be worse.
        kube.patch("r1plusdeployments", self.full.namespace, self.full.name, {"spec": {"accuracy": CALM}})
        return ForcedThrough(alert, asker.failures)

    @contextmanager
    def _asking(self) -> Iterator[GatewayAsker]:
        """Ask the tenant's gateway all the time."""
        kube, full = self._target.kube, self.full
        gateways.until_ready(kube, full.namespace, print)
        key = gateways.create_key(kube, full.namespace, "story")
        with gateways.reach(self._target, full.namespace) as url:
            with gateways.open_client(url, key.secret) as client:
                gateways.until_verified(client, kube, full)
            with GatewayAsker(url, pause_s=1.0, key=key.secret, model=full.name) as asker:
                yield asker
