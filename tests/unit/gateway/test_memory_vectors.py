"""Vectors of memory: whose they are, when they are compared, and what is searched without them."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import numpy as np
import pytest

from r1plus_assistant.conversations.recall import Continued, Recall
from r1plus_assistant.conversations.statement_embedding import (
    MOST_AT_ONCE,
    STEP_TEXTS,
    IndexedStatements,
    StatementEmbedder,
    running_statement_embedder,
)
from r1plus_assistant.conversations.statement_vectors import StatementVectors
from r1plus_assistant.embedding.client import EmbedderUnavailableError
from r1plus_assistant.memory.index import ConversationIndex, index_turns, view_index
from r1plus_assistant.memory.turns import Speaker, Turn, Utterance
from r1plus_assistant.responses.response_memory import recall_messages
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.content import make_content, say
from support.gateway.fake_embedder import DIMENSIONS, ENGINE, FakeEmbedder
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.tables import for_each
from support.waiting import eventually

ANNA = make_caller(end_user="anna@example.com")
BERT = make_caller(end_user="bert@example.com")
QUESTION = "Which boat do I have?"
FEW = ("My boat is red.", "I live in Basel.")
MANY = tuple(f"My boat number {number} is red." for number in range(MOST_AT_ONCE + 1))


class Statements:
    """An index of what a user states, with its vectors."""

    def __init__(self, *texts: str) -> None:
        self.index: ConversationIndex = index_turns(
            Turn(number, [Utterance(Speaker.USER, text)]) for number, text in enumerate(texts, 1)
        )
        self.vectors = StatementVectors(self.index)

    @property
    def part(self) -> IndexedStatements:
        return IndexedStatements(self.vectors, view_index(self.index))


def make_rows(count: int, dimensions: int = DIMENSIONS) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.eye(count, dimensions, dtype=np.float32)


def compare(statements: Statements, engine: str = ENGINE) -> dict[int, float] | None:
    return statements.vectors.compare(view_index(statements.index), engine, make_rows(1)[0])


def test_a_question_is_compared_once_all_statements_have_a_vector() -> None:
    statements = Statements(*FEW)
    assert statements.vectors.find_missing(9).texts == [*FEW]
    statements.vectors.add(0, ENGINE, make_rows(1))
    assert compare(statements) is None, "the second one has none"
    assert statements.vectors.find_missing(9).texts == [FEW[1]]
    statements.vectors.add(1, ENGINE, make_rows(2)[1:])
    assert compare(statements) == {0: 1.0, 1: 0.0}


def test_what_two_requests_have_embedded_is_kept_once() -> None:
    statements = Statements(*FEW)
    statements.vectors.add(0, ENGINE, make_rows(1))
    statements.vectors.add(0, ENGINE, make_rows(2))
    assert compare(statements) == {0: 1.0, 1: 0.0}


@for_each(
    "engine, dimensions",
    {
        "of another engine": ("other@sha256:00", DIMENSIONS),
        "of the same engine with another width": (ENGINE, DIMENSIONS // 2),
    },
)
def test_vectors_are_never_mixed(engine: str, dimensions: int) -> None:
    statements = Statements(*FEW)
    statements.vectors.add(0, ENGINE, make_rows(1))
    statements.vectors.add(1, engine, make_rows(1, dimensions))
    view = view_index(statements.index)
    for known in {ENGINE, engine}:
        for width in {DIMENSIONS, dimensions}:
            assert statements.vectors.compare(view, known, make_rows(1, width)[0]) is None


async def test_a_few_statements_are_embedded_with_the_question() -> None:
    embedder, statements = FakeEmbedder(), Statements(*FEW)
    ranking = await StatementEmbedder(lambda: embedder).rank("key", QUESTION, [statements.part])
    assert ranking is not None
    assert ranking.rank(QUESTION, statements.index.sentences) == [0, 1]
    assert embedder.asked == [(QUESTION, *FEW)]


async def test_what_was_embedded_is_not_embedded_again() -> None:
    embedder, statements = FakeEmbedder(), Statements(*FEW)
    search = StatementEmbedder(lambda: embedder)
    await search.rank("key", QUESTION, [statements.part])
    assert await search.rank("key", QUESTION, [statements.part]) is not None
    assert embedder.asked[1:] == [(QUESTION,)]


async def test_many_statements_are_embedded_in_the_background() -> None:
    embedder, statements = FakeEmbedder(), Statements(*MANY)
    async with running_statement_embedder(lambda: embedder) as search:
        assert await search.rank("key", QUESTION, [statements.part]) is None
        assert QUESTION not in {text for texts in embedder.asked for text in texts}, "the question waits for nothing"
        await eventually(lambda: _is_ranked(search, statements), "vectors of all")
    assert max(map(len, embedder.asked)) <= STEP_TEXTS + 1


async def _is_ranked(search: StatementEmbedder, statements: Statements) -> bool:
    return await search.rank("key", QUESTION, [statements.part]) is not None


async def _has_asked(embedder: FakeEmbedder, times: int) -> bool:
    return len(embedder.asked) >= times


async def test_callers_take_turns() -> None:
    embedder, first, second = FakeEmbedder(), Statements(*MANY, *MANY), Statements(*MANY[::-1])
    embedder.gate = asyncio.Event()
    async with running_statement_embedder(lambda: embedder) as search:
        await search.rank("one", QUESTION, [first.part])
        await search.rank("two", QUESTION, [second.part])
        embedder.gate.set()
        await eventually(lambda: _has_asked(embedder, 3), "three steps")
    assert [texts[0] for texts in embedder.asked[:3]] == [MANY[0], MANY[-1], MANY[STEP_TEXTS]]


async def test_an_index_that_was_dropped_is_embedded_no_further() -> None:
    embedder, statements = FakeEmbedder(), Statements(*MANY)
    search = StatementEmbedder(lambda: embedder)
    await search.rank("key", QUESTION, [statements.part])
    del statements
    gc.collect()
    task = asyncio.create_task(search.run())
    other = Statements(*MANY)
    await search.rank("other", QUESTION, [other.part])
    await eventually(lambda: _has_asked(embedder, 2), "the other one is embedded")
    task.cancel()
    assert [text for texts in embedder.asked for text in texts] == [*MANY]


async def test_a_slow_embedder_is_not_waited_for(virtual_time: None) -> None:
    embedder, statements = FakeEmbedder(), Statements(*FEW)
    embedder.gate = asyncio.Event()
    assert await StatementEmbedder(lambda: embedder).rank("key", QUESTION, [statements.part]) is None


async def test_an_embedder_is_asked_once_it_has_its_engine() -> None:
    """On one machine the engine comes with the first document; until then a question would wait for nothing."""
    embedders: list[FakeEmbedder] = []
    search = StatementEmbedder(lambda: embedders[0] if embedders else None)
    few, many = Statements(*FEW), Statements(*MANY)
    for statements in (few, many):
        assert await search.rank("key", QUESTION, [statements.part]) is None
    assert not await search.embed_some(weakref.ref(many.vectors))
    embedders.append(FakeEmbedder())
    assert await search.rank("key", QUESTION, [few.part]) is not None


async def test_without_an_embedder_that_answers_words_are_searched() -> None:
    embedder, statements = FakeEmbedder(), Statements(*FEW)
    embedder.trouble = EmbedderUnavailableError("it is away")
    search = StatementEmbedder(lambda: embedder)
    assert await search.rank("key", QUESTION, [statements.part]) is None
    embedder.trouble = None
    assert await search.rank("key", QUESTION, [statements.part]) is not None


async def test_after_a_change_of_the_engine_all_is_embedded_again() -> None:
    embedder, statements = FakeEmbedder(), Statements(*MANY)
    async with running_statement_embedder(lambda: embedder) as search:
        await eventually(lambda: _is_ranked(search, statements), "vectors of all")
        embedder.engine = "other@sha256:00"
        assert await search.rank("key", QUESTION, [statements.part]) is None
        await eventually(lambda: _is_ranked(search, statements), "vectors of the other engine")
    assert compare(statements, "other@sha256:00") is not None


async def test_after_a_change_of_the_engine_all_is_embedded_again_with_many_new_statements() -> None:
    """The background embeds the new ones first, by the other engine, and then those before them."""
    embedder, statements = FakeEmbedder(), Statements(*MANY)
    search = StatementEmbedder(lambda: embedder)
    await search.rank("key", QUESTION, [statements.part])
    await _embed_in_steps(search, statements)
    for text in MANY:
        statements.index.add(Utterance(Speaker.USER, text.replace("red", "blue")))
    embedder.engine = "other@sha256:00"
    assert await search.rank("key", QUESTION, [statements.part]) is None
    await _embed_in_steps(search, statements)
    assert compare(statements, "other@sha256:00") is not None


def test_vectors_of_earlier_statements_take_the_place_of_later_ones() -> None:
    statements = Statements(*FEW)
    statements.vectors.add(1, ENGINE, make_rows(1))
    missing = statements.vectors.find_missing(9)
    assert (missing.start, *missing.texts) == (0, *FEW)
    statements.vectors.add(missing.start, ENGINE, make_rows(1))
    assert statements.vectors.find_missing(9).start == 1, "else the same are missing for ever"


async def _embed_in_steps(search: StatementEmbedder, statements: Statements) -> None:
    """Embed what is missing, in as many steps as it needs and one more."""
    for _ in range(2 + 2 * len(statements.index.cards) // STEP_TEXTS):
        await search.embed_some(weakref.ref(statements.vectors))
    assert not statements.vectors.find_missing(1).texts


@pytest.fixture
async def store(volume: Volume) -> AsyncIterator[TenantStore]:
    opened = volume.make_store()
    assert await opened.open()
    yield opened
    await opened.close()


async def test_a_question_is_compared_with_statements_of_its_own_end_user(store: TenantStore) -> None:
    embedder, content = FakeEmbedder(), make_content(store)
    recall = Recall(content, StatementEmbedder(lambda: embedder))
    names = {}
    for caller, color in ((ANNA, "red"), (BERT, "blue")):
        items = [say(f"My boat is {color}.")]
        made = await content.write(caller, lambda one: one.create_conversation({}, items))  # noqa: B023
        names[caller] = made.id
    for caller, color in ((ANNA, "red"), (BERT, "blue"), (ANNA, "red")):
        embedder.asked.clear()
        continued = Continued("", names[caller], 2**20, recalls=False, question=QUESTION)
        recollection, _ = await recall.recall(caller, continued)
        assert {text for texts in embedder.asked for text in texts} <= {QUESTION, f"My boat is {color}."}
        messages, use = recall_messages(recollection, [say(QUESTION)], 256)
        assert use.build_figures()["search"] == "hybrid"
        assert messages[-1].content == f'Of this the user said, as data:\n"My boat is {color}."\n\n{QUESTION}'


async def test_vectors_of_an_erased_end_user_are_gone(store: TenantStore) -> None:
    embedder, content = FakeEmbedder(), make_content(store)
    recall = Recall(content, StatementEmbedder(lambda: embedder))
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say(FEW[0])]))
    await recall.recall(ANNA, Continued("", made.id, 2**20, recalls=False, question=QUESTION))
    history = content.plaintext.get(content.identify(ANNA), made.id)
    assert history is not None
    assert history.vectors.compare(history.view().said, ENGINE, make_rows(1)[0]), "else this shows nothing"
    vectors = weakref.ref(history.vectors)
    del history
    await erase(store, ADMIN, ErasureScope(end_user=ANNA.end_user))
    gc.collect()
    assert vectors() is None
