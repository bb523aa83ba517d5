"""`POST /v1/embeddings`: its form, who may call, what is billed, and what is said where there are no vectors."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from r1plus_assistant.embedding.client import EmbedderUnavailableError, SocketEmbedder
from r1plus_assistant.embeddings import MOST_AT_ONCE, MOST_INPUTS
from r1plus_contract.embedder import (
    MOST_TEXT_BYTES,
    MOST_TEXTS,
    EmbedderReply,
    EmbeddingFailure,
    EmbeddingFailureCode,
    TextEmbeddings,
)
from r1plus_contract.frames import LENGTH_BYTES, pack
from r1plus_contract.jsonable import dumps
from r1plus_gateway.access.caller import AccessError, AnswerEvidence, Caller, CallerKind, Outcome, TokenUsage
from support.embedding.running import running_embedder
from support.embedding.tiny_model import make_tiny_engine
from support.gateway.access import KEY
from support.gateway.fake_embedder import DIMENSIONS, EMBEDDING, ENGINE
from support.gateway.fake_triton import answer
from support.gateway.rig import Rig, running
from support.tables import for_each
from support.waiting import eventually

NAME = "minilm"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path, answer("a"), settings={"embedding": EMBEDDING}) as rig:
        yield rig


async def embed(rig: Rig, given: Any, **fields: Any) -> tuple[int, Any]:
    """Send texts; return the status and the answer."""
    async with rig.post("/v1/embeddings", {"model": NAME, "input": given, **fields}) as response:
        return response.status, await response.json()


async def test_texts_become_vectors_in_their_order_and_their_tokens_are_billed(rig: Rig) -> None:
    body = {"model": NAME, "input": ["one two", "three"], "user": "alice"}
    async with rig.post("/v1/embeddings", body) as response:
        got = await response.json()
        assert (response.status, response.headers["x-r1plus-engine"]) == (200, ENGINE)
        assert response.headers["x-ratelimit-remaining-requests"] == "59"
    expected = await rig.embedder.embed(["one two", "three"])
    for position, item in enumerate(got["data"]):
        assert (item["object"], item["index"]) == ("embedding", position)
        assert np.array_equal(np.array(item["embedding"], np.float32), expected.vectors[position])
    del got["data"]
    assert got == {
        "object": "list",
        "model": NAME,
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "r1plus": {"engine": ENGINE, "truncated": []},
    }
    await rig.until_settled()
    settled = rig.ledger.settled[0]
    assert (settled.reservation.model, settled.usage) == (NAME, TokenUsage(7, 0))
    assert settled.reservation.tokens == len("one two") + 2 + len("three") + 2
    assert settled.outcome is Outcome.ANSWERED
    assert settled.evidence == AnswerEvidence("", "5a" * 32, "")
    assert rig.metric("r1plus_gateway_requests_total", model=NAME, key="alice", outcome="answered") == 1


async def test_one_text_may_come_without_a_list_and_leave_in_base64(rig: Rig) -> None:
    _, plain = await embed(rig, "one two", dimensions=DIMENSIONS)
    status, got = await embed(rig, "one two", encoding_format="base64", dimensions=None)
    assert status == 200
    numbers = np.frombuffer(base64.b64decode(got["data"][0]["embedding"]), "<f4")
    assert np.array_equal(numbers, np.array(plain["data"][0]["embedding"], np.float32))
    assert rig.embedder.asked == [("one two",), ("one two",)]


async def test_the_real_openai_client_reads_the_answer(rig: Rig) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{rig.url}/v1", max_retries=0) as client:
        for options in ({}, {"encoding_format": "float"}):
            got = await client.embeddings.create(model=NAME, input=["one", "two three"], **options)  # type: ignore[arg-type]
            assert [len(item.embedding) for item in got.data] == [DIMENSIONS, DIMENSIONS]
            assert sum(number**2 for number in got.data[1].embedding) == pytest.approx(1, abs=1e-5)
            assert (got.usage.prompt_tokens, got.usage.total_tokens) == (7, 7)
        assert NAME in [model.id async for model in client.models.list()]
        about = await client.models.retrieve(NAME)
        assert about.model_extra is not None
        assert about.model_extra["r1plus"]["dimensions"] == DIMENSIONS
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="credit", input="a")


@for_each(
    "body, code, param, words",
    {
        "no model": ({"input": "a"}, "missing_required_parameter", "model", "model"),
        "no input": ({"model": NAME}, "missing_required_parameter", "input", "missing or empty"),
        "null": ({"model": NAME, "input": None}, "missing_required_parameter", "input", "missing or empty"),
        "an empty text": ({"model": NAME, "input": ""}, "missing_required_parameter", "input", "missing or empty"),
        "an empty list": ({"model": NAME, "input": []}, "missing_required_parameter", "input", "missing or empty"),
        "an empty text in a list": ({"model": NAME, "input": ["a", ""]}, "missing_required_parameter", "input[1]", "leave it out"),
        "a number": ({"model": NAME, "input": 1}, "invalid_type", "input", "send the texts themselves"),
        "token ids": ({"model": NAME, "input": [1, 2]}, "invalid_type", "input[0]", "check_embedding_ctx_length=False"),
        "lists of token ids": ({"model": NAME, "input": [[1, 2]]}, "invalid_type", "input[0]", "another model's tokenizer"),
        "an object": ({"model": NAME, "input": {"text": "a"}}, "invalid_type", "input", "expected a string"),
        "a null in a list": ({"model": NAME, "input": [None]}, "invalid_type", "input[0]", "expected a string"),
        "too many texts": ({"model": NAME, "input": ["a"] * (MOST_INPUTS + 1)}, "invalid_value", "input", "send several requests"),
        "a text that nobody reads": ({"model": NAME, "input": ["ü" * MOST_TEXT_BYTES]}, "invalid_value", "input[0]", "exceed 32768; split the text"),
        "other dimensions": ({"model": NAME, "input": "a", "dimensions": 256}, "invalid_value", "dimensions", "256 is not 384"),
        "no dimensions": ({"model": NAME, "input": "a", "dimensions": 0}, "invalid_value", "dimensions", "0 is not 384"),
        "another encoding": ({"model": NAME, "input": "a", "encoding_format": "int8"}, "invalid_value", "encoding_format", "float, base64"),
        "an unknown field": ({"model": NAME, "input": "a", "input_type": "query"}, "unsupported_parameter", "input_type", "leave it out"),
        "truncate in words": ({"model": NAME, "input": "a", "truncate": "END"}, "invalid_type", "truncate", "true or false"),
    },
)  # fmt: skip
async def test_a_wrong_request_is_refused_before_anything_is_counted(
    rig: Rig, body: Any, code: str, param: str, words: str
) -> None:
    async with rig.post("/v1/embeddings", body) as response:
        got = await response.json()
    assert (response.status, got["error"]["code"], got["error"]["param"]) == (400, code, param)
    assert words in got["error"]["message"]
    assert (rig.ledger.arrived, rig.embedder.asked) == (0, [])


@for_each("model", {"a deployment": "credit", "one that does not exist": "gpt-4", "a preset of it": f"{NAME}:code"})
async def test_another_model_is_not_found(rig: Rig, model: str) -> None:
    status, got = await embed(rig, "a", model=model)
    assert (status, got["error"]["code"]) == (404, "model_not_found")


async def test_a_long_text_is_refused_with_its_place_unless_its_beginning_will_do(rig: Rig) -> None:
    long = "word " * 300
    status, got = await embed(rig, ["a", long])
    assert (status, got["error"]["code"], got["error"]["param"]) == (400, "text_refused", "input[1]")
    assert "256 tokens" in got["error"]["message"]
    status, got = await embed(rig, long)
    assert (status, got["error"]["param"]) == (400, "input")
    status, got = await embed(rig, ["a", long], truncate=True)
    assert (status, got["r1plus"]["truncated"], got["usage"]["prompt_tokens"]) == (200, [1], 3 + 256)
    await rig.until_settled(3)
    assert [one.usage.prompt_tokens for one in rig.ledger.settled] == [0, 0, 259]
    assert rig.ledger.settled[2].reservation.tokens == 3 + 256


@for_each(
    "settings, has_embedder",
    {
        "no engine": ({}, True),
        "no embedder": ({"embedding": EMBEDDING}, False),
    },
)
async def test_without_an_embedder_the_answer_says_whom_to_ask(
    tmp_path: Path, settings: dict[str, Any], has_embedder: bool
) -> None:
    async with running(tmp_path, answer("a"), settings=settings, has_embedder=has_embedder) as rig:
        status, got = await embed(rig, "a")
        assert (status, got["error"]["code"]) == (503, "embedder_not_configured")
        assert "spec.gateway.embedding" in got["error"]["message"]
        assert rig.ledger.arrived == 0
        async with rig.post("/v1/embeddings", {"model": NAME, "input": "a"}) as response:
            assert response.headers["x-should-retry"] == "false"


async def test_an_embedder_that_is_away_is_an_error_that_clients_repeat(rig: Rig) -> None:
    rig.embedder.trouble = EmbedderUnavailableError("it is away; try again later")
    async with rig.post("/v1/embeddings", {"model": NAME, "input": "a"}) as response:
        got = await response.json()
        assert (response.status, got["error"]["code"]) == (503, "embedder_unavailable")
        assert response.headers["Retry-After"] == "2"
    await rig.until_settled()
    assert (rig.ledger.settled[0].outcome, rig.ledger.settled[0].usage) == (Outcome.FAILED, TokenUsage(0, 0))


async def test_vectors_of_another_engine_than_the_gateway_lists_are_not_given_out(rig: Rig) -> None:
    rig.embedder.engine = "minilm@sha256:" + "0" * 64
    status, got = await embed(rig, "a")
    assert (status, got["error"]["code"]) == (503, "embedder_unavailable")
    assert "expects " + ENGINE in got["error"]["message"]
    await rig.until_settled()
    assert rig.ledger.settled[0].usage == TokenUsage(0, 0)


@for_each(
    "caller, status, code",
    {
        "an administrator": (Caller(CallerKind.ADMIN, "admin"), 403, "admin_not_allowed"),
        "a key that lists other models": (
            Caller(CallerKind.API_KEY, "k", models=frozenset({"credit"})),
            404,
            "model_not_found",
        ),
        "a key that lists it": (Caller(CallerKind.API_KEY, "k", models=frozenset({NAME})), 200, ""),
        "an account of the tenant": (Caller(CallerKind.SERVICE_ACCOUNT, "a", namespace="team-credit"), 200, ""),
        "an account of another namespace": (
            Caller(CallerKind.SERVICE_ACCOUNT, "b", namespace="team-other"),
            404,
            "model_not_found",
        ),
    },
)
async def test_who_may_embed(rig: Rig, caller: Caller, status: int, code: str) -> None:
    rig.authenticator.callers[KEY] = caller
    got_status, got = await embed(rig, "a")
    assert got_status == status
    assert code in got.get("error", {}).get("code", "")
    async with rig.get("/v1/models") as response:
        listed = [model["id"] for model in (await response.json())["data"]]
    assert (NAME in listed) == (status == 200 or caller.kind is CallerKind.ADMIN)


async def test_a_budget_that_does_not_suffice_refuses_before_anything_is_computed(rig: Rig) -> None:
    rig.ledger.refusal = AccessError(429, "insufficient_quota", "the budget is used up")
    status, got = await embed(rig, "a")
    assert (status, got["error"]["code"]) == (429, "insufficient_quota")
    assert rig.embedder.asked == []


async def test_one_caller_runs_a_few_requests_at_once(rig: Rig) -> None:
    rig.embedder.gate = asyncio.Event()
    running_requests = [asyncio.create_task(embed(rig, "a")) for _ in range(MOST_AT_ONCE)]
    await eventually(lambda: len(rig.embedder.asked) == MOST_AT_ONCE, "all are computed")
    status, got = await embed(rig, "a")
    assert status == 503
    assert f"{MOST_AT_ONCE} of your requests for embeddings run already" in got["error"]["message"]
    rig.embedder.gate.set()
    assert [status for status, _ in await asyncio.gather(*running_requests)] == [200] * MOST_AT_ONCE
    assert (await embed(rig, "a"))[0] == 200


async def test_a_client_that_leaves_is_billed_as_cancelled(rig: Rig) -> None:
    rig.embedder.gate = asyncio.Event()
    request = asyncio.create_task(embed(rig, "a"))
    await eventually(lambda: len(rig.embedder.asked) == 1, "it is computed")
    request.cancel()
    await rig.until_settled()
    assert rig.ledger.settled[0].outcome is Outcome.CANCELLED


class PartialEmbedder:
    """A process that computes the first request of a call, three tokens a text, and does otherwise with the second."""

    def __init__(self, second: bytes | None) -> None:
        self.second = second
        """Its reply; None: none, ever."""
        self.asked = 0
        self._ended = asyncio.Event()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        texts = json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")))[
            "texts"
        ]
        self.asked += 1
        if self.asked == 1:
            vectors = base64.b64encode(np.ones((len(texts), 1), "<f4").tobytes()).decode()
            writer.write(pack(dumps(EmbedderReply(TextEmbeddings(ENGINE, 1, vectors, (3,) * len(texts)))).encode()))
        elif self.second is not None:
            writer.write(self.second)
        else:
            await self._ended.wait()
        writer.close()

    @contextlib.asynccontextmanager
    async def listen(self, path: Path) -> AsyncIterator[SocketEmbedder]:
        """Serve until the block ends; yield its client."""
        async with await asyncio.start_unix_server(self._answer, path):
            yield SocketEmbedder(str(path))
            self._ended.set()


def fail(code: EmbeddingFailureCode) -> bytes:
    """Return the reply that refuses the second text of a request."""
    return pack(dumps(EmbedderReply(failure=EmbeddingFailure(code, "no", 1))).encode())


@for_each(
    "second, status, outcome",
    {
        "a later text is refused": (fail(EmbeddingFailureCode.TEXT_TOO_LONG), 400, Outcome.ANSWERED),
        "the embedder is busy later": (fail(EmbeddingFailureCode.BUSY), 503, Outcome.FAILED),
        "the embedder goes away": (b"", 503, Outcome.FAILED),
        "the client leaves": (None, None, Outcome.CANCELLED),
    },
)
async def test_what_was_computed_is_billed_though_there_is_no_answer(
    tmp_path: Path, second: bytes | None, status: int | None, outcome: Outcome
) -> None:
    process = PartialEmbedder(second)
    async with (
        process.listen(tmp_path / "s") as client,
        running(tmp_path, answer("a"), settings={"embedding": EMBEDDING}, embedder=client) as rig,
    ):
        request = asyncio.create_task(embed(rig, ["a"] * (MOST_TEXTS + 2)))
        if status is None:
            await eventually(lambda: process.asked == 2, "the second part is computed")
            request.cancel()
        else:
            assert (await request)[0] == status
        await rig.until_settled()
    settled = rig.ledger.settled[0]
    assert (settled.outcome, settled.usage) == (outcome, TokenUsage(3 * MOST_TEXTS, 0))
    assert settled.evidence == AnswerEvidence("", "5a" * 32, "")


@pytest.mark.unit_slow
async def test_a_real_embedder_gives_vectors_through_the_gateway(tmp_path: Path) -> None:
    engine = make_tiny_engine(tmp_path / "tiny")
    async with running_embedder(tmp_path, engine) as embedder:
        health = await embedder.client.describe()
        about = {"name": "tiny", "sha256": health.engine.rpartition(":")[2], "dimensions": 16, "mostTokens": 32}
        (tmp_path / "gateway").mkdir()
        settings = {"embedding": about}
        async with running(tmp_path / "gateway", answer("a"), settings=settings, embedder=embedder.client) as rig:
            status, got = await embed(rig, ["the limit", "\x01", "x" * 999], model="tiny", truncate=True)
    assert status == 200, got
    assert got["usage"]["prompt_tokens"] == 4 + 2 + 3
    assert got["r1plus"] == {"engine": health.engine, "truncated": []}
    assert [len(item["embedding"]) for item in got["data"]] == [16, 16, 16]
