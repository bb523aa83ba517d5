"""Question sets: passages, questions by kind, and which half of them chose the ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.knowledge.catalogue import make_rows
from bench.knowledge.own import CODE_QUESTIONS, MIXED_QUESTIONS, PASSAGES, QUESTIONS
from r1plus_assistant.embedding.client import Embedder
from r1plus_assistant.knowledge.index import StoreIndex
from r1plus_gateway.store.content.knowledge import (
    BATCH_CHUNKS,
    Chunk,
    ChunkBatch,
    Ingestion,
    IngestionState,
    VectorStoreFile,
)

FIRST: Final = 5
MOST_BYTES: Final = 2**30
WAYS: Final = ("words", "vectors", "hybrid")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the number of what answers it."""

    answer: int
    text: str


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Chunks with the number of the answer that each is of, and questions by kind."""

    name: str
    chunks: Sequence[tuple[int, str]]
    questions: Mapping[str, Sequence[Question]]

    def take_half(self, *, is_reported: bool) -> dict[str, Sequence[Question]]:
        """Return every other question of each kind: those that are reported, or those of development."""
        return {kind: questions[int(is_reported) :: 2] for kind, questions in self.questions.items()}


def load_own() -> QuestionSet:
    """Return the set of our own, among rows of catalogues."""
    texts = [f"{heading}\n{text}" for heading, text in (*PASSAGES, *make_rows())]
    kinds = {"paraphrases": QUESTIONS, "codes": CODE_QUESTIONS, "mixed": MIXED_QUESTIONS}
    questions = {kind: [Question(*one) for one in pairs] for kind, pairs in kinds.items()}
    return QuestionSet("own", list(enumerate(texts)), questions)


async def measure_set(embedder: Embedder, questions: QuestionSet, *, is_reported: bool) -> dict[str, float]:
    """Return the share of questions whose answer is first, and among the first five, by each way to rank."""
    index = await _build(embedder, questions.chunks)
    hits: dict[str, list[tuple[bool, bool]]] = {}
    for kind, asked in questions.take_half(is_reported=is_reported).items():
        vectors = await _embed(embedder, [one.text for one in asked])
        for question, vector in zip(asked, vectors, strict=True):
            for way in WAYS:
                found = [questions.chunks[number][0] for number in _rank(index, way, question.text, vector)]
                hit = (question.answer in found, found[:1] == [question.answer])
                for name in {way, f"{kind}_{way}" if kind else way}:
                    hits.setdefault(name, []).append(hit)
    figures: dict[str, float] = {f"{questions.name}_questions": len(hits[WAYS[0]])}
    for name, counted in hits.items():
        figures[f"{questions.name}_{name}_recall5"] = round(float(np.mean([hit[0] for hit in counted])), 3)
        figures[f"{questions.name}_{name}_first"] = round(float(np.mean([hit[1] for hit in counted])), 3)
    return dict(sorted(figures.items()))


def make_file(name: str) -> VectorStoreFile:
    """Return a file of a vector store that is not stored."""
    return VectorStoreFile(name, "vs", name, 0.0, IngestionState.COMPLETED, 0, 0, 0, Ingestion({}, 220, 40))


def _rank(index: StoreIndex, way: str, question: str, vector: NDArray[np.float32]) -> list[int]:
    if way == "hybrid":
        hits = index.search(question, vector, FIRST)
        return [hit.place.batch * BATCH_CHUNKS + hit.place.index for hit in hits]
    return index.rank_by(question, vector if way == "vectors" else None, FIRST)


async def _build(embedder: Embedder, chunks: Sequence[tuple[int, str]]) -> StoreIndex:
    index: StoreIndex | None = None
    for position, start in enumerate(range(0, len(chunks), BATCH_CHUNKS)):
        texts = [text for _, text in chunks[start : start + BATCH_CHUNKS]]
        embedded = await embedder.embed(texts)
        if index is None:
            index = StoreIndex(embedded.engine, MOST_BYTES)
            index.add_file(make_file("all"))
        parts = [Chunk(text, 0, len(text)) for text in texts]
        index.add_batch(ChunkBatch(position, parts, embedded.engine, embedded.vectors.astype("<f4").tobytes()))
    assert index is not None
    index.end_building()
    return index


async def _embed(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    parts = [
        (await embedder.embed(list(texts[start : start + BATCH_CHUNKS]))).vectors
        for start in range(0, len(texts), BATCH_CHUNKS)
    ]
    return np.vstack(parts)
