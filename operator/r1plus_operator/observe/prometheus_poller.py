"""Asks Prometheus itself whether a deployment's rule is loaded and its pods are scraped; enqueues whom it concerns.

Runs as one task of main, beside the verdict source. An applied PrometheusRule that no Prometheus selects alerts nobody,
and nothing in Kubernetes says so: only Prometheus can.

It may have tens of thousands of targets and rules of others, of some 3 kB each. So rules are asked for by group, and an
answer is read up to a limit. Where all targets together exceed it, each deployment's scrape pools are asked for alone.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import aiohttp
import orjson

from r1plus_contract.streams import read_at_most
from r1plus_operator.plan.manifests.alerts import format_group_name, list_scrape_pools
from r1plus_operator.plan.observation import PrometheusView, RuleFacts, TargetFacts

Key = tuple[str, str]
Targets = Mapping[Key, tuple[TargetFacts, ...]]
log = logging.getLogger(__name__)
TIMEOUT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 120.0
"""What Prometheus said last counts for so long while it does not answer: it restarts, too, and that is no news."""
RULES: Final = "/api/v1/rules?type=alert&exclude_alerts=true"
GROUPS_AT_ONCE: Final = 40
"""Of so many deployments in one request: its address stays below 8 kB."""
TARGETS: Final = "/api/v1/targets?state=active"
MOST_BYTES: Final = 4 * 2**20
"""Of one answer: some 1,300 targets, or the rules of 40 deployments several times. Read, it takes six times as much."""
MOST_TEXT: Final = 500
"""Characters of an error that Prometheus reports."""


MOST_TOO_LARGE: Final = 3
"""Groups of rules that are passed over; with more, the whole answer is an error."""


class TooLargeError(ValueError):
    """An answer exceeds MOST_BYTES."""


class Listener(Protocol):
    """Who is told; `observe.Observer`."""

    crs: dict[tuple[str, str], Any]
    """By namespace and name: the deployments that Prometheus is asked about."""

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
        self._by_pool = False
        """Whether all targets together have proved to be too many."""
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
        keys = sorted(self._observer.crs)
        try:
            return PrometheusView(self._url, "", await self._rules(session, keys), await self._targets(session, keys))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            said = str(error)[:MOST_TEXT] or type(error).__name__
            log.debug("Prometheus at %s did not answer: %s", self._url, said)
            return PrometheusView(self._url, said)

    async def _rules(self, session: aiohttp.ClientSession, keys: Sequence[Key]) -> Mapping[str, tuple[RuleFacts, ...]]:
        """Return the rules of these deployments. A server that knows no filter answers with all that it has."""
        found: dict[str, tuple[RuleFacts, ...]] = {}
        for start in range(0, len(keys), GROUPS_AT_ONCE):
            groups = [format_group_name(*key) for key in keys[start : start + GROUPS_AT_ONCE]]
            found |= await self._rules_of(session, groups)
        return found

    async def _rules_of(
        self, session: aiohttp.ClientSession, groups: Sequence[str]
    ) -> Mapping[str, tuple[RuleFacts, ...]]:
        """Return the rules of these groups. One that is too large by itself hides no other: it is passed over.

        Where several are, the server knows no filter, and each answer would be all that it has.
        """
        try:
            return await self._groups(session, groups)
        except TooLargeError:
            if len(groups) == 1:
                raise
        found: dict[str, tuple[RuleFacts, ...]] = {}
        too_large = 0
        for group in groups:
            try:
                found |= await self._groups(session, [group])
            except TooLargeError as error:
                too_large += 1
                if too_large > MOST_TOO_LARGE:
                    raise
                log.warning("Rule group %s was invalid and ignored: %s", group, error)
        return found

    async def _groups(
        self, session: aiohttp.ClientSession, groups: Sequence[str]
    ) -> Mapping[str, tuple[RuleFacts, ...]]:
        rules = rules_of(await self._get(session, RULES, [("rule_group[]", group) for group in groups]))
        return {group: rules[group] for group in groups if group in rules}

    async def _targets(self, session: aiohttp.ClientSession, keys: Sequence[Key]) -> Targets:
        if not self._by_pool:
            try:
                return targets_of(await self._get(session, TARGETS))
            except TooLargeError as error:
                log.info("Prometheus does not list all targets at once, asking per scrape pool: %s", error)
                self._by_pool = True
        found: dict[Key, tuple[TargetFacts, ...]] = {}
        # One after the other: together they are a burst that Prometheus would feel.
        for pool in (pool for key in keys for pool in list_scrape_pools(*key)):
            try:
                targets = targets_of(await self._get(session, TARGETS, [("scrapePool", pool)]))
            except TooLargeError as error:
                log.warning("Scrape pool %s was invalid and ignored: %s", pool, error)
                continue
            for pod, facts in targets.items():
                found[pod] = (*found.get(pod, ()), *facts)
        return found

    async def _get(
        self, session: aiohttp.ClientSession, path: str, filters: Sequence[tuple[str, str]] = ()
    ) -> Mapping[str, Any]:
        async with session.get(self._url + path, params=filters, allow_redirects=False) as response:
            response.raise_for_status()
            text = await read_at_most(response.content.iter_chunked(64 * 1024), MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise TooLargeError(
                f"its answer to {path} is larger than {MOST_BYTES // 2**20} MiB and was not read; a Prometheus of"
                " that size must know the filters rule_group[] and scrapePool (2.44 and later do)"
            )
        body = orjson.loads(text)
        if body["status"] != "success":
            raise ValueError(f"{path}: status {body['status']}: {body.get('error', '')}")
        found: Mapping[str, Any] = body["data"]
        return found


def rules_of(data: Mapping[str, Any]) -> Mapping[str, tuple[RuleFacts, ...]]:
    """Group name -> its rules."""
    return {
        group["name"]: tuple(
            RuleFacts(rule["name"], rule.get("query", ""), rule.get("lastError", "")[:MOST_TEXT])
            for rule in group["rules"]
        )
        for group in data["groups"]
    }


def targets_of(data: Mapping[str, Any]) -> Targets:
    """(namespace, pod) -> what is scraped of it."""
    found: dict[Key, tuple[TargetFacts, ...]] = {}
    for target in data["activeTargets"]:
        labels = target["labels"]
        if "namespace" in labels and "pod" in labels:
            facts = TargetFacts(labels.get("endpoint", ""), target["health"], target.get("lastError", "")[:MOST_TEXT])
            key = labels["namespace"], labels["pod"]
            found[key] = (*found.get(key, ()), facts)
    return found
