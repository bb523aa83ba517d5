"""The file by which the engine's process shows that it makes progress: what it writes, and what probes read.

It has the second of the machine's uptime by which the next beat is due. No clock is compared that someone sets.
"""

from pathlib import Path
from typing import Final

ENV_HEARTBEAT: Final = "R1PLUS_HEARTBEAT"
"""Path of the file; without it nothing is written or asked."""
HEARTBEAT: Final = "/tmp/r1plus-heartbeat"
"""The file in a pod."""
UPTIME: Final = Path("/proc/uptime")
DIGITS: Final = 12
"""Of the number, so that a beat overwrites the one before in place."""


def read_uptime() -> float:
    """Return the seconds since the machine has started, the same for all its processes."""
    return float(UPTIME.read_text(encoding="ascii").split()[0])


def format_due(seconds: float) -> bytes:
    """Return the file's contents."""
    return f"{max(0, int(seconds)):0{DIGITS}}\n".encode("ascii")


def measure_lateness(heartbeat: Path) -> int:
    """Return for how many seconds the next beat is late; 0: it is not, or there is no file to read."""
    try:
        return max(0, int(read_uptime()) - int(heartbeat.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return 0


def describe_lateness(seconds: int | str) -> str:
    """Return why the engine is taken to hang; `seconds` may be a shell's variable."""
    return f"the engine hangs: its next sign of progress is {seconds} s late"
