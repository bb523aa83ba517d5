"""Run a target, pass on what it prints, and record how it ended."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from evidence.records import Record, describe_machine, now, read_load, write_record
from evidence.repository import ROOT, dirty_paths, git
from evidence.targets import Target

INSIDE: Final = "R1PLUS_EVIDENCE_TARGET"
"""Set while a target is measured: what it starts is part of it, and has no record of its own."""
_INTERRUPTED: Final = 128 + signal.SIGINT
"""Status of a run that was interrupted, as a shell reports it; pytest has one of its own."""
_JSON: Final = re.compile(r"(?:tests/\S+\.py )?[.sxFE]*(?=\{)")
"""Before a JSON object: nothing, or what pytest has written of its line until a test prints."""
_DECODER: Final = json.JSONDecoder()
_PYTEST: Final = re.compile(r"=+ (.*\d+ (?:passed|failed|error).*) in ([\d.]+)s.*=+")
_COUNT: Final = re.compile(r"(\d+) (passed|failed|skipped|error)")


class BusyError(Exception):
    """Another target is being measured on this machine."""


class Recording:
    """A run that becomes a record if its tree is clean, and still is when it has ended."""

    def __init__(self, target: Target, say: Callable[[str], None]) -> None:
        """Begin the run, and say at once why it will not be recorded."""
        self._target, self._say = target, say
        self._reason = why_not_recorded()
        if self._reason:
            say(f"Not recorded: {self._reason}")
        self._commit = "" if self._reason else git("rev-parse", "HEAD").strip()
        self._date, self._load = now(), read_load()
        self._began = time.monotonic()

    def end(self, status: int, figures: dict[str, Any]) -> None:
        """Write the record of a run with this exit status, unless it was interrupted or its tree has changed."""
        name = self._target.name
        if status == _INTERRUPTED:
            self._say(f"Not recorded: {name} was interrupted")
        elif not self._reason and (git("rev-parse", "HEAD").strip() != self._commit or dirty_paths()):
            self._say(f"Not recorded: the tree changed while {name} ran")
        elif not self._reason:
            record = Record(
                target=name,
                command=self._target.command,
                commit=self._commit,
                date=self._date.isoformat(timespec="minutes"),
                machine=describe_machine(),
                load_before=round(self._load, 2),
                seconds=round(time.monotonic() - self._began, 1),
                result="FAILED" if status else "PASSED",
                figures=figures,
            )
            self._say(f"Recorded: {write_record(record).relative_to(ROOT)}")


def run_target(target: Target | None, command: Sequence[str], say: Callable[[str], None]) -> int:
    """Run `command`, and record it if it is a known target of a clean tree; returns its exit status.

    Raises BusyError.
    """
    if target is None or INSIDE in os.environ:
        return subprocess.run(command, check=False).returncode
    with hold_machine(target.name):
        recording = Recording(target, say)
        status, figures = _run(command, target.name)
        recording.end(status, figures)
        return status


def why_not_recorded() -> str:
    """Return why a run that begins now is not recorded, or an empty text."""
    try:
        dirty = dirty_paths()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "this is no git repository, and a record is of a commit"
    if dirty:
        more = f" and {len(dirty) - 1} more" if len(dirty) > 1 else ""
        return f"{dirty[0]}{more} differ from HEAD, and a record is of a commit: commit first"
    return ""


def find_cache() -> Path:
    """Return the cache's folder, as the Makefile does."""
    if os.environ.get("R1PLUS_CACHE"):
        return Path(os.environ["R1PLUS_CACHE"])
    if os.geteuid() == 0:
        return Path("/var/cache/r1plus")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1plus"


@contextmanager
def hold_machine(name: str, file: Path | None = None) -> Iterator[None]:
    """Let no other target be measured on this machine during the block, whatever clone it is of. Raises BusyError."""
    file = file or find_cache() / "evidence.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BusyError(
                f"{name}: {lock.read().strip()} is being measured, and two at once measure each other: wait for it"
            ) from None
        lock.truncate(0)
        lock.write(f"{name} (pid {os.getpid()}, since {now():%H:%M} UTC)")
        lock.flush()
        yield
        lock.truncate(0)


class FigureReader:
    """Reads a target's output for its figures: the last JSON object, and the sum of pytest's closing lines."""

    def __init__(self) -> None:
        self._printed: dict[str, Any] = {}
        self._tests: dict[str, int] = {}

    def read_line(self, line: str) -> None:
        """Take in one line of output."""
        if printed := _JSON.match(line):
            with contextlib.suppress(ValueError):
                self._printed = dict(_DECODER.raw_decode(line, printed.end())[0])
        elif found := _PYTEST.search(line):
            for number, what in _COUNT.findall(found[1]):
                self._tests[what] = self._tests.get(what, 0) + int(number)

    @property
    def figures(self) -> dict[str, Any]:
        """What was printed, with the counts of tests below `tests`."""
        return {**self._printed, **({"tests": self._tests} if self._tests else {})}


def _run(command: Sequence[str], name: str) -> tuple[int, dict[str, Any]]:
    """Run a command that gets the terminal's interrupt as a member of our group; we wait for its end in any case."""
    reader, signals = FigureReader(), list[int]()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, INSIDE: name})

    def pass_on(number: int, _: object) -> None:
        signals.append(number)
        if number == signal.SIGTERM:
            process.terminate()

    handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            reader.read_line(line)
        status = process.wait()
        return (_INTERRUPTED if signals else status), reader.figures
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
