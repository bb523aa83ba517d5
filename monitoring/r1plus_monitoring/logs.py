"""Logs as single JSON lines on stderr: time, level, message and fields. Never a prompt, never an answer."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the wall clock; callers pass it in as their `Clock`."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Format a time as RFC 3339 in seconds, as Kubernetes does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def log(level: str, message: str, **fields: object) -> None:
    """Write one line. Pass only values that may leave the pod: ids, counts, reasons."""
    line = {"time": format_time(utc_now()), "level": level, "message": message, **fields}
    print(json.dumps(line, ensure_ascii=False, default=str), file=sys.stderr, flush=True)
