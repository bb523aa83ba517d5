"""Asks Prometheus itself whether a deployment's rule is loaded and its pods are scraped; enqueues whom it concerns.

Runs as one task of main, beside the verdict source. An applied PrometheusRule that no Prometheus selects alerts nobody,
and nothing in Kubernetes says so: only Prometheus can.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import aiohttp

from r1plus_operator.plan.inputs import PrometheusView, RuleFacts, TargetFacts

log = logging.getLogger(__name__)
TIMEOUT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 120.0
"""What Prometheus said last counts for so long while it does not answer: it restarts, too, and that is no news."""
RULES: Final = "/api/v1/rules?type=alert&exclude_alerts=true"
TARGETS: Final = "/api/v1/targets?state=active"


class Listener(Protocol):
    """Who is told; `observe.Observer`."""

    def take_prometheus(self, view: PrometheusView) -> None:
        """What Prometheus said last."""


class PrometheusSource:
    """Polls rules and targets every `interval` seconds, jittered."""

    def __init__(
        self,
        observer: Listener,
        url: str,
        interval: float,
        rand: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` as a client inside the cluster reaches Prometheus."""
        self._observer = observer
        self._url = url.rstrip("/")
        self._interval = interval
        self._rand = rand
        self._clock = clock
        self._answered_at = float("-inf")
        self.asked = asyncio.Event()
        """Set after the first look: before it, nothing is known of the alerts."""

    async def run(self) -> None:
        """Ask for ever."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self.take(await self.ask(session))
                self.asked.set()
                await asyncio.sleep(self._interval * self._rand.uniform(0.8, 1.2))

    def take(self, view: PrometheusView) -> None:
        """Hand a look on, unless it is a failure that has not lasted yet."""
        if not view.error:
            self._answered_at = self._clock()
        if not view.error or self._clock() - self._answered_at > PATIENCE_SECONDS:
            self._observer.take_prometheus(view)

    async def ask(self, session: aiohttp.ClientSession) -> PrometheusView:
        """One look. An answer that cannot be had or read is a view that says so."""
        try:
            rules = await self._get(session, RULES)
            targets = await self._get(session, TARGETS)
            return PrometheusView(self._url, "", rules_of(rules), targets_of(targets))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            said = str(error) or type(error).__name__
            log.debug("Prometheus at %s gave no answer: %s", self._url, said)
            return PrometheusView(self._url, said)

    async def _get(self, session: aiohttp.ClientSession, path: str) -> Mapping[str, Any]:
        async with session.get(self._url + path, allow_redirects=False) as response:
            response.raise_for_status()
            body = await response.json(content_type=None)
        if body["status"] != "success":
            raise ValueError(f"{path}: status {body['status']}: {body.get('error', '')}")
        found: Mapping[str, Any] = body["data"]
        return found


def rules_of(data: Mapping[str, Any]) -> Mapping[str, tuple[RuleFacts, ...]]:
    """Group name -> its rules."""
    return {
        group["name"]: tuple(
            RuleFacts(rule["name"], rule.get("query", ""), rule.get("lastError", "")) for rule in group["rules"]
        )
        for group in data["groups"]
    }


def targets_of(data: Mapping[str, Any]) -> Mapping[tuple[str, str], tuple[TargetFacts, ...]]:
    """(namespace, pod) -> what is scraped of it."""
    found: dict[tuple[str, str], tuple[TargetFacts, ...]] = {}
    for target in data["activeTargets"]:
        labels = target["labels"]
        if "namespace" in labels and "pod" in labels:
            facts = TargetFacts(labels.get("endpoint", ""), target["health"], target.get("lastError", ""))
            key = labels["namespace"], labels["pod"]
            found[key] = (*found.get(key, ()), facts)
    return found
