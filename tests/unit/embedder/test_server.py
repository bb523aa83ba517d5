"""The embedder as a whole, with a small engine: vectors, hostile texts, and an engine that comes, dies and goes."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from r1plus_contract.embedder import MOST_REQUEST_BYTES, MOST_TEXT_BYTES, MOST_TEXTS
from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.frames import pack
from r1plus_embedder.child import EngineProcess
from support.embedding.bert_by_numpy import embed as embed_by_numpy
from support.embedding.running import PATIENT_SECONDS, RunningEmbedder, running_embedder
from support.embedding.tiny_model import SHAPE, make_tiny_engine, make_tokenizer, make_weights
from support.tables import for_each
from support.virtual_time import skip_seconds
from support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_engine(tmp_path_factory.mktemp("engine"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder(tmp_path_factory: pytest.TempPathFactory, engine: Path) -> AsyncIterator[RunningEmbedder]:
    async with running_embedder(tmp_path_factory.mktemp("embedder"), engine) as running:
        yield running


def loaded(embedder: RunningEmbedder) -> EngineProcess:
    """Return the engine's process."""
    process = embedder.server.host._process
    assert isinstance(process, EngineProcess)
    return process


@pytest.mark.unit_slow
async def test_texts_of_all_lengths_get_the_vectors_that_each_has_alone(embedder: RunningEmbedder) -> None:
    texts = ["the limit", "a", "", "contract " * 3, "x", "the the the the the the", "ä € 47!"]
    got = await embedder.client.embed(texts)
    weights = {name: values.astype(np.float16).astype(np.float32) for name, values in make_weights().items()}
    expected = [embed_by_numpy(make_tokenizer().encode(text).ids, weights, SHAPE) for text in texts]
    assert np.abs(got.vectors - np.stack(expected)).max() < 1e-4
    assert np.abs(np.linalg.norm(got.vectors, axis=1) - 1).max() < 1e-5
    assert got.tokens == tuple(len(make_tokenizer().encode(text).ids) for text in texts)
    assert got.truncated == ()


async def test_the_engine_is_named_by_its_files(embedder: RunningEmbedder, engine: Path) -> None:
    identity = f"tiny@sha256:{digest_folder(engine)}"
    assert (await embedder.client.embed(["a"])).engine == identity
    health = await embedder.client.describe()
    assert (health.engine, health.dimensions, health.most_tokens) == (identity, 16, 32)
    assert health.is_loaded
    assert health.answered > 0


async def test_a_long_text_is_refused_with_its_length_or_its_beginning_is_embedded(embedder: RunningEmbedder) -> None:
    long, beginning = "the " * 100, "the " * 30
    reply = await embedder.embed("a", long)
    assert (reply["failure"]["code"], reply["failure"]["position"]) == ("text_too_long", 1)
    assert "102 tokens, and the engine reads 32" in reply["failure"]["message"]
    got = await embedder.client.embed(["a", long, beginning], truncate=True)
    assert (got.tokens, got.truncated) == ((3, 32, 32), (1,))
    assert np.array_equal(got.vectors[1], got.vectors[2])


@for_each(
    "text",
    {
        "NUL": "a\x00b",
        "only controls": "\x00\x01\x02",
        "no letter that it knows": "漢字",
        "marks of the tokenizer": "[CLS] [SEP] [PAD] [MASK] [UNK]",
        "a word without an end": "x" * MOST_TEXT_BYTES,
        "many marks on one letter": "a" + "\u0301" * 9000,
        "text from right to left": "\u202eabc\u202c",
        "spaces": " " * 9000,
        "beyond the plane": "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 100,
    },
)
async def test_odd_texts_get_a_vector_of_length_one(embedder: RunningEmbedder, text: str) -> None:
    got = await embedder.client.embed([text], truncate=True)
    assert abs(float(np.linalg.norm(got.vectors[0])) - 1) < 1e-5


@for_each(
    "payload, words",
    {
        "nothing of what is asked for": (b"{}x", "not understood"),
        "no JSON": (b"\xff\xfe", "not understood"),
        "another field": (b'{"texts":["a"],"model":"x"}', "not understood"),
        "a number as a text": (b'{"texts":[1]}', "not understood"),
        "half a character": (b'{"texts":["\\ud800"]}', "not understood"),
        "deep nesting": (b'{"texts":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not understood"),
        "too many texts": (
            b'{"texts":[' + b",".join([b'"a"'] * (MOST_TEXTS + 1)) + b"]}",
            f"{MOST_TEXTS + 1} texts are not between 1 and {MOST_TEXTS}",
        ),
        "100,000 texts": (b'{"texts":[' + b",".join([b'"a"'] * 100_000) + b"]}", "100000 texts"),
        "a text that is too long to be read": (
            b'{"texts":["' + b"a" * (MOST_TEXT_BYTES + 1) + b'"]}',
            "32769 bytes exceed 32768",
        ),
        "a text of half a megabyte": (b'{"texts":["' + b"a" * 500_000 + b'"]}', "500000 bytes"),
    },
)
async def test_a_request_that_breaks_the_contract_is_an_error_and_the_engine_stays(
    embedder: RunningEmbedder, payload: bytes, words: str
) -> None:
    await embedder.client.embed(["a"])
    process = loaded(embedder)
    reply = await embedder.ask(payload)
    assert reply["failure"]["code"] == "invalid_request"
    assert words in reply["failure"]["message"]
    assert loaded(embedder) is process


@for_each(
    "data",
    {
        "a frame of nothing": pack(b""),
        "a frame that is too large": (MOST_REQUEST_BYTES + 1).to_bytes(4, "big"),
        "a frame of four gigabytes": b"\xff\xff\xff\xff",
    },
)
async def test_a_frame_out_of_bounds_is_an_error(embedder: RunningEmbedder, data: bytes) -> None:
    reply = await embedder.send(data)
    assert b"invalid_request" in reply


@pytest.mark.unit_slow
async def test_a_process_that_dies_is_replaced_and_its_request_says_so(embedder: RunningEmbedder) -> None:
    await embedder.client.embed(["a"])
    process = loaded(embedder)
    os.kill(process.pid, signal.SIGSTOP)
    asking = asyncio.create_task(embedder.embed("a"))
    await eventually(lambda: embedder.server.host.waiting == 1, "the request has its turn")
    os.kill(process.pid, signal.SIGKILL)
    reply = await asking
    assert reply["failure"]["code"] == "failed"
    assert "status -9" in reply["failure"]["message"]
    assert (await embedder.embed("a"))["embeddings"]["tokens"] == [3]
    assert loaded(embedder) is not process


async def test_a_client_that_leaves_while_it_waits_is_dropped_and_the_engine_stays(embedder: RunningEmbedder) -> None:
    await embedder.client.embed(["a"])
    host, process = embedder.server.host, loaded(embedder)
    answered = host.answered
    os.kill(process.pid, signal.SIGSTOP)
    first = asyncio.create_task(embedder.embed("a"))
    await eventually(lambda: host.waiting == 1, "one is computed")
    second = asyncio.create_task(embedder.embed("b"))
    await eventually(lambda: host.waiting == 2, "one waits")
    second.cancel()
    await eventually(lambda: host.waiting == 1, "the one that waits has left")
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    os.kill(process.pid, signal.SIGCONT)
    await eventually(lambda: host.waiting == 0, "the one that is computed has ended")
    assert host.answered == answered + 1
    assert (await embedder.embed("c"))["embeddings"]["tokens"] == [3]
    assert loaded(embedder) is process


async def test_a_full_queue_refuses_at_once(embedder: RunningEmbedder) -> None:
    await embedder.client.embed(["a"])
    host, process = embedder.server.host, loaded(embedder)
    os.kill(process.pid, signal.SIGSTOP)
    asking = [asyncio.create_task(embedder.embed("a")) for _ in range(16)]
    await eventually(lambda: host.waiting == 16, "the queue is full")
    reply = await embedder.embed("a")
    assert reply["failure"]["code"] == "busy"
    assert "16 requests wait already" in reply["failure"]["message"]
    assert (await embedder.client.describe()).waiting == 16
    os.kill(process.pid, signal.SIGCONT)
    assert all(one["failure"] is None for one in await asyncio.gather(*asking))


@pytest.mark.unit_slow
async def test_an_engine_that_overruns_is_ended(tmp_path: Path, engine: Path) -> None:
    async with running_embedder(tmp_path, engine) as embedder:
        await embedder.embed("a")
        process, host = loaded(embedder), embedder.server.host
        os.kill(process.pid, signal.SIGSTOP)
        host.answer_seconds = PATIENT_SECONDS / 2
        asking = asyncio.create_task(embedder.embed("a"))
        await eventually(host._turn.locked, "the engine has the request")
        skip_seconds(host.answer_seconds)
        assert (await asking)["failure"]["code"] == "time_limit"
        assert process.has_ended
        host.answer_seconds = PATIENT_SECONDS
        assert (await embedder.embed("a"))["failure"] is None


@pytest.mark.unit_slow
async def test_an_engine_without_requests_is_freed_and_comes_back(tmp_path: Path, engine: Path) -> None:
    async with running_embedder(tmp_path, engine) as embedder:
        started: list[EngineProcess] = []
        start = embedder.server.host.start

        async def note() -> EngineProcess:
            started.append(await start())
            return started[-1]

        embedder.server.host.start = note
        assert not (await embedder.client.describe()).is_loaded
        await embedder.embed("a")
        skip_seconds(embedder.server.host.idle_seconds)
        await eventually(lambda: started[0].has_ended, "the engine is freed")
        assert not (await embedder.client.describe()).is_loaded
        assert (await embedder.embed("a"))["failure"] is None
        assert embedder.server.host.loads == 2


@pytest.mark.unit_slow
async def test_an_engine_that_cannot_be_loaded_is_an_error_of_each_request(tmp_path: Path, engine: Path) -> None:
    broken = shutil.copytree(engine, tmp_path / "broken")
    (broken / "openvino_model.xml").write_text("<net/>")
    async with running_embedder(tmp_path, broken) as embedder:
        for _ in range(2):
            reply = await embedder.embed("a")
            assert reply["failure"]["code"] == "failed"
            assert "the log of container embedder says why" in reply["failure"]["message"]
        assert (await embedder.client.describe()).failed == 2
