"""Logs as single JSON lines on stderr: time, level, message and fields. Never a prompt, never an answer."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The wall clock, passed in wherever a time is written down."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """RFC 3339 in seconds, as Kubernetes writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def log(level: str, message: str, **fields: object) -> None:
    """One line. Called with values that may leave the pod: ids, counts, reasons."""
    line = {"time": stamp(utc_now()), "level": level, "message": message, **fields}
    print(json.dumps(line, ensure_ascii=False, default=str), file=sys.stderr, flush=True)
