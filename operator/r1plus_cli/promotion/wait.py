"""`r1plus wait`: wait until what a spec asks for takes traffic, and say with figures if it does not."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Protocol

import typer

from r1plus_cli.cluster.connection import connect
from r1plus_cli.deployment.status_text import NO_OPERATOR, ChangeReporter
from r1plus_cli.engine.output import report_progress
from r1plus_cli.errors import UnavailableError, UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, NamespaceOption, parse_duration, write_at_once
from r1plus_cli.promotion.outcome import PromotionOutcome, PromotionResult, PromotionTracker
from r1plus_cli.promotion.report import ReportFormat, format_report

WATCH_SECONDS: Final = 30.0
"""Longest watch; then the object is read again. A connection that died unnoticed costs no more than this."""
RETRY_SECONDS: Final = 2.0
"""Pause after the API server did not answer."""
EXIT_STATUS: Final = {PromotionResult.PROMOTED: 0, PromotionResult.TIMED_OUT: 2}
"""Exit status of a result; 1 for any other."""


class WaitGoal(StrEnum):
    """What to wait for."""

    PROMOTED = "promoted"


class WatchedCluster(Protocol):
    """What a wait needs from a cluster."""

    def watch_deployment(self, namespace: str, name: str, seconds: float) -> Iterator[dict[str, Any] | None]:
        """Yield one R1PlusDeployment as it is, and then as it changes, for at most `seconds`; None: it does not exist.

        Raise UnavailableError if the API server does not answer, or the connection breaks.
        """


@dataclass(frozen=True, slots=True)
class WaitClock:
    """The time of a wait."""

    read: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_command(
    name: Annotated[str, typer.Argument(help="The R1PlusDeployment.")],
    goal: Annotated[WaitGoal, typer.Option("--for", help="What to wait for.")] = WaitGoal.PROMOTED,
    timeout: Annotated[str, typer.Option("--timeout", help="Longest wait, such as 90s, 40m or 2h.")] = "40m",
    output: Annotated[
        ReportFormat, typer.Option("-o", "--output", help="text for people; json or junit for programs.")
    ] = ReportFormat.TEXT,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Wait until the newest spec is promoted: its revision passed the gate and takes traffic.

    Exit status 0: promoted. 1: refused, with the figures of the gate; or it waits for a person, or was deleted.
    2: not decided in time. An object that does not exist yet is waited for. If the spec changes meanwhile, the newest
    one counts. Progress goes to standard error, the result to standard output.

    Example: `r1plus wait credit --for promoted --timeout 40m -o junit > promotion.xml`
    """
    seconds = parse_duration("--timeout", timeout)
    if not seconds:
        raise UsageError("--timeout: give at least 1s")
    cluster = connect(kubeconfig)
    space = namespace or cluster.get_default_namespace()
    if cluster.is_operator_ready() is False:
        report_progress(runnable_hint(NO_OPERATOR))
    clock = WaitClock()
    start = clock.read()
    outcome = wait_for_promotion(cluster, space, name, seconds, report_progress, clock)
    write_at_once(format_report(outcome, f"{space}/{name}", clock.read() - start, output))
    raise typer.Exit(EXIT_STATUS.get(outcome.result, 1))


def wait_for_promotion(
    cluster: WatchedCluster,
    namespace: str,
    name: str,
    timeout_s: float,
    report: Callable[[str], None],
    clock: WaitClock,
) -> PromotionOutcome:
    """Return how the promotion ended, or how far it was after `timeout_s`. `report` takes a line for each change."""
    tracker = PromotionTracker(f"{namespace}/{name}")
    progress = _ProgressLines(tracker, report, clock.read)
    end = clock.read() + timeout_s
    while (left := end - clock.read()) > 0:
        try:
            for body in cluster.watch_deployment(namespace, name, min(left, WATCH_SECONDS)):
                if outcome := tracker.observe(body):
                    return outcome
                progress.report_change()
                if clock.read() >= end:
                    break
        except UnavailableError as error:
            progress.report_once(f"{error}; trying again")
            clock.sleep(max(0.0, min(RETRY_SECONDS, end - clock.read())))
    return tracker.give_up()


class _ProgressLines:
    """Reports what changed since the last line."""

    def __init__(self, tracker: PromotionTracker, report: Callable[[str], None], now: Callable[[], float]) -> None:
        self._tracker, self._report, self._now = tracker, report, now
        self._changes = ChangeReporter()
        self._generation, self._last_text = 0, ""

    def report_change(self) -> None:
        view, generation = self._tracker.view, self._tracker.generation
        if view is None:
            self.report_once(f"{self._tracker.key} does not exist yet")
            return
        if self._generation not in (0, generation):
            self._write(f"The spec changed: generation {generation} is waited for instead of {self._generation}")
        self._generation = generation
        if (line := self._changes.format_change(view, self._now())) is not None:
            self._write(line)

    def report_once(self, text: str) -> None:
        """Report a text, unless it was the last one."""
        if text != self._last_text:
            self._write(text)

    def _write(self, text: str) -> None:
        self._last_text = text
        self._report(f"{datetime.now(UTC):%H:%M:%S}  {text}")
