"""Long-term memory: which sentences are kept, and what they take the place of."""

import pytest

from r1plus_assistant.memory.long_term import MOST_KEPT, plan_keeping
from r1plus_assistant.memory.packing import pack_memory
from r1plus_assistant.memory.quotation import HEAD, REMEMBERED_HEADING
from r1plus_assistant.memory.turns import Speaker, Turn, Utterance


class Letters:
    """Counts characters."""

    def count(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("My daughter is called Mia. What should I cook?", ["My daughter is called Mia."]),
        ("I am allergic to nuts.", ["I am allergic to nuts."]),
        ("Ich wohne in Kiel. Wie wird das Wetter?", ["Ich wohne in Kiel."]),
        ("What is my code?", []),
        ("Tell me about 17 whales.", []),
        ("Yesterday I saw 3 whales.", []),
        ("My neighbour has two dogs.", []),
        ("The river Elbe is 1,094 km long.", []),
        ("I prefer tea. I prefer tea.", ["I prefer tea."]),
    ],
    ids=[
        "a name of the user's",
        "a negation",
        "German",
        "no question",
        "no request",
        "no story",
        "not what others do",
        "not what is said of the world",
        "once",
    ],
)
def test_what_the_user_states_of_himself_is_kept(said: str, kept: list[str]) -> None:
    assert list(plan_keeping([], [said]).said) == kept


def test_a_correction_takes_the_place_of_what_it_corrects() -> None:
    known = ["My locker has the code 4711.", "I prefer tea.", "My daughter is called Mia."]
    plan = plan_keeping(known, ["Actually, I changed the code of my locker to 9026."])
    assert (list(plan.said), list(plan.superseded)) == (["Actually, I changed the code of my locker to 9026."], [0])


def test_what_is_said_again_is_renewed() -> None:
    plan = plan_keeping(["I prefer tea.", "My daughter is called Mia."], ["I prefer tea."])
    assert (list(plan.said), list(plan.superseded)) == (["I prefer tea."], [0])


def test_of_a_long_text_the_end_is_kept() -> None:
    said = [f"My box number {n} holds {n} apples." for n in range(40)]
    plan = plan_keeping([], [" ".join(said)])
    assert 0 < len(plan.said) <= MOST_KEPT
    assert plan.said[-1] == said[-1]


def test_what_is_remembered_is_quoted_apart_and_corrected_by_this_conversation() -> None:
    turns = [Turn(1, [Utterance(Speaker.USER, "I moved my code to 9026 again.")])]
    turns += [Turn(n, [Utterance(Speaker.USER, "The boats lay still. " * 20)]) for n in range(2, 5)]
    remembered = ["My code is 4711.", "My daughter is called Mia."]
    memory = pack_memory(turns, "What is my code, and my daughter's name?", 700, Letters(), remembered=remembered)
    assert memory.block.startswith(
        f'{HEAD}\n{REMEMBERED_HEADING}\n"My daughter is called Mia."\nThe user said:\n"I moved'
    )
    assert "4711" not in memory.block
    assert memory.remembered == 1
    assert memory.tokens <= 700


def test_nothing_remembered_fits_into_no_budget() -> None:
    memory = pack_memory([], "What is my code?", 10, Letters(), remembered=["My code is 4711."])
    assert (memory.block, memory.remembered, memory.tokens) == ("", 0, 0)
