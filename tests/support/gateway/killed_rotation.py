"""A rotation of the root that is killed at each of its steps in turn, in a process of its own: `python -m`.

Prints a line for each kill. A step is a statement, a commit, or a file that gets its name. Each child kills itself
before the step of its number; the line says whether it got to its end, and what a gateway finds that starts afterwards.
"""

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store.administration.admin import verify_audit
from r1plus_gateway.store.database.migration import get_head
from r1plus_gateway.store.keys.key_rotation import read_rotation
from r1plus_gateway.store.keys.root_rotation import rotate_root
from r1plus_gateway.store.keys.tenant_keys import read_ring
from support.gateway.backups import ANNA, BERT, Filled, fill, read_texts
from support.gateway.content import check_books, say
from support.gateway.killed_restore import STATUS_DONE, Killer, empty, fork
from support.gateway.tenant_data import ADMIN, PATIENT_LIMITS, Volume
from support.waiting import DEADLINE_SECONDS


async def rotate_until_killed(volume: Volume, number: int) -> None:
    """Rotate the root, and die before the step of this number."""
    async with volume.open() as store:
        database, killer = store.require_data().database, Killer(number)
        if database.is_sqlite:
            # The driver's own trace has also what it is told outside of transactions, which encrypts the file again.
            database.engine.dispose()
            sa.event.listen(database.engine, "connect", lambda driver, _: driver.set_trace_callback(killer.step))
            sys.addaudithook(lambda event, _: killer.step() if event == "os.rename" else None)
        else:
            killer.watch(database.engine)
        await rotate_root(store, ADMIN)
        os._exit(STATUS_DONE)


async def look(volume: Volume, filled: Filled) -> dict[str, Any]:
    """Return what a gateway finds that starts on the data."""
    async with volume.open() as store:
        ring = read_ring(volume.ring)
        audit = await verify_audit(store)
        found = {
            "root": store.require_data().keys.root_id,
            "pending": bool(ring and ring.pending),
            "key": await verify_key(filled.key.key.encode(), store, store.clock.read()) is not None,
            "texts": [await read_texts(store, filled, caller) for caller in (ANNA, BERT)],
            "problem": audit.problem,
            "rotations": await store.read(_count_rotations),
        }
        await store.maintain()
        await store.read(check_books)
        rotation = await store.read(read_rotation)
        texts = [await read_texts(store, filled, caller) for caller in (ANNA, BERT)]
        owners = await store.read(lambda one: one.exec_driver_sql("SELECT id FROM data_keys").scalars().all())
        ready = store.state.is_ready and texts == found["texts"] and not rotation.older_keys
        return {**found, "ready": ready, "data_keys": sorted(owners)}


def _count_rotations(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM audit WHERE action = 'rotate_root'").scalar_one())


def main(folder: Path, url: str, admin_url: str, stride: int) -> None:
    """Kill at every step, or at each `stride`-th, until a rotation gets to its end."""
    volume, filled = Volume(folder / "here", url=url, limits=PATIENT_LIMITS), read_filled(folder)
    get_head()  # No child has to read the migrations.
    for number in itertools.count(0, stride):
        empty(volume, folder / "new", admin_url)
        status = fork(lambda: asyncio.run(rotate_until_killed(volume, number)))  # noqa: B023
        report = folder / "report"
        fork(lambda: report.write_text(json.dumps(asyncio.run(look(volume, filled)))))  # noqa: B023
        print(json.dumps({"step": number, "status": status, **json.loads(report.read_text())}), flush=True)
        report.unlink()
        if status == STATUS_DONE:
            return


def read_filled(folder: Path) -> Filled:
    """Return what `prepare` has filled in, without the key's record."""
    facts = json.loads((folder / "facts").read_text())
    return Filled(_Issued(facts["key"]), facts["conversations"])  # type: ignore[arg-type]


class _Issued:
    """Has the secret of a key, as `IssuedKey` has it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.key = self

    def encode(self) -> str:
        return self._text


async def prepare(folder: Path, url: str = "") -> None:
    """Write what `main` reads: a tenant's data in use."""
    async with replace(Volume(folder / "here", url=url).make()).open() as store:
        filled = await fill(store)
    facts = {"key": filled.key.key.encode(), "conversations": filled.conversations}
    (folder / "facts").write_text(json.dumps(facts))
    shutil.copytree(folder / "here", folder / "new")


def kill_rotations(folder: Path, url: str = "", admin_url: str = "", stride: int = 1) -> None:
    """Run `main` as a process, and check that each kill left the state before the rotation or the one after."""
    words = [sys.executable, "-m", __name__, str(folder), url, admin_url, str(stride)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=3 * DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["status"] for line in lines] == [-signal.SIGKILL] * (len(lines) - 1) + [STATUS_DONE]
    (root, keys), turns = (lines[0]["root"], lines[0]["data_keys"]), []
    for line in lines:
        whole = {name: line[name] for name in ("pending", "key", "problem", "ready")}
        assert whole == {"pending": False, "key": True, "problem": "", "ready": True}, line
        assert line["texts"] == [[say("x"), say("y")]] * 2, line
        is_rotated = line["root"] != root
        assert line["rotations"] == is_rotated, line
        assert bool(set(line["data_keys"]) & set(keys)) is not is_rotated, line
        turns.append(is_rotated)
    turn = turns.index(True)
    assert turns == [False] * turn + [True] * (len(turns) - turn)
    assert 3 < turn < len(turns) - 3, "some kills come before the commit, and some after"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
