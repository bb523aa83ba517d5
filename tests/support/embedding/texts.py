"""Texts on which an engine's vectors are compared with those of the reference implementation."""

from itertools import product

_SUBJECTS = ("The branch in Turku", "A customer of thirty years", "Our risk committee", "The interest rate", "Nobody")
_VERBS = ("raised the limit to 25,000 euros", "did not sign the contract", "moved the meeting to 3 March 2027")
_WHYS = ("because the auditors had asked for it.", "without saying why.", "after the merger; see page 14.", "- again!")
_GERMAN = (
    "Die Überweisung über 1.250,50 € wurde am Freitag zurückgebucht.",
    "Wie hoch ist der Zinssatz für ein Darlehen mit zehn Jahren Laufzeit?",
    "Größe, Maß, Straße: Ärger mit Umlauten gibt es überall.",
    "Der Vertrag gilt nicht für Geschäftskunden in Österreich.",
    "Bitte kündigen Sie mein Konto zum Monatsende.",
    "Donaudampfschifffahrtsgesellschaftskapitänsmütze",
)
_UNICODE = (
    "Ελληνικά κείμενα με τόνους",
    "Привет, как дела?",
    "今天天气很好,我们去散步吧。",
    "日本語のテキストです。カタカナもあります。",
    "한국어 문장입니다",
    "مرحبا بالعالم",
    "שלום עולם",
    "हिन्दी में एक वाक्य",
    "ภาษาไทยไม่มีช่องว่าง",
    "🙂🙃 emoji 👩‍👩‍👧‍👦 family 🇫🇮 flag",
    "e\u0301 and \u00e9 are the same letter, n\u0303 and \u00f1 too",
    "\ufb01nance with a ligature, \u2460 in a circle, \uff21\uff22\uff23 wide",
    "zero\u200bwidth\u200cjoiners\u200d and a soft\u00adhyphen",
    "right\u202eto left\u202c and marks\u200e\u200f",
    "naïve café Œuvre Łódź İstanbul ŞĞ",
    "a\u0300\u0301\u0302\u0303\u0304\u0305 many marks",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 beyond the plane 𐍈",
    "—–‐−“quotes”‘single’…",
)
_ODD = (
    " ",
    "\n\t\r\n",
    ".",
    "a",
    "1",
    "[CLS]",
    "[SEP] [MASK] [PAD] [UNK]",
    "##ing ##s",
    "\x00\x01\x7f",
    "\ufffd\ufeff",
    "x" * 99,
    "x" * 101,
    "-" * 300,
    "A" * 5000,
    "don't can't won't it's",
    "user@example.com https://example.com/path?q=1#fragment",
    "def f(x):\n    return x ** 2  # squares",
    "SELECT * FROM accounts WHERE balance > 1e6;",
    '{"key": ["value", null, 3.14]}',
    "3.14159265358979323846 26433 83279",
    "ALL CAPS AND lower and MiXeD",
    "the the the the the the the the",
)
_SENTENCE = "The quarterly report of the bank shows that deposits grew while loans to small firms fell by a tenth. "
_LONG = tuple(_SENTENCE * count for count in (1, 2, 4, 8, 11, 12, 13, 14, 16, 40, 160))
_GERMAN_LONG = tuple((" ".join(_GERMAN) + " ") * count for count in (1, 2, 3, 9))


def list_texts() -> tuple[str, ...]:
    """Return the texts: English, German, other scripts, odd ones, and those longer than an engine reads."""
    english = tuple(" ".join(parts) for parts in product(_SUBJECTS, _VERBS, _WHYS))
    numbered = tuple(
        f"Account {number * 7919} has {number} open items worth {number * 13.7:.2f}." for number in range(90)
    )
    return (*english, *numbered, *_GERMAN, *_UNICODE, *_ODD, *_LONG, *_GERMAN_LONG)
