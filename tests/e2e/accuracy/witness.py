"""Whoever watches a story from outside: a client that asks all the time, where traffic goes, what Alertmanager holds.

The client's questions are items of a golden suite, scored as the monitor scores them: an answer of a revision that must
not serve shows as a wrong one.
"""

import threading
import time
import urllib.error
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from e2e import story
from e2e.kube import UNREACHABLE
from e2e.story import Alert, Name
from e2e.target import Target
from e2e.waiting import StoryError, wait_for
from r1plus_cli.deployment.stream import Question, ask
from r1plus_cli.errors import CliError
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.names import PORT_GRPC
from r1plus_contract.suites.suite import Item, Suite, SuiteSampling
from r1plus_monitoring.scoring.scorers import score

LOOK_EVERY_S = 0.5
"""At the Service's selector."""
ALERTS_EVERY_S = 2.0


@dataclass(slots=True)
class Client:
    """Asks the items one after the other through the Service, each on a connection of its own."""

    address: str
    items: Sequence[Item]
    sampling: SuiteSampling
    pause_s: float = 0.4
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    wrong: list[tuple[float, str]] = field(default_factory=list)
    """When (monotonic), which item."""
    slowest_s: float = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        turn = 0
        while not stop.is_set():
            self._ask(self.items[turn % len(self.items)])
            turn += 1
            stop.wait(self.pause_s)

    def _ask(self, item: Item) -> None:
        began = time.monotonic()
        question = Question(item.prompt, max_new_tokens=self.sampling.max_new_tokens, stop=self.sampling.stop)
        try:
            answer = ask(self.address, question, timeout_s=60.0)
        except CliError as error:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {error}")
        else:
            self.answered += 1
            if score(item, answer.text, answer.finish_reason) != OutcomeLabel.CORRECT:
                self.wrong.append((began, item.id))
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def wrong_before(self, moment: float) -> list[str]:
        """Items answered wrongly where the question was put before that moment (monotonic)."""
        return [item for asked, item in self.wrong if asked < moment]

    @property
    def told(self) -> str:
        """In one line."""
        first = f", the first: {self.failures[0]}" if self.failures else ""
        return (
            f"{self.answered} client questions, {len(self.failures)} failed{first}, {len(self.wrong)} answered wrongly,"
            f" slowest {self.slowest_s:.1f} s"
        )


@dataclass(slots=True)
class Witness:
    """All three, in threads, while the context is open."""

    target: Target
    name: Name
    suite: Suite
    items: Sequence[Item] = ()
    """What the client asks; empty for all of the suite."""
    pause_s: float = 0.4
    moves: list[tuple[float, str]] = field(default_factory=list)
    """Whenever the Service selects another revision.

    The last moment (monotonic) at which it still selected the one before, and which.
    """
    alerts: dict[tuple[str, str], tuple[float, Alert]] = field(default_factory=dict)
    """By name and pod: when it was first seen (monotonic), and as it was seen last."""
    client: Client = field(init=False)
    since: float = field(default_factory=time.time)
    """When it came, seconds since the epoch."""
    _looked: float = 0.0
    """When the last look began (monotonic)."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Witness":
        address = self._open.enter_context(self.target.reach(self.name.namespace, self.name.name, PORT_GRPC))
        url = self._open.enter_context(self.target.alertmanager())
        self.client = Client(address, self.items or self.suite.items, self.suite.header.sampling, self.pause_s)
        looks: list[Callable[[], None]] = [
            lambda: self.client.run(self._stop),
            lambda: self._every(LOOK_EVERY_S, self._look),
            lambda: self._every(ALERTS_EVERY_S, lambda: self._hear(url)),
        ]
        self._look()
        self._threads = [threading.Thread(target=look, daemon=True) for look in looks]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=70.0)
        self._open.close()

    @property
    def revisions(self) -> list[str]:
        """Which revisions had traffic, in order."""
        return [revision for _, revision in self.moves]

    def moved_to(self, revision: str) -> float | None:
        """When traffic went there last (monotonic): until then it certainly went elsewhere."""
        return next((at for at, to in reversed(self.moves) if to == revision), None)

    def alert(self, alert: str, evidence: Callable[[], str] | None = None) -> tuple[float, Alert]:
        """Wait for that alert about the deployment at Alertmanager; when it was first seen, and the alert."""

        def look() -> tuple[float, Alert] | None:
            return next((found for (name, _), found in self.alerts.items() if name == alert), None)

        return wait_for(look, f"{alert} about {self.name} at Alertmanager", evidence, seconds=story.GATE_SECONDS)

    def assert_right_all_the_time(self, revisions: Sequence[str]) -> None:
        """Traffic went to these in turn, every question was answered, and rightly."""
        assert self.revisions == list(revisions)
        assert self.client.failures == []
        assert self.client.wrong == []

    def names(self) -> set[str]:
        """Of all alerts about the deployment that were seen."""
        return {name for name, _ in self.alerts}

    def more_answers(self, count: int = 3) -> None:
        """Wait until so many more questions were answered."""
        asked = self.client.answered
        wait_for(lambda: self.client.answered >= asked + count, f"{count} more answers")

    def _every(self, seconds: float, look: Callable[[], None]) -> None:
        while not self._stop.is_set():
            look()
            self._stop.wait(seconds)

    def _look(self) -> None:
        began = time.monotonic()
        try:
            revision = story.serving_revision(self.target.kube, self.name)
        except (*UNREACHABLE, StoryError):
            return
        if not self.moves or self.moves[-1][1] != revision:
            self.moves.append((self._looked or began, revision))
        self._looked = began

    def _hear(self, url: str) -> None:
        try:
            found = story.alerts_at(url, None)
        except (OSError, urllib.error.URLError):
            return
        for alert in found:
            # What began before the witness came is an earlier run's, of a namesake.
            if story.is_about(alert, self.name) and story.epoch(alert.starts_at) >= self.since:
                key = alert.name, alert.labels.get("pod", "")
                since = self.alerts[key][0] if key in self.alerts else time.monotonic()
                self.alerts[key] = since, alert
