"""A gateway whose add-ons are not installed serves completions, and knows nothing of the rest."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from r1plus_gateway.http.add_ons import run_without_add_on
from r1plus_gateway.store.content.content import StoredResponse
from r1plus_gateway.store.tenant import TenantStore
from support.addons import run_without_addons
from support.gateway.content import make_content, say
from support.gateway.fake_triton import answer
from support.gateway.rig import Rig, read_events, running
from support.gateway.tenant_data import Volume, make_caller
from support.tables import for_each

USER = {"role": "user", "content": "What is 2 + 2?"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A gateway without add-ons."""
    async with running(tmp_path, answer("It is ", "4."), run_add_on=run_without_add_on) as rig:
        yield rig


@for_each("is_streamed", {"whole": False, "as a stream": True})
async def test_a_chat_is_answered_and_billed(rig: Rig, is_streamed: bool) -> None:
    async with rig.chat("What is 2 + 2?", stream=is_streamed) as response:
        assert response.status == 200
        assert "4." in (json.dumps(await read_events(response)) if is_streamed else await response.text())
    assert [entry.outcome.value for entry in rig.ledger.settled] == ["answered"]


@for_each(
    "path, fields, status, code",
    {
        "a search": ("chat/completions", {"knowledge": {"vector_store_ids": ["vs"]}}, 400, "unsupported_parameter"),
        "a calculation": ("chat/completions", {"math_mode": True}, 503, "calculator_not_configured"),
        "a program": ("chat/completions", {"tools": [{"type": "code_interpreter"}]}, 400, "unsupported_parameter"),
        "a response": ("responses", {}, 404, "not_found"),
        "vectors": ("embeddings", {}, 404, "not_found"),
        "stored content": ("conversations", {}, 404, "not_found"),
    },
)
async def test_what_is_not_there_is_refused(
    rig: Rig, path: str, fields: dict[str, Any], status: int, code: str
) -> None:
    async with rig.post(f"/v1/{path}", {"model": "credit", "messages": [USER], **fields}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert not rig.ledger.settled


async def test_the_key_has_no_features(rig: Rig) -> None:
    async with rig.get("/v1/key") as response:
        assert (await response.json())["features"] == []


async def test_the_document_has_all_that_it_refers_to(tmp_path: Path, store: TenantStore) -> None:
    async with (
        running(tmp_path, answer("4."), run_add_on=run_without_add_on, store=store) as rig,
        rig.get("/openapi.json") as response,
    ):
        document = await response.json()
    names = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    assert "/v1/admin/root/rotate" in document["paths"]
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    assert "knowledge" not in json.dumps(body)


ASSEMBLY = """
import sys

class Absence:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absence())
from r1plus_gateway.assembly import find_add_on
print(find_add_on().__name__)
"""


@for_each(
    "missing, problem",
    {
        "the add-on": ("r1plus_assistant", ""),
        "what its extra installs": ("simsimd", ""),
        "a part of it": ("r1plus_assistant.environment", "No module named"),
    },
)
def test_an_absent_add_on_is_left_out_and_a_damaged_one_is_an_error(missing: str, problem: str) -> None:
    command = [sys.executable, "-c", ASSEMBLY, missing]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == ("" if problem else "run_without_add_on\n"), done.stderr
    assert problem in done.stderr


STORED_CONTENT = """
import asyncio
from pathlib import Path

from r1plus_gateway.store.copies.backup import make_copy
from r1plus_gateway.store.copies.sealed_stream import StreamKind
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.tenant_data import ADMIN, Volume

async def work():
    async with Volume(Path(sys.argv[1])).open() as store:
        copy = [part async for part in make_copy(store, ADMIN, StreamKind.BACKUP)]
        receipt = await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
        print(sum(map(len, copy)) > 0, receipt.conversations, receipt.responses)

asyncio.run(work())
"""


@pytest.mark.first_run_counts
async def test_stored_content_opens_is_backed_up_and_erased(volume: Volume) -> None:
    anna, stored = make_caller(end_user="anna@example.com"), StoredResponse("resp_1", "", [say("q")], {"text": "a"})
    async with volume.open() as store:
        content = make_content(store)
        await content.write(anna, lambda one: one.create_conversation({}, [say("x"), say("y")]))
        await content.write(anna, lambda one: one.store_response(stored))
    done = await asyncio.to_thread(run_without_addons, STORED_CONTENT, str(volume.folder))
    assert done.stdout == "True 1 1\n", done.stderr
