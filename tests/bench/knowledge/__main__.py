"""`make bench NAME=knowledge`: what a search finds, how long it takes, and what reading a long PDF costs.

Quality: how often the one right answer is first, and among the first five, by words alone, vectors alone, and both:
on a set of our own and on Perl's list of frequent questions, the halves on which nothing was chosen. Vectors are of the shipped engine, all-MiniLM-L6-v2, through the embedder's process. Times: a search in an index
of 10,000 and of 100,000 chunks. Reading: a PDF of 1,000 pages through the reader's process into chunks, with the peak
memory of its child; then how fast chunks are embedded. A JSON line is last.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.knowledge.perl_faq import UnavailableSetError, load_perl_faq
from bench.knowledge.question_sets import load_own, make_file, measure_set
from bench.running import exit_at_sigterm
from r1plus_assistant.embedding.client import Embedder, SocketEmbedder
from r1plus_assistant.knowledge.chunking import Chunker, ChunkSize, describe_passage
from r1plus_assistant.knowledge.documents import SocketDocumentReader
from r1plus_assistant.knowledge.index import StoreIndex
from r1plus_gateway.store.content.knowledge import (
    BATCH_CHUNKS,
    Chunk,
    ChunkBatch,
)
from r1plus_model_repo.importing.embedding.minilm import NAME, build_minilm
from support.documents.making import make_pdf
from support.documents.process import running_reader_process
from support.embedding.process import running_embedder_process

DIMENSIONS = 384
QUERIES = 200
CHUNK_WORDS = 120
VOCABULARY = 50_000
ENGINE = "bench@sha256:00"
MOST_BYTES = 2**30
PAGES = 1000
PAGE_LINES = 45
ENGINES = Path("/var/cache/r1plus/engines")


async def measure_quality(embedder: Embedder, *, is_reported: bool) -> dict[str, float]:
    """Return what is found of each set of questions."""
    figures = await measure_set(embedder, load_own(), is_reported=is_reported)
    try:
        return figures | await measure_set(embedder, load_perl_faq(ENGINES.parent), is_reported=is_reported)
    except UnavailableSetError as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return figures


def measure_search(count: int, seed: int) -> dict[str, float]:
    """Return times of searches in an index of so many chunks, and its size."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    words = np.array([f"w{number:x}" for number in range(VOCABULARY)])
    weights /= weights.sum()
    index = StoreIndex(ENGINE, MOST_BYTES)
    index.add_file(make_file("many"))
    index.reserve(count)
    build = 0.0
    for position in range(count // BATCH_CHUNKS + 1):
        size = min(BATCH_CHUNKS, count - position * BATCH_CHUNKS)
        if size <= 0:
            break
        texts = rng.choice(words, (size, CHUNK_WORDS), p=weights)
        chunks = [Chunk(" ".join(text), 0, 1) for text in texts]
        vectors = rng.standard_normal((size, DIMENSIONS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        started = time.process_time()
        index.add_batch(ChunkBatch(position, chunks, ENGINE, vectors.tobytes()))
        build += time.process_time() - started
    index.end_building()
    times, own_times = [], []
    used = time.process_time()
    for _ in range(QUERIES):
        question = " ".join(rng.choice(words, 8, p=weights))
        vector = rng.standard_normal(DIMENSIONS).astype(np.float32)
        vector /= np.linalg.norm(vector)
        started, own = time.perf_counter(), time.thread_time()
        index.search(question, vector, 10)
        times.append(1000 * (time.perf_counter() - started))
        own_times.append(1000 * (time.thread_time() - own))
    used = time.process_time() - used
    idle, lag = (asyncio.run(measure_lag(one, question, vector)) for one in (None, index))
    name = f"search_{count}"
    return {
        f"{name}_p50_ms": round(statistics.median(times), 1),
        f"{name}_p99_ms": round(float(np.percentile(times, 99)), 1),
        f"{name}_cpu_ms": round(1000 * used / QUERIES, 1),
        f"{name}_cpu_p99_ms": round(float(np.percentile(own_times, 99)), 1),
        f"{name}_loop_lag_p99_ms": round(lag, 1),
        f"{name}_loop_lag_idle_p99_ms": round(idle, 1),
        f"{name}_build_cpu_s": round(build, 1),
        f"{name}_index_mb": round(index.size / 2**20),
    }


async def measure_lag(index: StoreIndex | None, question: str, vector: Any) -> float:
    """Return by how many milliseconds an event loop is late while searches run in a thread, in the 99th percentile.

    Without an index: while none runs, which is what other programs cost.
    """
    late: list[float] = []

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append(1000 * (time.perf_counter() - started) - 5)

    ticking = asyncio.create_task(tick())
    for _ in range(QUERIES // 4):
        if index is None:
            await asyncio.sleep(0.05)
        else:
            await asyncio.to_thread(index.search, question, vector, 10)
    ticking.cancel()
    return float(np.percentile(late, 99))


async def measure_reading(folder: Path, seed: int) -> tuple[dict[str, float], list[str]]:
    """Return how fast a long PDF is read and cut, the child's peak memory, and some chunks."""
    random.seed(seed)
    names = [f"word{number}" for number in range(3000)]
    pages = ["\n".join(" ".join(random.choices(names, k=9)) + "." for _ in range(PAGE_LINES)) for _ in range(PAGES)]
    data = make_pdf(pages)
    async with running_reader_process(folder) as socket:
        peak = 0

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, _read_peaks())
                await asyncio.sleep(0.05)

        async def read_part(position: int) -> bytes | None:
            return data[position * 2**18 : (position + 1) * 2**18] or None

        watching = asyncio.create_task(watch())
        chunker, texts, started = Chunker(ChunkSize()), [], time.monotonic()
        async for reply in SocketDocumentReader(str(socket)).read("long.pdf", len(data), read_part):
            for block in reply.blocks:
                texts += [describe_passage(chunk) for chunk in chunker.add(block)]
        texts += [describe_passage(chunk) for chunk in chunker.finish()]
        seconds = time.monotonic() - started
        watching.cancel()
    figures = {
        "pdf_pages": PAGES,
        "pdf_megabytes": round(len(data) / 2**20, 1),
        "pdf_chunks": len(texts),
        "pdf_chunks_per_s": round(len(texts) / seconds),
        "pdf_peak_mb": round(peak / 1024),
    }
    return figures, texts


def _read_peaks() -> int:
    """Return the largest peak of memory in KiB of all processes that read documents."""
    peak = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            peak = max(peak, _read_peak(path))
    return peak


def _read_peak(path: Path) -> int:
    """Return the peak of resident memory in KiB of a process that reads documents; 0 of another one."""
    if b"r1plus_documents" not in (path.parent / "cmdline").read_bytes():
        return 0
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines.get("VmHWM", "0 kB").split()[0])


async def measure_embedding(embedder: Embedder, texts: list[str]) -> dict[str, float]:
    """Return how many chunks are embedded in a second."""
    started = time.monotonic()
    for start in range(0, len(texts), BATCH_CHUNKS):
        await embedder.embed(texts[start : start + BATCH_CHUNKS])
    return {"embed_chunks_per_s": round(len(texts) / (time.monotonic() - started), 1)}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    engine = Path(options.engine) if options.engine else build_minilm(ENGINES, print)
    figures: dict[str, Any] = {"seed": options.seed}
    texts: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.only_quality:
            read, texts = await measure_reading(folder, options.seed)
            figures |= read
        async with running_embedder_process(folder, engine, NAME) as process:
            embedder = SocketEmbedder(str(process.socket))
            figures |= await measure_quality(embedder, is_reported=not options.development)
            if texts:
                figures |= await measure_embedding(embedder, texts[: 16 * BATCH_CHUNKS])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--development", action="store_true", help="The halves that choose the ranking.")
    parser.add_argument("--only-quality", action="store_true", help="What is found only.")
    parser.add_argument("--only-search", action="store_true", help="Times of searches only.")
    parser.add_argument("--engine", default="", help="Folder of an embedding engine; by default it is made.")
    options = parser.parse_args()
    exit_at_sigterm()
    figures = {} if options.only_search else asyncio.run(measure(options))
    for count in () if options.only_quality else (10_000, 100_000):
        figures |= measure_search(count, options.seed)
    figures["load"] = round(os.getloadavg()[0], 1)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
