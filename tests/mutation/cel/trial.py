"""A pytest plugin: runs the tests once, notes which rule refused a request of which, then drops one rule after the other.

A rule is killed if a test that it refused something to fails without it, and passes with it again. Tests keep the fixtures of
their module from one rule to the next. If a test fails with its rule restored, another test has left something behind: it has
a second try with new fixtures.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from _pytest.runner import runtestprotocol

from devcluster.apiserver_only import ApiServer
from mutation.cel.rules import Rule
from mutation.cel.servers import MutableServer, Refusal
from r1plus_operator.api import fence

FENCE = Rule("fence", fence.SUFFIX, (), 0, "", "")
"""Tests install this policy themselves, each for a namespace of its own."""
MOST_TRIES = 12
"""Tests that are run without a rule, the quickest first, before it counts as one that nothing guards."""


@dataclass(slots=True)
class Run:
    """A test as it ran with all rules."""

    item: pytest.Item
    began: datetime
    ended: datetime
    seconds: float
    has_passed: bool = True
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def module(self) -> str:
        """The file of the test."""
        return self.item.nodeid.split("::")[0]


class Trial:
    """The plugin, and what it has found out: the rule and the test that noticed its absence, if one did."""

    def __init__(self, rules: Sequence[Rule], say: Callable[[str], None]) -> None:
        self.killers: dict[Rule, str] = {}
        self.survivors: dict[Rule, str] = {}
        """Rule -> how many tests ran without it."""
        self.failed: list[str] = []
        self.unrepeatable: set[str] = set()
        """Tests that passed at first, and fail when they are run again with all rules: they judge nothing."""
        self._rules = rules
        self._say = say
        self._servers: list[MutableServer] = []
        self._runs: list[Run] = []
        self._rule: Rule | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[Any]:
        value = yield
        if isinstance(value, ApiServer) and all(one.server is not value for one in self._servers):
            self._add_server(value)
        return value

    @pytest.hookimpl
    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        for one in [one for one in self._servers if not one.is_running]:
            one.close()
            self._servers.remove(one)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out stories with Kubeflow's controllers: without an operator these tests ask the API server alone."""
        stories = [item for item in items if item.get_closest_marker("trainjob") and "operator" in item.fixturenames]  # type: ignore[attr-defined]
        items[:] = [item for item in items if item not in stories]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        self._run_all(session)
        by_rule = {rule: self._rank(rule) for rule in self._rules}
        for rule in sorted(by_rule, key=lambda rule: (by_rule[rule][0].module if by_rule[rule] else "", rule.id)):
            self._try_without(session, rule, by_rule[rule])
        session._setupstate.teardown_exact(None)
        for server in self._servers:
            server.close()
        return True

    def _run_all(self, session: pytest.Session) -> None:
        """Run each test, and read what was refused before the servers of its module go."""
        pending: list[Run] = []
        items = session.items
        for number, item in enumerate(items):
            following = items[number + 1] if number + 1 < len(items) else None
            is_last = following is None or following.path != item.path
            began, count, start = datetime.now(UTC), len(self.failed), time.monotonic()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=item.parent if is_last else following)
            run = Run(item, began, datetime.now(UTC), time.monotonic() - start, len(self.failed) == count)
            pending.append(run)
            if is_last:
                self._assign_refusals(pending)
                self._runs += pending
                pending = []
                if following is not None:
                    session._setupstate.teardown_exact(following)

    def _assign_refusals(self, runs: Sequence[Run]) -> None:
        for refusal in (refusal for server in self._servers for refusal in server.read_refusals()):
            for run in runs:
                if run.began <= refusal.at <= run.ended:
                    run.refusals.append(refusal)

    def _rank(self, rule: Rule) -> list[Run]:
        """Return the tests that this rule has refused something to, the quickest first."""
        found = [run for run in self._runs if run.has_passed and any(one.is_by(rule) for one in run.refusals)]
        return sorted(found, key=lambda run: run.seconds)[:MOST_TRIES]

    def _try_without(self, session: pytest.Session, rule: Rule, runs: Sequence[Run]) -> None:
        killer = self._find_killer(session, rule, runs)
        left = len(self._rules) - len(self.killers) - len(self.survivors) - 1
        if killer is not None:
            self.killers[rule] = killer.item.nodeid
            self._say(f"{left} left: killed {rule.id} by {killer.item.nodeid}")
        else:
            self.survivors[rule] = f"{len(runs)} tests run without it"
            self._say(f"{left} left: SURVIVES {rule.id}: {len(runs)} tests run without it")

    def _find_killer(self, session: pytest.Session, rule: Rule, runs: Sequence[Run]) -> Run | None:
        for run in runs:
            for wants_new_fixtures in (False, True):
                with self._without(rule):
                    has_passed = self._passes(session, run, wants_new_fixtures)
                if has_passed:
                    break
                if self._passes(session, run, wants_new_fixtures):
                    return run
            else:
                self.unrepeatable.add(run.item.nodeid)
        return None

    def _passes(self, session: pytest.Session, run: Run, wants_new_fixtures: bool) -> bool:
        """Run a test again, and leave the fixtures of its module to the next."""
        session._setupstate.teardown_exact(session if wants_new_fixtures else run.item)  # type: ignore[arg-type]
        reports = runtestprotocol(run.item, log=False, nextitem=run.item.parent)  # type: ignore[arg-type]
        return not any(report.failed for report in reports)

    @contextlib.contextmanager
    def _without(self, rule: Rule) -> Iterator[None]:
        """Drop the rule on all servers, on those that start meanwhile, too; restore it afterwards."""
        self._rule = rule
        if rule == FENCE:
            with patch.object(fence, "_HOLDER", "true"):
                yield
            return
        for server in self._servers:
            server.drop(rule)
        try:
            yield
        finally:
            self._rule = None
            for server in self._servers:
                server.restore()

    def _add_server(self, server: ApiServer) -> None:
        added = MutableServer(server)
        self._servers.append(added)
        if self._rule is not None:
            added.drop(self._rule)
