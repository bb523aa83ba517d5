"""Waiting on the cluster: `support.waiting.wait_until`, for which an API server that does not answer means "not yet"."""

from collections.abc import Callable
from typing import TypeVar

from e2e.kube import UNREACHABLE
from support.waiting import wait_until

T = TypeVar("T")
SECONDS = 600.0
"""More than ten times what pods, the operator, Prometheus or Alertmanager need on a quiet machine; gates need more."""
PERIOD_SECONDS = 0.2


class StoryError(AssertionError):
    """The cluster didn't do what the story says; the message holds what was seen instead."""


def wait_for(
    look: Callable[[], T | None],
    what: str,
    evidence: Callable[[], str] | None = None,
    *,
    seconds: float = SECONDS,
    period_s: float = PERIOD_SECONDS,
    retry_on: tuple[type[BaseException], ...] = (),
) -> T:
    """Call `look` until it returns something true, and return that; raise WaitError with the evidence otherwise.

    Errors in `retry_on` mean "not yet", too.
    """
    return wait_until(look, what, seconds, period_s=period_s, evidence=evidence, retry_on=(*UNREACHABLE, *retry_on))
