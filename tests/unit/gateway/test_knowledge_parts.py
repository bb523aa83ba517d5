"""Chunks, indexes, filters, quotations and citations, each by itself."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_assistant.knowledge.chunking import SEPARATOR, Chunker, ChunkSize
from r1plus_assistant.knowledge.citations import CitationBasis, find_citations, split_passages
from r1plus_assistant.knowledge.filters import Comparison, Compound, Filter
from r1plus_assistant.knowledge.index import StoreIndex, pick_best
from r1plus_assistant.knowledge.quotation import NOTHING_FOUND, pack_passages, render_passages
from r1plus_assistant.knowledge.search import Passage, SearchMethod, SearchResult
from r1plus_assistant.knowledge.vector_table import VectorTable
from r1plus_contract.documents import TextBlock
from r1plus_gateway.http.completions.estimated_tokens import EstimatedTokens
from r1plus_gateway.store.content.knowledge import Chunk, ChunkBatch, Ingestion, IngestionState, VectorStoreFile

SIZE = ChunkSize(100, 20)


def cut(blocks: Sequence[TextBlock], size: ChunkSize = SIZE) -> list[Chunk]:
    chunker, chunks = Chunker(size), []
    for block in blocks:
        chunks += chunker.add(block)
    return [*chunks, *chunker.finish()]


BLOCKS = st.lists(
    st.builds(
        TextBlock,
        st.text("ab. \n?ä", min_size=1, max_size=1500).map(str.strip).filter(bool),
        st.sampled_from([0, 0, 0, 1, 2]),
        st.sampled_from([None, 1, 2]),
    ),
    max_size=12,
)


@given(BLOCKS)
def test_chunks_are_pieces_of_the_text_at_their_offsets_and_have_all_of_it(blocks: list[TextBlock]) -> None:
    text = "".join(block.text + SEPARATOR for block in blocks)
    covered = set()
    for chunk in cut(blocks):
        assert text[chunk.start : chunk.end] == chunk.text
        assert 0 < len(chunk.text) <= SIZE.characters
        covered.update(range(chunk.start, chunk.end))
    offset = 0
    for block in blocks:
        if not block.level:
            assert all(offset + place in covered for place, one in enumerate(block.text) if not one.isspace())
        offset += len(block.text) + len(SEPARATOR)


def test_a_stretch_of_spaces_is_no_chunk() -> None:
    text = f"One.{' ' * (3 * SIZE.characters)}Two."
    assert [chunk.text for chunk in cut([TextBlock(text)])] == ["One.", "Two."]


def test_a_chunk_stays_under_one_heading_and_on_one_page() -> None:
    blocks = [
        TextBlock("Intro."), TextBlock("A", 1), TextBlock("one"), TextBlock("two"), TextBlock("B", 2),
        TextBlock("three", page=1), TextBlock("four", page=2), TextBlock("C", 1), TextBlock("D", 1), TextBlock("five"),
    ]  # fmt: skip
    found = [(chunk.heading, chunk.page, chunk.text) for chunk in cut(blocks)]
    assert found == [
        ("", None, "Intro."),
        ("A", None, "one\n\ntwo"),
        ("A > B", 1, "three"),
        ("A > B", 2, "four"),
        ("C", None, "C"),
        ("D", None, "five"),
    ]


def test_a_long_heading_without_text_is_cut_as_text_is() -> None:
    heading = " ".join(f"This is sentence number {number}." for number in range(60))
    chunks = cut([TextBlock(heading, 1)])
    assert len(chunks) > 3
    assert (chunks[0].start, chunks[-1].end) == (0, len(heading))
    assert max(len(chunk.text) for chunk in chunks) <= SIZE.characters


def test_a_long_text_is_cut_at_sentences_and_the_next_chunk_repeats_the_end() -> None:
    text = " ".join(f"This is sentence number {number}." for number in range(60))
    chunks = cut([TextBlock(text)])
    assert len(chunks) > 3
    assert all(chunk.text.endswith(".") for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        assert before.start < after.start < before.end < after.end
        assert before.end - after.start <= SIZE.overlap_characters


def make_file(name: str) -> VectorStoreFile:
    return VectorStoreFile(name, "vs", name, 0.0, IngestionState.COMPLETED, 0, 0, 0, Ingestion({}, 100, 20))


def make_index(texts: Sequence[str], vectors: Sequence[Sequence[float]] = (), engine: str = "") -> StoreIndex:
    index = StoreIndex(engine, 2**30)
    for position, text in enumerate(texts):
        index.add_file(make_file(f"f{position}"))
        data = np.array(vectors[position], dtype="<f4").tobytes() if vectors else b""
        index.add_batch(ChunkBatch(0, [Chunk(text, 0, len(text))], engine if vectors else "", data))
    return index


def search(index: StoreIndex, question: str, vector: Any = None, **options: Any) -> list[str]:
    return [hit.place.file.id for hit in index.search(question, vector, 10, **options)]


def test_words_and_vectors_each_find_what_the_other_does_not() -> None:
    index = make_index(["the cat sat", "a dog ran", "rain fell"], [[1, 0], [0, 1], [0.7, 0.7]], "e")
    assert search(index, "cats") == ["f0"]
    assert search(index, "nothing", np.array([0, 1], np.float32))[0] == "f1"
    assert search(index, "nothing", np.array([0.8, 0.6], np.float32))[0] == "f2"
    assert search(index, "cat", np.array([0.8, 0.6], np.float32))[0] == "f0"
    hits = index.search("cat", np.array([1, 0], np.float32), 10)
    assert hits[0].score == pytest.approx(1.0)


def test_a_code_is_found_before_codes_of_the_same_parts() -> None:
    texts = [f"ring {one}" for one in ("4711-30", "4711-03", "03-4711", "4711")]
    index = make_index(texts, [[1, 0]] * 4, "e")
    assert search(index, "Which is 4711-03?", np.array([1, 0], np.float32))[0] == "f1"
    assert search(index, "4711-30")[0] == "f0"


@pytest.mark.parametrize("count", [7, 3200, 3201, 20_000])
def test_the_best_scores_are_those_of_a_full_sort(count: int) -> None:
    scores = np.random.default_rng(count).integers(-3, 200, count).astype(np.float32)
    order = sorted(range(count), key=lambda one: (-scores[one], one))
    assert pick_best(scores, 100, least=0.0).tolist() == [one for one in order if scores[one] > 0][:100]
    equal = np.ones(count, dtype=np.float32)
    assert pick_best(equal, 100, least=0.0).tolist() == list(range(min(count, 100)))
    few = np.zeros(count, dtype=np.float32)
    few[count // 2] = 1
    assert pick_best(few, 100, least=0.0).tolist() == [count // 2]


def test_vectors_of_16_bits_are_ordered_as_those_of_32() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5000, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    table = VectorTable()
    for start in range(0, len(rows), 1000):
        table.add(rows[start : start + 1000])
    grown = table.copy()
    grown.add(rows[:1])
    question = rows[17] + 0.02 * rng.standard_normal(384).astype(np.float32)
    question /= np.linalg.norm(question)
    assert (len(table), len(grown)) == (5000, 5001)
    assert np.abs(table.compare(question) - rows @ question).max() < 2e-4
    assert grown.compare(question)[5000] == pytest.approx(float(rows[0] @ question), abs=2e-4)


def test_vectors_of_another_engine_are_not_compared() -> None:
    index = make_index(["one", "two"], [[1, 0], [0, 1]], "e")
    index.add_file(make_file("f2"))
    index.add_batch(ChunkBatch(0, [Chunk("three", 0, 5)], "other", np.array([1.0], "<f4").tobytes()))
    assert index.has_stale and not index.has_vectors
    assert search(index, "three", np.array([1, 0], np.float32)) == ["f2"]


def test_a_file_that_is_not_allowed_is_not_found() -> None:
    index = make_index(["cat one", "cat two"], [[1, 0], [1, 0]], "e")
    assert search(index, "cat", np.array([1, 0], np.float32), allowed=[False, True]) == ["f1"]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 300])
def test_any_number_of_chunks_can_be_searched(count: int) -> None:
    index = make_index([f"word {number}" for number in range(count)])
    assert len(search(index, "word")) == min(10, count)


FILTERS: dict[str, tuple[Filter, bool]] = {
    "equal": (Comparison("eq", "year", 2024), True),
    "not equal": (Comparison("ne", "year", 2024), False),
    "greater": (Comparison("gt", "year", 2023.5), True),
    "a text is no number": (Comparison("lt", "year", "2030"), False),
    "a flag is no number": (Comparison("eq", "flag", 1), False),
    "one of": (Comparison("in", "region", ["eu", "us"]), True),
    "none of": (Comparison("nin", "region", ["eu", "us"]), False),
    "no such attribute": (Comparison("eq", "other", "x"), False),
    "no such attribute is not equal": (Comparison("ne", "other", "x"), True),
    "all": (Compound("and", [Comparison("eq", "year", 2024), Comparison("eq", "region", "us")]), False),
    "any": (Compound("or", [Comparison("eq", "year", 2024), Comparison("eq", "region", "us")]), True),
}


@pytest.mark.parametrize(("condition", "expected"), FILTERS.values(), ids=FILTERS)
def test_a_filter_compares_what_is_alike(condition: Filter, expected: bool) -> None:
    assert condition.matches({"year": 2024, "region": "eu", "flag": True}) is expected


def make_passage(text: str, **place: Any) -> Passage:
    return Passage("vs", "file", 'a"<b>\n.md', {}, Chunk(text, 0, len(text), **place), 1.0)


@given(st.lists(st.text(), max_size=4))
def test_no_text_ends_its_quotation_or_begins_a_line(texts: list[str]) -> None:
    passages = [make_passage(text, heading=text) for text in texts]
    lines = render_passages(passages).split("\n")
    assert len(lines) == 1 + len(passages)
    for number, line in enumerate(lines[1:], 1):
        assert line.startswith(f'[{number}] "')
        assert not set("<>\r\u2028\u0085") & set(line)


def test_the_best_passages_that_fit_are_quoted() -> None:
    passages = [make_passage("short one"), make_passage("long " * 400), make_passage("short two")]
    quoted = pack_passages(SearchResult(passages, SearchMethod.WORDS), "q", 150, EstimatedTokens())
    assert [passage.chunk.text for passage in quoted.passages] == ["short one", "short two"]
    assert (quoted.found, EstimatedTokens().count(quoted.block) <= 150) == (3, True)
    assert pack_passages(SearchResult([], SearchMethod.WORDS), "q", 150, EstimatedTokens()).block == NOTHING_FOUND


ANSWERS: dict[str, tuple[str, list[tuple[int, CitationBasis]]]] = {
    "a number": ("It costs 210 francs [2].", [(2, CitationBasis.NUMBER)]),
    "two numbers": ("So it is [1, 2].", [(1, CitationBasis.NUMBER), (2, CitationBasis.NUMBER)]),
    "a number of no passage": ("It is so [7].", []),
    "the words of a passage": ("A hotel in Zurich costs 210 francs.", [(2, CitationBasis.WORDS)]),
    "words of no passage": ("Elephants live in Africa.", []),
    "one word in common": ("Francs.", []),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_cites_what_it_names_else_what_it_agrees_with(
    answer: str, expected: list[tuple[int, CitationBasis]]
) -> None:
    passages = [make_passage("Trains run hourly."), make_passage("In Zurich a hotel may cost 210 francs.")]
    found = find_citations(answer, passages)
    assert find_citations(answer, split_passages(SearchResult(passages, SearchMethod.WORDS)).passages) == found
    assert [(one.number, one.basis) for one in found] == expected
    assert all(0 < one.position <= len(answer) for one in found)
