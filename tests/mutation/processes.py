"""Whether a process and what it started do anything at all, seen in /proc."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SWITCHES_OF_A_SLEEPER = 20
"""Between two looks a process that only waits switches less often, though a library's thread wakes now and then."""
PROC = Path("/proc")


@dataclass(slots=True)
class IdleCount:
    """How many looks in a row found every thread of a process and of its children asleep.

    A process that waits for the processor does not sleep, so that a busy machine does not count.
    """

    pid: int
    count: int = 0
    _switches: dict[Path, int] = field(default_factory=dict)

    def look(self) -> None:
        """Look once."""
        threads = [thread for pid in find_family(self.pid) for thread in _find_threads(pid)]
        states = [state for thread in threads if (state := _read_state(thread)) is not None]
        switches = {state.thread: state.switches for state in states}
        more = sum(count - self._switches.get(thread, 0) for thread, count in switches.items())
        is_asleep = all(state.is_asleep for state in states) and more < SWITCHES_OF_A_SLEEPER
        self.count = self.count + 1 if is_asleep else 0
        self._switches = switches


@dataclass(frozen=True, slots=True)
class _ThreadState:
    thread: Path
    is_asleep: bool
    switches: int


def find_family(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    children: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        if (parent := _read_parent(path)) is not None:
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _find_threads(pid: int) -> Iterator[Path]:
    try:
        yield from (PROC / str(pid) / "task").iterdir()
    except OSError:
        return


def _read_parent(path: Path) -> int | None:
    try:
        return int(path.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _read_state(thread: Path) -> _ThreadState | None:
    try:
        lines = (thread / "status").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(":", 1) for line in lines)
    switches = sum(int(found[name]) for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))
    return _ThreadState(thread, found["State"].split()[0] in "SITZX", switches)
