"""Programs that use OpenAI's client, each in a child of a process that has imported it: that alone takes a second."""

import asyncio
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

from support.apiserver.process import DIES_WITH_PARENT
from support.paths import TESTS
from support.waiting import DEADLINE_SECONDS

PROGRAM_SECONDS = int(DEADLINE_SECONDS)


class ProgramRunner:
    """Runs one program after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, program: str, folder: Path, variables: dict[str, str], seconds: int = PROGRAM_SECONDS) -> str:
        """Return what a program prints; warnings are errors. Raises AssertionError if it fails, or lasts for longer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([program, str(folder), variables, seconds]).encode() + b"\n")
        # The child ends by itself: an answer that comes later would be the next program's.
        async with asyncio.timeout(seconds + DEADLINE_SECONDS):
            line = await self._process.stdout.readline()
        assert line, "the process whose children the programs are has ended"
        status, printed, problem = json.loads(line)
        assert status == 0, problem
        return str(printed)


@asynccontextmanager
async def running_programs() -> AsyncIterator[ProgramRunner]:
    """Run the process whose children they are, for the block."""
    process = await asyncio.create_subprocess_exec(
        *DIES_WITH_PARENT,
        *(sys.executable, "-W", "error", "-m", __name__),
        cwd=TESTS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield ProgramRunner(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> None:
    """Run the programs that come as JSON lines, and answer each with a line."""
    import openai  # noqa: F401 - the children have it

    for line in sys.stdin:
        print(json.dumps(_run_in_child(*json.loads(line))), flush=True)


def _run_in_child(program: str, folder: str, variables: dict[str, str], seconds: int) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as problem:
        pid = os.fork()
        if pid == 0:
            signal.alarm(seconds)  # Ends it, also when its runner was killed.
            os.chdir(folder)
            os.environ.update(variables)
            os.dup2(printed.fileno(), 1)
            os.dup2(problem.fileno(), 2)
            _run_here(program)
        _, status = os.waitpid(pid, 0)
        is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        late = f"It had not ended after {seconds} s\n" if is_late else ""
        return status, _read_text(printed), f"{late}{_read_text(problem)}"


def _run_here(program: str) -> NoReturn:
    status = 1
    try:
        exec(compile(program, "<page>", "exec"), {"__name__": "__main__"})
        status = 0
    except BaseException:  # noqa: BLE001 - the child must not return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _read_text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    main()
