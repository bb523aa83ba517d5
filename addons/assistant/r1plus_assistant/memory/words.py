"""Words of a text as they are compared: folded, and without endings. Rules for English and German."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

LEAST_STEM: Final = 3
MOST_ENDINGS: Final = 2
MOST_WORD_CHARACTERS: Final = 64
_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
"""Scripts that put no spaces between words, and Hangul, whose endings are many."""
_ENDINGS: Final = ("ingly", "edly", "ings", "ing", "ern", "est", "ed", "en", "em", "er", "es", "ly", "e", "s")
STOP_WORDS: Final = frozenset(
    """
    a about after again all also am an and any are as at back be been before being but by can could did do does
    doing don for from get give go had has have he her here him his how i if in into is isn it its just know let
    like ll m may me might more most much must my no not now of off on one only or other our out over own please
    re s same say shall she should since so some such t take tell than that the their them then there these they
    this those to too up us use ve very want was we well were what when where which while who whom whose why
    will with would yet you your aber als alle allem allen aller alles also am an auch auf aus bei beim bin bis
    bist da damit dann das dass dein dem den denn der des dich die dies diese dieser dieses dir doch du durch
    ein eine einem einen einer eines er es etwas euch fur gegen hab habe haben hast hat hatte her hier hin ich
    ihm ihn ihr im in ins ist ja jede jeder jetzt kann kannst kein keine konnen man mein meine meinem meinen
    meiner mich mir mit nach nicht nichts noch nun nur ob oder ohne schon sehr sein seine sich sie sind so soll
    uber um und uns unser unsere unter vom von vor war was wegen weil welche welchem welchen welcher welches wem
    wen wenn wer werden wie wieder wir wird wo zu zum zur
    """.split()  # noqa: SIM905 - a list of words, one a line, hides the rules
)


class WordSplitter:
    """Splits texts of one conversation into words. What it remembers goes with it: nothing said outlives a request."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}

    def split(self, text: str) -> list[str]:
        """Return the words of a text as they are compared, without those that every text has."""
        words: list[str] = []
        for word in _WORD.findall(text):
            if (compared := self._known.get(word)) is None:
                compared = self._known[word] = _compare(word)
            words += compared
        return words


def _compare(word: str) -> tuple[str, ...]:
    """Return what a word is compared by: nothing of a stop word, pairs of characters where no spaces part words."""
    folded = fold(word[:MOST_WORD_CHARACTERS])
    if folded in STOP_WORDS:
        return ()
    if _UNSPACED.search(folded):
        return tuple(_list_pairs(folded))
    return (stem(folded),)


def fold(text: str) -> str:
    """Return a text without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def stem(word: str) -> str:
    """Return a folded word without its endings. Numbers stay."""
    if any(character.isdigit() for character in word):
        return word
    for _ in range(MOST_ENDINGS):
        ending = next((one for one in _ENDINGS if word.endswith(one) and len(word) - len(one) >= LEAST_STEM), "")
        word = word[: len(word) - len(ending)]
    if len(word) > LEAST_STEM and word[-1] == "y":
        word = f"{word[:-1]}i"
    return word[:-1] if len(word) > LEAST_STEM and word[-1] == word[-2] else word


def _list_pairs(word: str) -> Iterator[str]:
    if len(word) == 1:
        yield word
    for start in range(len(word) - 1):
        yield word[start : start + 2]
