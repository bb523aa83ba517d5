"""Conversations of public texts: CoQA's stories, of which people asked questions and marked where the answer is.

The texts are BIG-bench's copy of CoQA's test set: seven sources, a hundred stories each. Nobody who writes rules here
wrote one of them, or reads them. A user tells three stories, two sentences a turn. Each story's first question is asked
after the last one, if its answer is said in one sentence alone. First ones, because later ones say "he" and "there".
"""

import json
import random
from collections.abc import Sequence
from typing import Any, Final

from bench.memory.conversations import ScriptedConversation, ScriptedFact
from bench.memory.matching import has_value
from r1plus_assistant.memory.turns import split_sentences
from support.big_bench.files import COQA, find_file

NAME: Final = "coqa"
STORIES: Final = 3
"""Of a conversation."""
SENTENCES: Final = 2
"""Of a turn."""
MOST_ANSWER_WORDS: Final = 5
NO_VALUES: Final = ("yes", "no", "unknown")
REPLIES: Final = ("I see. Please go on.", "All right.", "Thank you, I have read that.", "Go on.")


def build_conversations(seed: int) -> list[ScriptedConversation]:
    """Return the conversations with a question; all stories are told once."""
    stories = json.loads(find_file(COQA).read_text(encoding="utf-8"))["data"]
    return tell_stories(stories, random.Random(f"{NAME} {seed}"))


def tell_stories(stories: Sequence[Any], random_: random.Random) -> list[ScriptedConversation]:
    """Return the conversations of these stories, in an order by chance."""
    shuffled = random_.sample(stories, len(stories))
    conversations = [_build(chosen, random_) for chosen in _split(shuffled, STORIES)]
    return [one for one in conversations if one.facts]


def _build(stories: Sequence[Any], random_: random.Random) -> ScriptedConversation:
    said = [_split(split_sentences(story["story"]), SENTENCES) for story in stories]
    users = [" ".join(sentences) for own in said for sentences in own]
    turns = [(user, random_.choice(REPLIES)) for user in users]
    sentences = [sentence for own in said for pair in own for sentence in pair]
    facts = [fact for story in stories if (fact := _read_fact(story, users, sentences)) is not None]
    return ScriptedConversation(turns, facts)


def _split(elements: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """Return the elements in pieces of so many; the last one may have fewer."""
    return [elements[start : start + most] for start in range(0, len(elements), most)]


def _read_fact(story: Any, users: Sequence[str], sentences: Sequence[str]) -> ScriptedFact | None:
    """Return a story's first question; None where its answer is not said, or is said in several sentences."""
    question, answer = story["questions"][0]["input_text"].strip(), story["answers"][0]
    value = answer["input_text"].strip().rstrip(".")
    if value.lower() in NO_VALUES or not 0 < len(value.split()) <= MOST_ANSWER_WORDS or has_value(question, value):
        return None
    stating = [sentence for sentence in sentences if has_value(sentence, value)]
    if len(stating) != 1 or not has_value(answer["span_text"], value):
        return None
    turn = next(number for number, user in enumerate(users) if stating[0] in user)
    return ScriptedFact(story["source"], value, "", question, turn)
