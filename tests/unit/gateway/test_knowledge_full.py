"""A volume that is full while a file is read in: nothing of it is found, and the reading goes on once there is room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.gateway.tenant_data import Volume
from support.waiting import DEADLINE_SECONDS

INGEST = """
import asyncio, json, subprocess, sys
from pathlib import Path
from r1plus_contract.documents import DocumentReply, TextBlock
from r1plus_assistant.knowledge.ingestion import Pauses
from r1plus_assistant.knowledge.service import run_knowledge
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.content.knowledge import IngestionState
from support.gateway.content import check_books
from support.gateway.fake_embedder import FakeEmbedder
from support.gateway.knowledge import add_file, make_store, upload
from support.gateway.tenant_data import Volume, make_caller
from support.waiting import eventually

COUNT = 700

class Reader:
    async def read(self, name, size, read_part):
        yield DocumentReply(reader="tests/1")
        for number in range(COUNT):
            yield DocumentReply(blocks=(TextBlock(f"H{number}", 1), TextBlock(f"Text number {number}.")))
        yield DocumentReply(is_end=True)

def say(**values):
    print(json.dumps(values), flush=True)

async def main(volume):
    data = volume.folder / "data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)], check=True)
    limits = GatewayLimits()
    async with (
        volume.open() as store,
        run_knowledge(store, lambda: limits, Reader(), FakeEmbedder, pauses=Pauses(0.05, 0.2)) as service,
    ):
        knowledge = service.knowledge
        owner = knowledge.identify(make_caller())
        file = await upload(knowledge, owner, b"x")
        store_id = await make_store(knowledge, owner)
        await add_file(knowledge, owner, store_id, file.id)
        service.ingestion.wake()
        await eventually(lambda: service.ingestion.trouble, "the volume is full")
        found = await knowledge.read(owner, lambda one: one.find_store_file(store_id, file.id))
        batches = await knowledge.read(owner, lambda one: one.read_batches(found))
        passages = (await service.search.find(owner, [store_id], "Text number 3", 5)).passages
        say(
            state=found.state, trouble=service.ingestion.trouble, is_part_stored=0 < found.chunks < COUNT,
            is_whole=sum(len(one.chunks) for one in batches) == found.chunks, passages=len(passages),
        )
        await store.read(check_books)
        subprocess.run(["mount", "-o", "remount,size=32m", str(data)], check=True)

        async def is_read():
            found = await knowledge.read(owner, lambda one: one.find_store_file(store_id, file.id))
            return found.state is not IngestionState.IN_PROGRESS

        await eventually(is_read, "the file is read")
        await eventually(lambda: not service.ingestion.trouble, "nothing waits")
        found = await knowledge.read(owner, lambda one: one.find_store_file(store_id, file.id))
        batches, after = [], -1
        while more := await knowledge.read(owner, lambda one: one.read_batches(found, after)):
            batches, after = batches + more, more[-1].position
        texts = [chunk.text for batch in batches for chunk in batch.chunks]
        await store.read(check_books)
        passages = (await service.search.find(owner, [store_id], "Text number 3", 5)).passages
        say(
            state=found.state, trouble=service.ingestion.trouble, passages=len(passages),
            is_right=texts == [f"Text number {number}." for number in range(COUNT)],
        )

asyncio.run(main(Volume(Path(sys.argv[1]))))
"""


@pytest.mark.unit_slow
def test_reading_a_file_waits_for_room_and_then_goes_on(volume: Volume) -> None:
    """On a small file system of its own, in a mount namespace that ends with the process."""
    command = ["unshare", "--mount", sys.executable, "-c", INGEST, str(volume.folder)]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=10 * DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    full, after = map(json.loads, done.stdout.splitlines())
    assert "VolumeFull" in full["trouble"]
    assert {**full, "trouble": ""} == {
        "state": "in_progress",
        "trouble": "",
        "is_part_stored": True,
        "is_whole": True,
        "passages": 0,
    }
    assert after == {"state": "completed", "trouble": "", "passages": 5, "is_right": True}
