"""A volume that is full while a backup is restored: nothing of it stays, and it can be restored once there is room."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.gateway.backups import back_up, fill, make_elsewhere
from support.gateway.content import make_content, say
from support.gateway.tenant_data import Volume, make_caller
from support.scratch import make_scratch_folder

RESTORE = """
import asyncio, io, json, subprocess, sys
from pathlib import Path
from r1plus_gateway.store.administration.admin import list_keys, verify_audit
from r1plus_gateway.store.errors import FullError
from r1plus_gateway.store.copies.restoration import restore_backup
from support.gateway.tenant_data import ADMIN, Volume

def say(**values):
    print(json.dumps(values), flush=True)

async def main(volume, body):
    data = volume.folder / "data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)], check=True)
    async with volume.open() as store:
        try:
            await restore_backup(store, ADMIN, io.BytesIO(body).read)
        except FullError as error:
            say(error=str(error))
        say(keys=len(await list_keys(store)), records=(await verify_audit(store)).records)
        subprocess.run(["mount", "-o", "remount,size=32m", str(data)], check=True)
        await restore_backup(store, ADMIN, io.BytesIO(body).read)
        say(keys=len(await list_keys(store)), problem=(await verify_audit(store)).problem, ready=store.state.is_ready)
        say(log=(data / "tenant.db-wal").stat().st_size)

asyncio.run(main(Volume(Path(sys.argv[1]), "uid-of-another-cluster"), Path(sys.argv[2]).read_bytes()))
"""


async def prepare(volume: Volume, folder: Path) -> None:
    async with volume.open() as store:
        await fill(store)
        text = say("x" * 2000)
        await make_content(store).write(make_caller(), lambda one: one.create_conversation({}, [text] * 300))
        (folder / "body").write_bytes((await back_up(store)).body)
    make_elsewhere(volume, folder / "there")


@pytest.mark.unit_slow
def test_a_full_volume_leaves_nothing_of_a_restore(volume: Volume) -> None:
    """On a small file system of its own, in a mount namespace that ends with the process."""
    folder = make_scratch_folder("r1plus-tenant-")
    asyncio.run(prepare(volume, folder))
    command = ["unshare", "--mount", sys.executable, "-c", RESTORE, str(folder / "there"), str(folder / "body")]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    full, before, after, log = map(json.loads, done.stdout.splitlines())
    assert "Enlarge the volume" in full["error"]
    assert before == {"keys": 0, "records": 0}
    assert after == {"keys": 1, "problem": "", "ready": True}
    assert log == {"log": 0}
