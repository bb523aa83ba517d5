"""The engine's process as its parent sees it: start, ask, end."""

import asyncio
import logging
import os
import signal
import sys
from typing import Final

from r1plus_contract.embedder import MOST_REPLY_BYTES
from r1plus_contract.frames import FrameError, pack, read_frame
from r1plus_contract.process.child_processes import signal_child
from r1plus_embedder.files import EngineFiles

log = logging.getLogger(__name__)
MODULE: Final = "r1plus_embedder.worker"
# Outside of CI jobs OpenVINO writes an id under $HOME/intel at import and sends it to Google Analytics.
NO_TELEMETRY: Final = {"CI": "true"}
END_SECONDS: Final = 2.0


class ChildError(RuntimeError):
    """The process has ended, or does not answer; the message says so."""


class EngineProcess:
    """A running child with the engine loaded. One request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    async def ask(self, payload: bytes) -> bytes:
        """Return its reply. After an error, or when this is cancelled, the process has to be ended.

        Raises:
            ChildError: there is none.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pack(payload))
            await self._process.stdin.drain()
            return await self._read()
        except (OSError, asyncio.IncompleteReadError, FrameError) as error:
            raise ChildError(await self._describe_end()) from error

    async def _read(self) -> bytes:
        assert self._process.stdout is not None
        return await read_frame(self._process.stdout, MOST_REPLY_BYTES)

    async def _describe_end(self) -> str:
        await self.end()
        return f"the engine's process has ended with status {self._process.returncode}"

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        signal_child(self._process, signal.SIGKILL)
        await self._process.wait()


async def start_engine(files: EngineFiles, threads: int) -> EngineProcess:
    """Start a child, and return it when the engine is loaded.

    Raises:
        ChildError: it ended before; its standard error, which is ours, says why.
    """
    arguments = (str(files.folder), files.identity, str(files.dimensions), str(files.most_tokens), str(threads))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", MODULE, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | NO_TELEMETRY,
        limit=MOST_REPLY_BYTES,
    )
    child = EngineProcess(process)
    try:
        await child._read()
    except (asyncio.IncompleteReadError, FrameError) as error:
        raise ChildError(await child._describe_end()) from error
    except BaseException:
        await child.end()
        raise
    return child
