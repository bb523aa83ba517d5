"""What memory adds to the time to the first token, through a real gateway before a pod that answers at once.

Requests that continue 1,000 stored turns, that continue 10, and that continue nothing come in turn, in the same run. The
gateway is started again before they are measured: the first request to each conversation finds nothing in its memory.
Memory is searched by words and by vectors. What the embedder takes for the question alone is measured beside it.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from bench.memory.conversations import build_conversations
from bench.memory.development import DEVELOPMENT
from r1plus_assistant.embedding.client import SocketEmbedder
from support.gateway.fake_triton import FakeTriton, serving
from support.gateway.interleaving import answer_briefly
from support.gateway.process import running_process
from support.gateway.whole import running_minilm

TURNS: Final = (1_000, 10)
CONVERSATIONS: Final = 5
"""Of each length: one takes no more than 2,048 items, and each request adds two."""
ROUNDS: Final = 16
MOST_LOOKS: Final = 7
"""At a conversation, until all that was stated has its vector."""
LOOK_SECONDS: Final = 2.0
"""After the first look; each next one comes after twice the time."""
ITEMS_AT_ONCE: Final = 20
BUDGET: Final = 1_024
CONTEXT: Final = 16_384
"""What is read of a conversation goes by the context: with this one all turns are."""
QUESTION: Final = "When does our version come out?"
SETTINGS: Final = {"data": {"contentDays": 30}}
Json = dict[str, Any]


async def measure_first_token(rounds: int = ROUNDS) -> dict[str, float]:
    """Return milliseconds beyond a request that continues nothing, by how many turns are stored."""
    pod = FakeTriton(answer_briefly)
    with tempfile.TemporaryDirectory(prefix="r1plus-memory-") as name:
        async with (
            serving(pod),
            running_minilm(Path(name)) as embedder,
            running_process(Path(name), pod, SETTINGS, embedder=embedder, contextTokens=CONTEXT) as gateway,
        ):
            key = await gateway.create_key()
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
                made = {
                    turns: [await _store(session, gateway.url, turns) for _ in range(CONVERSATIONS)] for turns in TURNS
                }
                gateway.kill()
                gateway.start()
                await gateway.until_ready()
                return await _measure(session, gateway.url, made, rounds, SocketEmbedder(str(embedder.socket)))


async def _measure(
    session: aiohttp.ClientSession, url: str, made: dict[int, list[str]], rounds: int, embedder: SocketEmbedder
) -> dict[str, float]:
    for _ in range(CONVERSATIONS):
        await _ask(session, url, "")
    stored = {name: turns for turns, names in made.items() for name in names}
    cold = {turns: [await _ask_next(session, url, name, stored) for name in names] for turns, names in made.items()}
    for name in list(stored):
        await _await_vectors(session, url, name, stored)
    warm: dict[int, list[float]] = {turns: [] for turns in made}
    alone: list[float] = []
    embedding: list[float] = []
    for _ in range(rounds):
        for place in range(CONVERSATIONS):
            alone.append((await _ask(session, url, ""))[0])
            embedding.append(await _embed(embedder))
            for turns, names in made.items():
                elapsed, search = await _ask_next(session, url, names[place], stored)
                assert search == "hybrid", "a search without vectors is faster"
                warm[turns].append(elapsed)
    base = statistics.median(alone)
    figures = {
        "first_token_ms": base,
        "question_embedding_p50_ms": statistics.median(embedding),
        "question_embedding_p99_ms": find_percentile(embedding, 99),
    }
    for turns in made:
        figures[f"added_{turns}_turns_p50_ms"] = statistics.median(warm[turns]) - base
        figures[f"added_{turns}_turns_p99_ms"] = find_percentile(warm[turns], 99) - find_percentile(alone, 99)
        figures[f"added_{turns}_turns_cold_ms"] = statistics.median(elapsed for elapsed, _ in cold[turns]) - base
    return {name: round(value, 1) for name, value in figures.items()}


async def _await_vectors(session: aiohttp.ClientSession, url: str, name: str, stored: dict[str, int]) -> None:
    """Ask a conversation until it is searched by vectors, too. Each question adds a turn, and few more fit."""
    for number in range(MOST_LOOKS):
        if (await _ask_next(session, url, name, stored))[1] == "hybrid":
            return
        await asyncio.sleep(LOOK_SECONDS * 2**number)
    raise AssertionError(f"no vectors after {MOST_LOOKS} looks")


async def _embed(embedder: SocketEmbedder) -> float:
    began = time.perf_counter()
    await embedder.embed([QUESTION])
    return 1000 * (time.perf_counter() - began)


async def _ask_next(session: aiohttp.ClientSession, url: str, name: str, stored: dict[str, int]) -> tuple[float, str]:
    """Ask a conversation; `stored`: turns of each, of which there is one more then."""
    answer = await _ask(session, url, name, stored[name])
    stored[name] += 1
    return answer


def find_percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def _store(session: aiohttp.ClientSession, url: str, turns: int) -> str:
    """Store a conversation; return its id."""
    scripts = build_conversations(DEVELOPMENT, 1)
    pairs = [pair for script in scripts for pair in script.turns][:turns]
    items = [item for user, assistant in pairs for item in (_say("user", user), _say("assistant", assistant))]
    made = await _call(session, f"{url}/v1/conversations", {})
    for start in range(0, len(items), ITEMS_AT_ONCE):
        await _call(
            session, f"{url}/v1/conversations/{made['id']}/items", {"items": items[start : start + ITEMS_AT_ONCE]}
        )
    return str(made["id"])


def _say(role: str, text: str) -> Json:
    return {"role": role, "content": text}


async def _call(session: aiohttp.ClientSession, url: str, body: Json) -> Json:
    async with session.post(url, json=body) as response:
        answer: Json = await response.json()
        assert response.status == 200, answer
        return answer


async def _ask(session: aiohttp.ClientSession, url: str, conversation: str, turns: int = 0) -> tuple[float, str]:
    """Ask with memory of so many turns; return milliseconds to the first token, and how memory was searched."""
    body: Json = {"model": "credit", "input": QUESTION, "stream": True, "store": False, "max_output_tokens": 16}
    if conversation:
        body |= {"conversation": conversation, "memory": {"enabled": True, "budget_tokens": BUDGET}}
    began, first, last = time.perf_counter(), 0.0, b""
    async with session.post(f"{url}/v1/responses", json=body) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not first and line.startswith(b"event: response.output_text.delta"):
                first = time.perf_counter()
            last = line if line.startswith(b'data: {"type":"response.completed"') else last
    assert first, "an answer without text"
    memory = orjson.loads(last.removeprefix(b"data: "))["response"]["r1plus"].get("memory", {"turns": 0, "search": ""})
    assert memory["turns"] == turns, f"{memory['turns']} of {turns} turns were read"
    return 1000 * (first - began), memory["search"]
