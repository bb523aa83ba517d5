"""Poller of Prometheus: is a deployment's rule loaded, are its pods scraped? Changes enqueue the deployment.

Runs as one task of main. A PrometheusRule that no Prometheus selects never alerts, and nothing in Kubernetes says so.

A Prometheus may have tens of thousands of targets and rules of others, some 3 kB each. So rules are requested by group,
and an answer is read up to a limit. If all targets together exceed it, each deployment's scrape pools are requested
separately.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import aiohttp
import orjson

from r1plus_contract.process.streams import read_at_most
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.plan.manifests.alerts import format_group_name, list_scrape_pools
from r1plus_operator.plan.observation import PrometheusView, RuleFacts, TargetFacts

Key = tuple[str, str]
Targets = Mapping[Key, tuple[TargetFacts, ...]]
log = logging.getLogger(__name__)
TIMEOUT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 120.0
"""How long the last answer counts while Prometheus does not answer: a restart is no news."""
RULES: Final = "/api/v1/rules?type=alert&exclude_alerts=true"
GROUPS_AT_ONCE: Final = 40
"""Deployments in one request, so that its URL stays below 8 kB."""
TARGETS: Final = "/api/v1/targets?state=active"
MOST_BYTES: Final = 4 * 2**20
"""Of one answer: some 1,300 targets, or the rules of 40 deployments several times. Parsed, it takes six times that."""
MOST_TEXT: Final = 500
"""Characters of an error that Prometheus reports."""


MOST_TOO_LARGE: Final = 3
"""Groups of rules that are ignored; with more, the whole answer is an error."""


class TooLargeError(ValueError):
    """An answer exceeds MOST_BYTES."""


class PrometheusSink(Protocol):
    """Where the views go; `observe.Observer`."""

    crs: dict[DeploymentKey, Any]
    """The deployments to ask about, by namespace and name."""

    def update_prometheus(self, view: PrometheusView) -> None:
        """Store what Prometheus answered last."""


def open_session() -> aiohttp.ClientSession:
    """Return the session for Prometheus."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))


class PrometheusPoller:
    """Poller of rules and targets, every `interval` seconds, jittered."""

    def __init__(
        self,
        observer: PrometheusSink,
        url: str,
        interval: float,
        rand: random.Random,
        clock: Callable[[], float] = time.monotonic,
        open_session: Callable[[], aiohttp.ClientSession] = open_session,
    ) -> None:
        """Take Prometheus' `url` as seen inside the cluster."""
        self._observer = observer
        self._url = url.rstrip("/")
        self._interval = interval
        self._rand = rand
        self._clock = clock
        self._open_session = open_session
        self._answered_at = float("-inf")
        self._by_pool = False
        """Whether all targets together have exceeded MOST_BYTES."""
        self.first_round = asyncio.Event()
        """Set after the first round: before it, nothing is known of the alerts."""

    async def run(self) -> None:
        """Poll until cancelled."""
        async with self._open_session() as session:
            while True:
                self.publish(await self.poll(session))
                self.first_round.set()
                await asyncio.sleep(self._interval * self._rand.uniform(0.8, 1.2))

    def publish(self, view: PrometheusView) -> None:
        """Pass a view on, unless it is a failure that has not lasted PATIENCE_SECONDS."""
        if not view.error:
            self._answered_at = self._clock()
        if not view.error or self._clock() - self._answered_at > PATIENCE_SECONDS:
            self._observer.update_prometheus(view)

    async def poll(self, session: aiohttp.ClientSession) -> PrometheusView:
        """Request rules and targets once; a failure becomes a view with the error."""
        keys = sorted(self._observer.crs)
        try:
            return PrometheusView(
                self._url, "", await self._fetch_rules(session, keys), await self._fetch_targets(session, keys)
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            message = str(error)[:MOST_TEXT] or type(error).__name__
            log.debug("Prometheus at %s did not answer: %s", self._url, message)
            return PrometheusView(self._url, message)

    async def _fetch_rules(
        self, session: aiohttp.ClientSession, keys: Sequence[Key]
    ) -> Mapping[str, tuple[RuleFacts, ...]]:
        """Return the rules of these deployments. A server without filters answers with all that it has."""
        rules: dict[str, tuple[RuleFacts, ...]] = {}
        for start in range(0, len(keys), GROUPS_AT_ONCE):
            groups = [format_group_name(*key) for key in keys[start : start + GROUPS_AT_ONCE]]
            rules |= await self._fetch_rule_groups(session, groups)
        return rules

    async def _fetch_rule_groups(
        self, session: aiohttp.ClientSession, groups: Sequence[str]
    ) -> Mapping[str, tuple[RuleFacts, ...]]:
        """Return the rules of these groups. A group that is too large by itself is ignored and hides no other.

        If several are too large, the server knows no filter, and each answer is all that it has.
        """
        try:
            return await self._fetch_groups(session, groups)
        except TooLargeError:
            if len(groups) == 1:
                raise
        rules: dict[str, tuple[RuleFacts, ...]] = {}
        too_large = 0
        for group in groups:
            try:
                rules |= await self._fetch_groups(session, [group])
            except TooLargeError as error:
                too_large += 1
                if too_large > MOST_TOO_LARGE:
                    raise
                log.warning("Rule group %s was invalid and ignored: %s", group, error)
        return rules

    async def _fetch_groups(
        self, session: aiohttp.ClientSession, groups: Sequence[str]
    ) -> Mapping[str, tuple[RuleFacts, ...]]:
        rules = parse_rules(await self._fetch(session, RULES, [("rule_group[]", group) for group in groups]))
        return {group: rules[group] for group in groups if group in rules}

    async def _fetch_targets(self, session: aiohttp.ClientSession, keys: Sequence[Key]) -> Targets:
        if not self._by_pool:
            try:
                return parse_targets(await self._fetch(session, TARGETS))
            except TooLargeError as error:
                log.info("Prometheus does not list all targets at once, asking per scrape pool: %s", error)
                self._by_pool = True
        by_pod: dict[Key, tuple[TargetFacts, ...]] = {}
        # One after the other, to spare Prometheus a burst.
        for pool in (pool for key in keys for pool in list_scrape_pools(*key)):
            try:
                targets = parse_targets(await self._fetch(session, TARGETS, [("scrapePool", pool)]))
            except TooLargeError as error:
                log.warning("Scrape pool %s was invalid and ignored: %s", pool, error)
                continue
            for pod, facts in targets.items():
                by_pod[pod] = (*by_pod.get(pod, ()), *facts)
        return by_pod

    async def _fetch(
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
        data: Mapping[str, Any] = body["data"]
        return data


def parse_rules(data: Mapping[str, Any]) -> Mapping[str, tuple[RuleFacts, ...]]:
    """Return group name -> its rules."""
    return {
        group["name"]: tuple(
            RuleFacts(rule["name"], rule.get("query", ""), rule.get("lastError", "")[:MOST_TEXT])
            for rule in group["rules"]
        )
        for group in data["groups"]
    }


def parse_targets(data: Mapping[str, Any]) -> Targets:
    """Return (namespace, pod) -> its targets."""
    by_pod: dict[Key, tuple[TargetFacts, ...]] = {}
    for target in data["activeTargets"]:
        labels = target["labels"]
        if "namespace" in labels and "pod" in labels:
            facts = TargetFacts(labels.get("endpoint", ""), target["health"], target.get("lastError", "")[:MOST_TEXT])
            key = labels["namespace"], labels["pod"]
            by_pod[key] = (*by_pod.get(key, ()), facts)
    return by_pod
