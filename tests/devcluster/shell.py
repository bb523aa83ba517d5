"""Runs programs for this tool: output goes to a log, and a failure names the command, its status and its last words."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LAST_WORDS = 5


class CommandError(RuntimeError):
    """A program that this tool needed has failed; the message carries what a person needs to go on."""


def run(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run `command` to its end with all its output in `log`; raise CommandError when its exit status isn't 0."""
    for _ in lines(command, log=log, env=env, cwd=cwd):
        pass


def lines(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[str]:
    """Like `run`, but hands each line of output to the caller as well, for those who count progress by lines."""
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    last: list[str] = []
    with (
        log.open("a") as sink,
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=cwd,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            sink.write(line)
            last = [*last[1 - LAST_WORDS :], line.rstrip()]
            yield line.rstrip()
    if process.returncode != 0:
        raise CommandError(f"{' '.join(words[:6])} exited {process.returncode}: {' / '.join(last)} (log: {log})")


def output(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Standard output of a short command; its standard error goes into the CommandError when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, cwd=cwd, check=False
    )
    if done.returncode != 0:
        raise CommandError(f"{' '.join(words[:6])} exited {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def succeeds(command: Sequence[str | Path]) -> bool:
    """Whether a command exits 0; its output is of no interest. Used by teardown, where 'already gone' is fine."""
    words = [str(word) for word in command]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
