"""What a process has used, by the kernel's account."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since its start (all threads, user and system), resident memory now and at its highest, in MiB."""

    cpu_seconds: float
    rss_mb: float
    peak_rss_mb: float


def usage(pid: int, proc: Path = PROC) -> Usage:
    """Read it; FileNotFoundError once the process is gone."""
    # The command's name stands in parentheses and may hold anything; what follows it is fixed.
    stat = (proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    status = dict(line.split(":", 1) for line in (proc / str(pid) / "status").read_text().splitlines())
    return Usage(
        cpu_seconds=(int(stat[11]) + int(stat[12])) / _TICK,
        rss_mb=_mebibytes(status["VmRSS"]),
        peak_rss_mb=_mebibytes(status["VmHWM"]),
    )


def _mebibytes(text: str) -> float:
    return int(text.split()[0]) / 1024
