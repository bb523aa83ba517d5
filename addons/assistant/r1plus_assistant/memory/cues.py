"""Cues: which kinds of fact a sentence seems to state, and which kind a question asks for. English and German.

They are rules, and they are wrong now and then: a sentence without a cue can still be found by its words.
"""

import re
from enum import StrEnum
from typing import Final


class FactKind(StrEnum):
    """What a card states."""

    NUMBER = "number"
    DATE = "date"
    NAME = "name"
    NEGATION = "negation"
    DECISION = "decision"
    PREFERENCE = "preference"


def _compile(*patterns: str) -> re.Pattern[str]:
    """Return a pattern for sentences in lower case: without regard to case it would search half as fast."""
    return re.compile("|".join(patterns))


_MONTHS: Final = (
    r"(?:jan(?:uary|uar)?|feb(?:ruary|ruar)?|mar(?:ch)?|märz|apr(?:il)?|may|mai|june?|juni|july?|juli|aug(?:ust)?"
    r"|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)"
)
_DAYS: Final = (
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:mon|diens|donners|frei|sams|sonn)tags?|mittwochs?|sonnabends?"
)
_CUES: Final = {
    FactKind.DATE: _compile(
        rf"\b\d{{1,2}}(?:st|nd|rd|th|\.)?\s+(?:of\s+)?{_MONTHS}\b",
        rf"\b{_MONTHS}\s+\d{{1,2}}(?:st|nd|rd|th)?\b",
        rf"\b(?:{_DAYS})\b",
        r"\b\d{4}-\d{2}-\d{2}\b",
        r"\b\d{1,2}[./]\d{1,2}[./](?:\d{2,4})?\b",
        r"\b\d{1,2}:\d{2}\b",
        r"\b\d{1,2}\s*(?:a\.?m\.?|p\.?m\.?|o'clock|uhr)\b",
        r"\b(?:tomorrow|tonight|deadline|morgen\s+(?:um|früh)|übermorgen|frist)\b",
    ),
    FactKind.NUMBER: _compile(
        r"\d",
        r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|forty|fifty|hundred)\b",
        r"\b(?:zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|dutzend|zwanzig|dreißig|hundert)\b",
    ),
    FactKind.NAME: _compile(
        r"\b(?:call(?:ed|s)?|named?|heiß(?:t|e|en)|nenn(?:t|en)|genannt)\b",
        r"\b(?:mr|mrs|ms|dr|prof|herrn?|frau|doktor)\b\.?\s",
        r"\b(?:live|lives|moved|stay|staying|wohne?n?|zieh(?:en|e)|fahren|reisen)\s+(?:\w+\s+)?(?:in|to|at|nach)\b",
    ),
    FactKind.NEGATION: _compile(
        r"\b(?:not|never|no longer|cannot|nothing|without|allergic|forbidden|avoid)\b|n['’]t\b",
        r"\b(?:nicht|nie(?:mals)?|kein(?:e[nmrs]?)?|nichts|ohne|allergisch|verboten)\b",
    ),
    FactKind.DECISION: _compile(
        r"\b(?:decided?|decision|chosen?|chose|picked|agreed|signed|booked|hired|opted|selected)\b",
        r"\b(?:go(?:ing)?\s+with|going\s+for|we(?:['’]ll|\s+will|\s+now)?\s+use|i['’]?ll\s+take)\b",
        r"\b(?:entschieden|entscheidung|beschloss\w*|beschluss|gewählt|ausgesucht|gebucht|vereinbart)\b",
        r"\bwir\s+nehmen\b|\bnehmen\s+(?:\w+\s+)?\w+\s+für\b",
    ),
    FactKind.PREFERENCE: _compile(
        r"\b(?:prefer\w*|favou?rites?|rather|i\s+(?:really\s+)?(?:like|love|enjoy|hate)|fond\s+of)\b",
        r"\b(?:lieber|am\s+liebsten|lieblings\w*|gern[e]?|bevorzug\w*|(?:ich\s+)?mag)\b",
    ),
}
_PROPER: Final = re.compile(
    rf"(?<=[a-z0-9äöüß,;:] )(?!(?i:I|{_MONTHS}|{_DAYS})\b)[A-ZÄÖÜ][\w'’-]+|\b\w+_\w+\b|\b[A-Z]+\d+\w*\b"
)
"""A capital within a sentence; German writes every noun so, hence only where the text is no German."""
_GERMAN: Final = _compile(r"\b(?:der|die|das|und|ist|ich|wir|nicht|ein|eine|mit|für|auf|haben|am|zu)\b")
_OWN: Final = _compile(r"\b(?:i|my|mine|me|we|our|ours|us)\b|\bi['’]", r"\b(?:ich|mein\w*|mir|mich|wir|unser\w*|uns)\b")
_QUESTION: Final = _compile(r"\?[\"'”’)]*$")
_REQUEST: Final = _compile(
    _QUESTION.pattern,
    r"^(?:tell|explain|give|show|write|describe|recommend|suggest|list|could|can|would|do|is|are|why|how|what|which)\b",
    r"^(?:erzähl|erklär|gib|zeig|schreib|beschreib|empfiehl|kannst|könntest|warum|wieso|wie|was|welche\w*|stimmt)\b",
)
_CHANGE: Final = _compile(
    r"\b(?:now|instead|anymore|any\s+more|no\s+longer|again|actually|correct(?:ion|ed)|postponed?|chang(?:ed?|ing)"
    r"|switch(?:ed)?|replac(?:e[ds]?|ing)|reconsidered|reorgani[sz]\w+|mov(?:e|ed)|slipped|cuts?|dropped|updated?|new"
    r"|lately|steps\s+in|cancelled|scaled|false)\b",
    r"\b(?:jetzt|nun|stattdessen|nicht\s+mehr|doch|geändert|gewechselt|verschoben|verlegt|neu\w*|mittlerweile"
    r"|zurzeit|abgesprungen|nur\s+noch|sondern)\b",
)
_STANDING: Final = _compile(
    r"\b(?:is|are|am|will|has|have|gets?|starts?|ends?|must|may|need(?:s|ed)?)\b|['’](?:m|re|s|ll|ve)\b",
    r"\b(?:ist|sind|bin|wird|werden|hat|haben|heißt|muss|müssen|darf|dürfen|kann|können|soll|gibt|findet|beginnt)\b",
)
_NARRATIVE: Final = _compile(
    r"\b(?:yesterday|last\s+(?:night|time|week|month|year)|once|ago|was|were|had|did|went|came|saw|met|told|said|asked)\b",
    r"\b(?:gestern|neulich|einmal|damals|früher|war|waren|hatten?|sagte|ging|kam|fragte|stand|saß)\b",
)
_OTHERS: Final = _compile(
    r"^(?:somebody|someone|nobody|everybody|everyone|people|they\s+say|another|others)\b",
    r"^(?:(?:a|my|our|his|her|their|the)\s+)?(?:\w+\s+)?(?:neighbou?rs?['’]?|friends?|colleagues?|boss|sister|brother"
    r"|mother|father|mum|mom|dad|son|daughter|aunt|uncle|cousin|grand\w+|parents|kids|children)\b",
    r"^(?:jemand|niemand|alle|andere|manche|leute)\b",
    r"^(?:(?:mein|meine|unser|unsere|der|die|ein|eine)\s+)?(?:nachbar\w*|freund\w*|kolleg\w*|chef\w*|schwester|bruder"
    r"|mutter|vater|sohn|tochter|tante|onkel|cousin\w*|oma|opa|eltern|kinder)\b",
)
_ASKED: Final = {
    FactKind.DATE: _compile(
        r"\b(?:when|what\s+(?:time|day|date)|which\s+(?:day|date)|until|by\s+when|deadline)\b",
        r"\b(?:wann|welche[mnrs]?\s+(?:tag|datum|uhrzeit)|um\s+wie\s+viel\s+uhr|bis\s+wann|frist|termin)\b",
    ),
    FactKind.NUMBER: _compile(
        r"\b(?:how\s+(?:many|much|big|large|heavy|long|old|tall|high|far)|what\s+(?:size|amount|number)"
        r"|number|code|costs?|price|pay|reading|figure|size)\b",
        r"\b(?:wie\s*viele?|wie\s+(?:groß|hoch|lang|alt|schwer|weit)|zahl|nummer|preis|kostet?|menge|höhe)\b",
    ),
    FactKind.NAME: _compile(
        r"\b(?:who|whom|whose|where|called?|name[ds]?|which\s+(?:person|town|city|place|plane))\b",
        r"\b(?:wer|wem|wen|wessen|wo|wohin|woher|heißt|name\w*|welche[nmrs]?\s+(?:ort|stadt|person))\b",
    ),
    FactKind.NEGATION: _compile(
        r"\b(?:not|can['’]?t|cannot|never|avoid|forb[ai]d\w*|restrict\w*|allerg\w+|out\s+of\s+the\s+question"
        r"|skip|mustn['’]?t)\b",
        r"\b(?:nicht|kein\w*|verzichten|verboten|allerg\w+|meiden|darf)\b",
    ),
    FactKind.DECISION: _compile(
        r"\b(?:decid\w+|decision|choose|chose|choice|pick\w*|agree\w*|go\s+with)\b",
        r"\b(?:entschieden|entscheidung|beschl\w+|gewählt|ausgesucht|bestell\w*|nehmen\s+wir)\b",
    ),
    FactKind.PREFERENCE: _compile(
        r"\b(?:prefer\w*|favou?rite|like|love|enjoy|want)\b",
        r"\b(?:mag|lieber|liebsten|liebling\w*|gern\w*|bevorzug\w*|schmeckt)\b",
    ),
}


def find_kinds(sentence: str) -> frozenset[FactKind]:
    """Return the kinds of fact that a sentence seems to state, if it states anything."""
    lowered = sentence.lower()
    kinds = {kind for kind, cue in _CUES.items() if cue.search(lowered)}
    if _PROPER.search(sentence) and not is_german(sentence):
        kinds.add(FactKind.NAME)
    return frozenset(kinds)


def find_asked_kinds(question: str) -> frozenset[FactKind]:
    """Return the kinds of fact that a question may ask for."""
    lowered = question.lower()
    return frozenset(kind for kind, cue in _ASKED.items() if cue.search(lowered))


def is_request(sentence: str) -> bool:
    """Return whether a sentence asks for something, so that it states nothing."""
    return _REQUEST.search(sentence.lower()) is not None


def is_question(sentence: str) -> bool:
    """Return whether a sentence ends with a question mark."""
    return _QUESTION.search(sentence) is not None


def is_own(sentence: str) -> bool:
    """Return whether a sentence speaks of the user."""
    return _OWN.search(sentence.lower()) is not None


def is_standing(sentence: str) -> bool:
    """Return whether a sentence says what holds, or will."""
    return _STANDING.search(sentence.lower()) is not None


def is_narrative(sentence: str) -> bool:
    """Return whether a sentence tells what happened once."""
    return _NARRATIVE.search(sentence.lower()) is not None


def is_about_others(sentence: str) -> bool:
    """Return whether a sentence begins with another person, of whom it speaks."""
    return _OTHERS.search(sentence.lower()) is not None


def is_change(sentence: str) -> bool:
    """Return whether a sentence seems to correct what was said before."""
    return _CHANGE.search(sentence.lower()) is not None


def remove_change(sentence: str) -> str:
    """Return a sentence without the words that say that something has changed."""
    return _CHANGE.sub(" ", sentence.lower())


def is_german(sentence: str) -> bool:
    """Return whether a sentence seems to be German."""
    return len(_GERMAN.findall(sentence.lower())) >= 2
