"""The client of the embedder's socket: what it sends, what it takes, and what it says of an embedder that misbehaves."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1plus_assistant.embedding.client import (
    MOST_AT_ONCE,
    EmbedderUnavailableError,
    SocketEmbedder,
    TextRefusedError,
)
from r1plus_contract.embedder import (
    MOST_REQUEST_BYTES,
    MOST_TEXT_BYTES,
    MOST_TEXTS,
    EmbedderHealth,
    EmbedderReply,
    EmbeddingFailure,
    EmbeddingFailureCode,
    TextEmbeddings,
)
from r1plus_contract.frames import LENGTH_BYTES
from r1plus_contract.frames import pack as frame
from r1plus_contract.jsonable import dumps, to_jsonable
from support.tables import for_each
from support.waiting import eventually

ENGINE = "minilm@sha256:" + "5a" * 32
Request = dict[str, Any]


def count_texts(request: Request) -> bytes:
    """Reply with a vector per text: its length in characters, then 1."""
    rows = np.array([[len(text), 1] for text in request["texts"]], "<f4")
    tokens = tuple(len(text) for text in request["texts"])
    truncated = tuple(position for position, size in enumerate(tokens) if size == 7)
    embeddings = TextEmbeddings(ENGINE, 2, base64.b64encode(rows.tobytes()).decode(), tokens, truncated)
    return frame(dumps(EmbedderReply(embeddings)).encode())


@asynccontextmanager
async def embedder(folder: Path, reply: Callable[[Request], bytes]) -> AsyncIterator[tuple[SocketEmbedder, list[int]]]:
    """Run a process that replies so; yield a client, and the number of texts of each request."""
    asked: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        assert length <= MOST_REQUEST_BYTES
        request = json.loads(await reader.readexactly(length))
        asked.append(len(request["texts"]))
        writer.write(reply(request))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(answer, folder / "s"):
        yield SocketEmbedder(str(folder / "s"), answer_seconds=60), asked


async def test_many_texts_go_in_several_requests_and_keep_their_order(tmp_path: Path) -> None:
    texts = ["x" * (position % 8) for position in range(MOST_TEXTS + 5)]
    async with embedder(tmp_path, count_texts) as (client, asked):
        got = await client.embed(texts)
    assert asked == [MOST_TEXTS, 5]
    assert got.vectors.dtype == np.float32
    assert got.vectors.tolist() == [[len(text), 1.0] for text in texts]
    assert got.tokens == tuple(len(text) for text in texts)
    assert got.truncated == tuple(position for position, text in enumerate(texts) if len(text) == 7)
    assert got.engine == ENGINE


async def test_few_long_texts_go_in_one_request_so_that_others_come_in_between(tmp_path: Path) -> None:
    async with embedder(tmp_path, count_texts) as (client, asked):
        got = await client.embed(["x" * 600] * 70)
    assert asked == [32, 32, 6]
    assert len(got.tokens) == 70


async def test_texts_of_the_largest_size_fit_into_requests_even_where_json_escapes_each_character(
    tmp_path: Path,
) -> None:
    async with embedder(tmp_path, count_texts) as (client, asked):
        got = await client.embed(["\x01" * MOST_TEXT_BYTES] * 9)
    assert got.tokens == (MOST_TEXT_BYTES,) * 9
    assert sum(asked) == 9
    assert len(asked) > 1


@for_each(
    "text, words",
    {
        "too many bytes": ("ü" * (MOST_TEXT_BYTES // 2 + 1), "exceed 32768"),
        "half a character": ("ab\ud800", "position 2"),
    },
)
async def test_a_text_that_cannot_be_sent_is_refused_with_its_position(tmp_path: Path, text: str, words: str) -> None:
    async with embedder(tmp_path, count_texts) as (client, asked):
        with pytest.raises(TextRefusedError, match=words) as caught:
            await client.embed(["a", text])
        assert (caught.value.position, asked) == (1, [])


async def test_the_position_of_a_refused_text_counts_the_requests_before(tmp_path: Path) -> None:
    def refuse_second(request: Request) -> bytes:
        if len(request["texts"]) == MOST_TEXTS:
            return count_texts(request)
        failure = EmbeddingFailure(EmbeddingFailureCode.TEXT_TOO_LONG, "300 tokens exceed 256", 1)
        return frame(dumps(EmbedderReply(failure=failure)).encode())

    async with embedder(tmp_path, refuse_second) as (client, _):
        with pytest.raises(TextRefusedError, match="300 tokens") as caught:
            await client.embed(["a"] * (MOST_TEXTS + 2), truncate=False)
        assert caught.value.position == MOST_TEXTS + 1


async def test_nothing_to_embed_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        await SocketEmbedder(str(tmp_path / "s")).embed([])


async def test_an_embedder_tells_its_engine(tmp_path: Path) -> None:
    health = EmbedderHealth(ENGINE, 384, 256, False, 0, 0, 0)
    async with embedder(tmp_path, lambda _: frame(dumps(EmbedderReply(health=health)).encode())) as (client, asked):
        assert await client.identify() == ENGINE
        assert await client.describe() == health
    assert asked == [0, 0]


def alter(**fields: Any) -> Callable[[Request], bytes]:
    """Return a reply with other fields than it should have."""

    def reply(request: Request) -> bytes:
        document = json.loads(count_texts(request)[LENGTH_BYTES:])
        document["embeddings"].update(fields)
        return frame(json.dumps(document).encode())

    return reply


@for_each(
    "reply, words",
    {
        "nothing": (lambda _: b"", "broke off"),
        "half a reply": (lambda request: count_texts(request)[:-1], "broke off"),
        "an endless reply": (lambda _: b"\xff\xff\xff\xff", "not between 1 and"),
        "no JSON": (lambda _: frame(b"{"), "not understood"),
        "an empty reply": (lambda _: frame(dumps(EmbedderReply()).encode()), "not understood"),
        "too few vectors": (alter(tokens=[1]), "not understood"),
        "other dimensions": (alter(dimensions=3), "not understood"),
        "no dimensions": (alter(dimensions=0), "not understood"),
        "no base64": (alter(vectors="§§§§"), "not understood"),
        "numbers that are none": (
            alter(vectors=base64.b64encode(np.full(4, np.nan, "<f4").tobytes()).decode()),
            "not understood",
        ),
        "numbers that no index has room for": (
            alter(vectors=base64.b64encode(np.full(4, 1e10, "<f4").tobytes()).decode()),
            "not understood",
        ),
        "a text that was not sent": (alter(truncated=[2]), "not understood"),
        "fewer tokens than none, which would be credited": (alter(tokens=[-5, 1]), "not understood"),
        "more tokens than bytes, which would be billed": (alter(tokens=[2**62, 1]), "not understood"),
        "values without end": (alter(truncated=[0] * 100_000), "not understood"),
        "an identity without end": (alter(engine="x" * 100_000), "not understood"),
        "busy": (
            lambda _: frame(
                dumps(EmbedderReply(failure=EmbeddingFailure(EmbeddingFailureCode.BUSY, "16 requests wait"))).encode()
            ),
            "16 requests wait",
        ),
    },
)
async def test_an_embedder_that_misbehaves_is_unavailable(
    tmp_path: Path, reply: Callable[[Request], bytes], words: str
) -> None:
    async with embedder(tmp_path, reply) as (client, _):
        with pytest.raises(EmbedderUnavailableError, match=words):
            await client.embed(["a", "b"])


async def test_an_engine_that_changes_between_two_requests_gives_no_mixed_vectors(tmp_path: Path) -> None:
    def change(request: Request) -> bytes:
        document = json.loads(count_texts(request)[LENGTH_BYTES:])
        document["embeddings"]["engine"] = f"engine-{len(request['texts'])}"
        return frame(json.dumps(document).encode())

    async with embedder(tmp_path, change) as (client, _):
        with pytest.raises(EmbedderUnavailableError, match="changed its engine"):
            await client.embed(["a"] * (MOST_TEXTS + 1))


async def test_without_a_process_the_message_names_the_container(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailableError, match="container embedder"):
        await SocketEmbedder(str(tmp_path / "s")).embed(["a"])


async def test_a_reply_that_does_not_come_is_given_up(tmp_path: Path, virtual_time: None) -> None:
    ended = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_unix_server(be_silent, tmp_path / "s"):
        with pytest.raises(EmbedderUnavailableError, match="has not answered"):
            await SocketEmbedder(str(tmp_path / "s")).embed(["a"])
        await ended.wait()


async def test_a_wait_for_a_place_ends_and_says_that_the_embedder_is_busy(tmp_path: Path, virtual_time: None) -> None:
    answering, arrived = asyncio.Event(), 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        request = json.loads(await reader.readexactly(length))
        arrived += 1
        await answering.wait()
        writer.write(count_texts(request))
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "s"):
        client = SocketEmbedder(str(tmp_path / "s"), answer_seconds=60, wait_seconds=5)
        before = [asyncio.create_task(client.embed(["a"])) for _ in range(MOST_AT_ONCE)]
        await eventually(lambda: arrived == MOST_AT_ONCE, "all places are taken")
        async with asyncio.timeout(30):
            with pytest.raises(EmbedderUnavailableError, match=r"no place for this request for 5 s"):
                await client.embed(["a"])
        answering.set()
        await asyncio.gather(*before)
        assert (await client.embed(["abc"])).tokens == (3,)


def test_the_wire_names_are_those_that_both_sides_agreed_on() -> None:
    reply = EmbedderReply(TextEmbeddings(ENGINE, 1, "AAAAAA==", (3,)))
    assert to_jsonable(reply)["embeddings"] == {
        "engine": ENGINE,
        "dimensions": 1,
        "vectors": "AAAAAA==",
        "tokens": [3],
        "truncated": [],
    }
