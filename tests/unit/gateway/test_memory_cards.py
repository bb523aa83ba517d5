"""Sentences, words and cards: what of a conversation is read as a fact of the user, and what supersedes it."""

from r1plus_assistant.memory.cards import find_superseded, make_cards
from r1plus_assistant.memory.cues import FactKind, find_asked_kinds
from r1plus_assistant.memory.turns import (
    MOST_SENTENCE_CHARACTERS,
    Speaker,
    Turn,
    Utterance,
    group_turns,
    list_sentences,
    split_sentences,
)
from r1plus_assistant.memory.words import WordSplitter
from support.tables import for_each

USER, ASSISTANT, TOOL = Speaker.USER, Speaker.ASSISTANT, Speaker.TOOL


def say(*texts: str, speaker: Speaker = USER) -> list[Turn]:
    """Return turns of one text each."""
    return [Turn(number, [Utterance(speaker, text)]) for number, text in enumerate(texts, 1)]


@for_each("text, sentences", {
    "two sentences": ("I am here. You are there!", ["I am here.", "You are there!"]),
    "a decimal point": ("It has 17.4 metres. Fine.", ["It has 17.4 metres.", "Fine."]),
    "a title": ("Dr. hill is in.", ["Dr. hill is in."]),
    "a German date": ("Am 3. Juni kommt er. Gut.", ["Am 3. Juni kommt er.", "Gut."]),
    "lines": ("one\n\ntwo", ["one", "two"]),
    "a quote at the end": ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
    "Japanese": ("私は東京に住む。犬がいる。", ["私は東京に住む。", "犬がいる。"]),
    "nothing": (" \n ", []),
})  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_a_long_sentence_is_cut_at_words() -> None:
    text = "word " * 300
    pieces = split_sentences(text)
    assert " ".join(pieces) == text.strip()
    assert max(map(len, pieces)) <= MOST_SENTENCE_CHARACTERS
    assert "".join(split_sentences("x" * 1000)) == "x" * 1000


def test_a_turn_begins_where_the_user_speaks() -> None:
    speakers = [ASSISTANT, USER, ASSISTANT, TOOL, ASSISTANT, USER]
    turns = group_turns([Utterance(speaker, "x") for speaker in speakers])
    assert [[one.speaker for one in turn.utterances] for turn in turns] == [speakers[:5], speakers[5:]]
    assert [turn.number for turn in turns] == [1, 2]
    assert group_turns([]) == []


@for_each("one, other", {
    "plural": ("node", "nodes"),
    "past": ("plan", "planned"),
    "gerund": ("run", "running"),
    "a German plural": ("Termin", "Termine"),
    "a German case": ("Kurs", "Kurses"),
    "an umlaut": ("Zähler", "zahler"),
    "composed and decomposed": ("é", "e\u0301"),
    "sharp s": ("Straße", "STRASSE"),
})  # fmt: skip
def test_words_that_are_compared_as_one(one: str, other: str) -> None:
    splitter = WordSplitter()
    assert splitter.split(one) == splitter.split(other) != []


@for_each("text, words", {
    "stop words": ("this is the und der", []),
    "numbers stay": ("1100 is not 110", ["1100", "110"]),
    "no spaces": ("東京都", ["東京", "京都"]),
    "control characters": ("a\x00bc", ["bc"]),
    "a word of a megabyte": ("x" * 2**20, ["x" * 63]),
})  # fmt: skip
def test_words(text: str, words: list[str]) -> None:
    assert WordSplitter().split(text) == words


@for_each("text, kind", {
    "a number": ("We have 12 desks.", FactKind.NUMBER),
    "a number in words": ("We have twelve desks.", FactKind.NUMBER),
    "a date": ("It is due on 4 May.", FactKind.DATE),
    "a German date": ("Es beginnt am 4. Mai.", FactKind.DATE),
    "a time": ("Be there at 9:30.", FactKind.DATE),
    "an ISO date": ("valid until 2027-02-01", FactKind.DATE),
    "a name": ("My dentist is Ann Droid.", FactKind.NAME),
    "a German name": ("Er heißt Anton.", FactKind.NAME),
    "a negation": ("I don't eat nuts.", FactKind.NEGATION),
    "a German negation": ("Ich esse keine Nüsse.", FactKind.NEGATION),
    "a decision": ("We decided to wait.", FactKind.DECISION),
    "a German decision": ("Wir haben beschlossen zu warten.", FactKind.DECISION),
    "a preference": ("I prefer tea.", FactKind.PREFERENCE),
    "a German preference": ("Am liebsten mag ich Tee.", FactKind.PREFERENCE),
})  # fmt: skip
def test_a_statement_becomes_a_card(text: str, kind: FactKind) -> None:
    (card,) = make_cards(list_sentences(say(text)))
    assert kind in card.kinds
    assert (card.sentence.turn, card.sentence.text) == (1, text)


@for_each("turns", {
    "a question": say("Do you have 12 desks?"),
    "a request": say("Tell me 3 jokes."),
    "a German request": say("Nenn mir etwas Schönes, kannst du das?"),
    "an answer of a model": say("Your dentist is Ann Droid, on 4 May.", speaker=ASSISTANT),
    "a result of a tool": say("The user prefers tea.", speaker=TOOL),
    "nothing of a kind": say("Quite so."),
})  # fmt: skip
def test_what_becomes_no_card(turns: list[Turn]) -> None:
    assert make_cards(list_sentences(turns)) == []


@for_each("older, newer, is_superseded", {
    "a correction of the same subject": ("The release is on 4 May.", "The release slipped to 9 May.", True),
    "the same words with another value": ("Our cluster has 12 nodes.", "Our cluster has 18 nodes.", True),
    "a German correction": ("Die Prüfung ist am 4. Mai.", "Die Prüfung wurde auf den 9. Mai verlegt.", True),
    "the same sentence again": ("I prefer tea.", "I prefer tea.", True),
    "another subject": ("The release is on 4 May.", "My exam moved to 9 May.", False),
    "another kind": ("The release is on 4 May.", "The release is now called Zephyr.", False),
    "no sign of a correction": ("The blue car costs 900 dollars.", "The red car for our trip costs 700 dollars.", False),
})  # fmt: skip
def test_superseding(older: str, newer: str, is_superseded: bool) -> None:
    cards = make_cards(list_sentences(say(older, newer)))
    assert find_superseded(cards) == ({0} if is_superseded else set())


@for_each("question, kind", {
    "when": ("When is it due?", FactKind.DATE),
    "wann": ("Wann ist das?", FactKind.DATE),
    "how many": ("How many desks?", FactKind.NUMBER),
    "wie viele": ("Wie viele Tische?", FactKind.NUMBER),
    "who": ("Who is it?", FactKind.NAME),
    "wer": ("Wer ist das?", FactKind.NAME),
    "what was decided": ("What did we decide?", FactKind.DECISION),
    "what is preferred": ("Which tea do I prefer?", FactKind.PREFERENCE),
    "what is impossible": ("What must I avoid?", FactKind.NEGATION),
})  # fmt: skip
def test_what_a_question_asks_for(question: str, kind: FactKind) -> None:
    assert kind in find_asked_kinds(question)
