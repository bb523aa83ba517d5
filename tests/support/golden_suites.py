"""Golden suites for tests: a sound one, and every way to spoil it that is told of in words of its own."""

from collections.abc import Callable
from dataclasses import replace

from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import SCORER_VERSION, Item, SuiteHeader, SuiteSampling, encode_items, suite_hash
from r1plus_contract.suites.suite_files import SuiteFiles

NAME = "bank-v1"
SAMPLING = SuiteSampling(stop=("\n",))
ITEMS = tuple(
    Item(f"{stratum}-{n}", stratum, f"{stratum} {n}?", "contains", (f"answer {n}",))
    for stratum in ("loans", "savings")
    for n in range(4)
)


def files_of(
    items: tuple[Item, ...] = ITEMS,
    *,
    text: str | None = None,
    name: str = NAME,
    sampling: SuiteSampling = SAMPLING,
    count: int | None = None,
    version: str = SCORER_VERSION,
) -> SuiteFiles:
    """A suite of these items whose header is true of them, unless a test says otherwise."""
    body = encode_items(items) if text is None else text
    header = SuiteHeader(
        name=name,
        version="1.0.0",
        family="bank",
        tier="full",
        description="for tests",
        reference_engine="bank-f16",
        sha256=suite_hash(body, sampling, version),
        items=len(items) if count is None else count,
        sampling=sampling,
        scorer_version=version,
    )
    return SuiteFiles(dumps(header), body)


def baseline_of(files: SuiteFiles, *lost: tuple[str, str, int, int], items: int | None = None) -> SuiteFiles:
    """The suite with a baseline: (condition, stratum, lost there, items of it) per stratum of a condition."""
    sha256 = files.header.split('"sha256":"')[1][:64]
    conditions = dict.fromkeys(condition for condition, *_ in lost)
    measured = []
    for condition in conditions:
        of = {stratum: (gone, size) for where, stratum, gone, size in lost if where == condition}
        total, gone = (sum(pair[part] for pair in of.values()) for part in (1, 0))
        measured.append(
            {
                "engine": "bank-f16",
                "condition": condition,
                "items": total if items is None else items,
                "correct": total - gone if items is None else items - gone,
                "strata": {name: f"{size - g}/{size}" for name, (g, size) in of.items()},
                "lost": [],
            }
        )
    return replace(files, baseline=dumps({"suite": sha256, "baseline": measured}))


def with_item(**changes: object) -> SuiteFiles:
    """One item changed, header and hash to match."""
    return files_of((replace(ITEMS[0], **changes), *ITEMS[1:]))  # type: ignore[arg-type]


def altered() -> SuiteFiles:
    """An item changed after the header was written."""
    sound = files_of()
    return replace(sound, items=sound.items.replace("answer 0", "answer 1", 1))


BAD: dict[str, tuple[Callable[[], SuiteFiles], str]] = {
    "altered": (altered, "sha256 is"),
    "empty": (lambda: files_of((), text="\n"), "items.jsonl: has no item; build the suite from candidates"),
    "nothing at all": (lambda: SuiteFiles("", ""), "suite.json: is missing or empty"),
    "one stratum": (lambda: files_of(ITEMS[:4]), "items.jsonl: stratum: 1 (loans), at least 2 are needed"),
    "a duplicate item": (
        lambda: files_of((*ITEMS[:2], ITEMS[1], *ITEMS[2:])),
        "items.jsonl:3: id: 'loans-1' is already in line 2; use each id once",
    ),
    "an answer its scorer cannot parse": (
        lambda: with_item(scorer="numeric", answers=("forty",)),
        "items.jsonl:1: answers[0]: 'forty' for scorer numeric: not a number: write digits, such as 42 or -3.5",
    ),
    "10 MB": (
        lambda: with_item(prompt="q" * 10_000_000),
        "bytes, at most 921600 are allowed: a ConfigMap holds no more",
    ),
    "a regular expression that backtracks for ever": (
        lambda: with_item(scorer="json", answers=('{"type": "string", "pattern": "(a+)+$"}',)),
        "schema.pattern: regular expressions are not supported, since one that backtracks would block the prober",
    ),
}
"""The issue's bad suites that need no key, with the words that each is told of in."""
