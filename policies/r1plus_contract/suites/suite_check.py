"""All problems of a golden suite, at once: each line names file and line, field, value, limit and remedy.

Called by the command line before a suite is signed, and by the operator before it uses one. The monitor reads with
`load_suite`, which stops at the first problem: it only gets suites that the operator has accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.monitor.settings import ITEMS_FILE, REFERENCE_FILE, SUITE_FILE
from r1plus_contract.suites.suite import (
    SCORER_VERSION,
    Item,
    Suite,
    SuiteError,
    SuiteHeader,
    SuiteSampling,
    load_suite,
    suite_hash,
)
from r1plus_contract.suites.suite_answers import find_answer_problem
from r1plus_contract.suites.suite_baseline import find_reference_result
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_contract.suites.suite_reference import read_reference

MIN_STRATA: Final = 2
"""With a single stratum a drop in one kind of question cannot show."""
MAX_NEW_TOKENS: Final = 4096
MOST_PROBLEMS: Final = 1000
"""Of items. A file of bad lines alone would have half a million: 75 MB, and seconds of the operator's time."""


@dataclass(frozen=True, slots=True)
class SuiteCheck:
    """A suite, or why there is none."""

    suite: Suite | None
    problems: tuple[str, ...]


def check(files: SuiteFiles) -> SuiteCheck:
    """Read a suite and find all its problems, but for its signature, which needs cryptography."""
    if problems := files.find_oversized():
        return SuiteCheck(None, tuple(problems))
    problems = [f"{name}: is missing or empty" for name in (SUITE_FILE, ITEMS_FILE) if not files.texts().get(name)]
    if problems:
        return SuiteCheck(None, tuple(problems))
    header, problems = _read_header(files.header)
    items, item_problems = read_items(files.items, ITEMS_FILE)
    problems += item_problems
    if header is not None:
        problems += _check_promises(header, files.items, len(items))
        if not item_problems:
            problems += _check_shape([item for _, item in items])
    if problems or header is None:
        return SuiteCheck(None, tuple(problems))
    suite = load_suite(files.header, files.items)
    problems = [*_check_extras(files, suite)]
    return SuiteCheck(None if problems else suite, tuple(problems))


def read_items(text: str, name: str) -> tuple[list[tuple[int, Item]], list[str]]:
    """Read the items of a JSONL text with their line numbers, and the problems of the other lines. Also of
    candidates.

    Reading ends after MOST_PROBLEMS.
    """
    items: list[tuple[int, Item]] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if len(problems) >= MOST_PROBLEMS:
            problems.append(f"{name}:{number}: is not read, nor what follows: {MOST_PROBLEMS} problems before it")
            break
        try:
            item = loads(Item, line)
        except ContractError as error:
            problems.append(f"{name}:{number}: {error}")
            continue
        first = lines.setdefault(item.id, number)
        if first != number:
            problems.append(f"{name}:{number}: id: {item.id!r:.80} is already in line {first}; use each id once")
        item_problems = islice(_check_item(item), MOST_PROBLEMS)
        problems += (f"{name}:{number}: {problem}" for problem in item_problems)
        items.append((number, item))
    return items, problems


def _check_item(item: Item) -> Iterator[str]:
    for field in ("id", "stratum", "prompt"):
        if not getattr(item, field).strip():
            yield f"{field}: is empty"
    if not item.answers:
        yield "answers: is empty; an item needs one or more"
    for number, answer in enumerate(item.answers):
        if problem := find_answer_problem(item.scorer, answer):
            yield f"answers[{number}]: {answer!r:.60} for scorer {item.scorer:.40}: {problem}"


def _read_header(text: str) -> tuple[SuiteHeader | None, list[str]]:
    try:
        header = loads(SuiteHeader, text)
    except ContractError as error:
        return None, [f"{SUITE_FILE}: {error}"]
    problems = [f"{SUITE_FILE}: sampling.{problem}" for problem in _check_sampling(header.sampling)]
    if header.scorer_version != SCORER_VERSION:
        problems.append(
            f"{SUITE_FILE}: scorerVersion: the suite was built for scorers of version {header.scorer_version:.40}, this"
            f" release has {SCORER_VERSION}; build the suite again"
        )
    return header, problems


def _check_sampling(sampling: SuiteSampling) -> Iterator[str]:
    if not 1 <= sampling.max_new_tokens <= MAX_NEW_TOKENS:
        yield f"maxNewTokens: {sampling.max_new_tokens} is not between 1 and {MAX_NEW_TOKENS}"
    if not 0.0 <= sampling.temperature <= 2.0:
        yield f"temperature: {sampling.temperature:g} is not between 0 and 2"
    if not 0.0 < sampling.top_p <= 1.0:
        yield f"topP: {sampling.top_p:g} is not above 0 and at most 1"
    if not 0.0 < sampling.repetition_penalty <= 10.0:
        yield f"repetitionPenalty: {sampling.repetition_penalty:g} is not above 0 and at most 10"


def _check_promises(header: SuiteHeader, items_text: str, items: int) -> Iterator[str]:
    digest = suite_hash(items_text, header.sampling, header.scorer_version)
    if digest != header.sha256:
        yield (
            f"{ITEMS_FILE}: sha256 is {digest}, {SUITE_FILE} promises {header.sha256:.64}; "
            "items, sampling or scorer version were altered: build the suite again"
        )
    if items != header.items:
        yield f"{SUITE_FILE}: items: promises {header.items}, {ITEMS_FILE} has {items}"


def _check_shape(items: list[Item]) -> Iterator[str]:
    if not items:
        yield f"{ITEMS_FILE}: has no item; build the suite from candidates: r1plus suite build"
        return
    ids = [item.id for item in items]
    out_of_order = next((after for before, after in pairwise(ids) if before > after), None)
    if out_of_order is not None:
        yield f"{ITEMS_FILE}: id: {out_of_order!r:.80} is out of order; items are sorted by id"
    strata = sorted({item.stratum for item in items})
    if len(strata) < MIN_STRATA:
        yield (
            f"{ITEMS_FILE}: stratum: {len(strata)} ({', '.join(strata):.80}), at least {MIN_STRATA} are needed, so "
            "that an accuracy drop in one kind of question shows; sort the items into kinds"
        )


def _check_extras(files: SuiteFiles, suite: Suite) -> Iterator[str]:
    try:
        if files.baseline:
            find_reference_result(files.baseline, suite.header)
    except SuiteError as error:
        yield str(error)
    try:
        if files.reference and not read_reference(files.reference, suite):
            yield f"{REFERENCE_FILE}: is empty; record the reference's answers or leave the file out"
    except SuiteError as error:
        yield str(error)
