"""The index of a conversation: what was added turn by turn is as if it were indexed at once."""

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_assistant.memory.index import (
    ConversationIndex,
    find_corrected,
    index_remembered,
    index_turns,
    view_index,
)
from r1plus_assistant.memory.packing import MOST_VERBATIM, pack_memory, pack_views
from r1plus_assistant.memory.turns import MOST_SENTENCES, Speaker, Turn, Utterance, group_turns
from support.examples import count_examples
from support.tables import for_each

TEXTS = st.sampled_from(
    [
        "My code is 4711.",
        "I changed the code to 9026. It rains.",
        "The release is on 4 May!",
        "The release slipped to 9 May.",
        "Is it late? Tell me a joke.",
        "",
        "We decided on larch boards for the fence.",
    ]
)
UTTERANCES = st.lists(st.builds(Utterance, st.sampled_from(list(Speaker)), TEXTS), max_size=20)


class Letters:
    """Counts characters."""

    def count(self, text: str) -> int:
        return len(text)


def index_utterances(utterances: list[Utterance]) -> ConversationIndex:
    index = ConversationIndex()
    for utterance in utterances:
        index.add(utterance)
    return index


@settings(max_examples=count_examples(60), deadline=None)
@given(utterances=UTTERANCES, cut=st.integers(0, 20), budget=st.integers(0, 600))
def test_a_view_shows_what_was_said_until_then(utterances: list[Utterance], cut: int, budget: int) -> None:
    index, known = index_utterances(utterances[:cut]), view_index(index_remembered(["My code is 1."]))
    view = view_index(index)
    for utterance in utterances[cut:]:
        index.add(utterance)
    question = "What is the code, and when is the release?"
    alone = pack_views(view_index(index_utterances(utterances[:cut])), known, question, budget, Letters())
    assert pack_views(view, known, question, budget, Letters()) == alone


@settings(max_examples=count_examples(60), deadline=None)
@given(utterances=UTTERANCES)
def test_turns_are_those_that_are_grouped_at_once(utterances: list[Utterance]) -> None:
    view = view_index(index_utterances(utterances))
    grouped = group_turns(utterances)
    assert view.list_newest(100) == grouped
    assert view.list_newest(2) == grouped[-2:]
    assert view.turn_count == len(grouped)


def make_turns(*texts: str) -> list[Turn]:
    return group_turns([Utterance(Speaker.USER, text) for text in texts])


def test_a_correction_in_a_verbatim_turn_supersedes_what_would_be_quoted() -> None:
    turns = make_turns("The release is on 4 May.", *["I own a boat."] * 2, "x" * 300, "The release slipped to 9 May.")
    memory = pack_memory(turns, "When is the release?", 400, Letters())
    assert memory.verbatim[-1] == turns[-1]
    assert "4 May" not in memory.block


@pytest.mark.unit_slow
def test_of_many_sentences_the_newest_are_looked_through() -> None:
    turns = make_turns("My code is 4711.", *["It rains."] * (MOST_SENTENCES + MOST_VERBATIM))
    view = view_index(index_turns(turns))
    assert view.end - view.begin == MOST_SENTENCES
    assert not pack_memory(turns, "code", 500, Letters()).quotations
    assert pack_memory(turns[:-1], "code", 500, Letters()).quotations, "else this shows nothing"


@for_each("said, corrected", {
    "another value, with a sign of a change": ("I changed my code to 9026.", True),
    "the same again": ("My code is 4711.", True),
    "another subject": ("I changed my address to Oak Street 3.", False),
    "no sign of a change": ("The code of the cabin is long.", False),
})  # fmt: skip
def test_what_is_known_is_corrected_by_what_is_said(said: str, corrected: bool) -> None:
    known = view_index(index_remembered(["My code is 4711.", "My daughter is called Mia."]))
    found = find_corrected(known, view_index(index_turns(make_turns(said))))
    assert found == ({known.list_sentences()[0].position} if corrected else frozenset())


def test_what_is_known_comes_before_what_is_said() -> None:
    known = view_index(index_remembered(["I own a boat. It is red.", "I am called Mia."]))
    assert [one.position for one in known.list_sentences()] == [-3, -2, -1]


def test_the_size_grows_with_what_is_said() -> None:
    small, large = index_turns(make_turns("I own a boat.")), index_turns(make_turns(*["I own a boat."] * 100))
    assert 0 < 50 * small.size < large.size
    assert replace(view_index(small), end=0).list_sentences() == []


def test_the_size_is_no_less_than_what_python_allocates() -> None:
    turns = make_turns(*(f"I moved box {number} to shelf {number * 7} of room {number % 9}." for number in range(500)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        index = index_turns(turns)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= index.size
