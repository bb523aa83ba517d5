"""A restore that is killed at each of its steps in turn, in a process of its own: `python -m`, one line for each kill.

The process forks for each step, so nothing is imported again. A step is a statement, a commit, or a file that gets its
name. Each child restores into data that are new, and kills itself before the step of its number; the line says whether
it got to its end, and what a gateway finds that starts afterwards.
"""

import asyncio
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from r1plus_gateway.store.administration.admin import list_keys, verify_audit
from r1plus_gateway.store.copies.restoration import restore_backup
from support.gateway.backups import back_up, fill, make_elsewhere
from support.gateway.tenant_data import ADMIN, PATIENT_LIMITS, Volume
from support.waiting import DEADLINE_SECONDS

STATUS_DONE = 7
ELSEWHERE_UID = "uid-of-another-cluster"
BEFORE = {"keys": [], "records": 0, "restores": 0, "problem": "", "ready": True}


class Killer:
    """Kills this process before the step of a number."""

    def __init__(self, number: int) -> None:
        self._left = number

    def step(self, *_: Any) -> None:
        """Count a step."""
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def watch(self, engine: sa.Engine) -> None:
        """Count statements and commits of this database, and renamed files."""
        sa.event.listen(engine, "before_cursor_execute", self.step)
        sa.event.listen(engine, "commit", self.step)
        sys.addaudithook(lambda event, _: self.step() if event == "os.rename" else None)


async def restore_until_killed(volume: Volume, body: bytes, number: int) -> None:
    """Restore, and die before the step of this number."""
    async with volume.open() as store:
        Killer(number).watch(store.require_data().database.engine)
        await restore_backup(store, ADMIN, io.BytesIO(body).read)
        os._exit(STATUS_DONE)


async def look(volume: Volume) -> dict[str, Any]:
    """Return what a gateway finds that starts on the data."""
    async with volume.open() as store:
        audit = await verify_audit(store)
        keys = [record.name for record in await list_keys(store)]
        await store.maintain()
        return {
            "keys": keys,
            "records": audit.records,
            "restores": len(audit.restores),
            "problem": audit.problem or (await verify_audit(store)).problem,
            "ready": store.state.is_ready,
        }


def fork(work: Callable[[], Any]) -> int:
    """Run work in a child; return its status, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def empty(volume: Volume, new: Path, admin_url: str) -> None:
    """Make the data new again."""
    shutil.rmtree(volume.folder)
    shutil.copytree(new, volume.folder)
    if volume.url:
        name = volume.url.rpartition("/")[2]
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{name}_new"')


def kill_once(volume: Volume, body: bytes, number: int, report: Path) -> dict[str, Any]:
    """Kill one restore and look at what is left; both in children, so that no thread is here to fork with."""
    report.unlink(missing_ok=True)
    status = fork(lambda: asyncio.run(restore_until_killed(volume, body, number)))
    fork(lambda: report.write_text(json.dumps(asyncio.run(look(volume)))))
    found: dict[str, Any] = json.loads(report.read_text())
    return {"step": number, "status": status, **found}


def main(folder: Path, url: str, admin_url: str, stride: int) -> None:
    """Kill at every step, or at each `stride`-th, until a restore gets to its end."""
    volume, body = Volume(folder / "there", ELSEWHERE_UID, url, PATIENT_LIMITS), (folder / "body").read_bytes()
    for number in itertools.count(0, stride):
        empty(volume, folder / "new", admin_url)
        line = kill_once(volume, body, number, folder / "report")
        print(json.dumps(line), flush=True)
        if line["status"] == STATUS_DONE:
            return


async def prepare(volume: Volume, folder: Path, url: str = "") -> None:
    """Write what `main` reads: a backup of this volume, and data elsewhere that are new."""
    async with volume.open() as store:
        await fill(store)
        (folder / "body").write_bytes((await back_up(store)).body)
    async with replace(make_elsewhere(volume, folder / "there", ELSEWHERE_UID), url=url).open():
        pass
    shutil.copytree(folder / "there", folder / "new")


def kill_restores(folder: Path, url: str = "", admin_url: str = "", stride: int = 1) -> None:
    """Run `main` as a process, and check that each kill left the state before the restore or the one after."""
    words = [sys.executable, "-m", __name__, str(folder), url, admin_url, str(stride)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=3 * DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    states = [{name: line[name] for name in BEFORE} for line in lines]
    after = {"keys": ["ci"], "restores": 1, "problem": "", "ready": True}
    assert states[-1] == {**after, "records": states[-1]["records"]}, states[-1]
    assert [line["status"] for line in lines] == [-signal.SIGKILL] * (len(lines) - 1) + [STATUS_DONE]
    turn = states.index(states[-1])
    assert states == [BEFORE] * turn + [states[-1]] * (len(states) - turn)
    assert turn > 5, "most kills come before the commit"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
