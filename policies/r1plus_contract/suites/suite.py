"""The golden suite's format and its hash: written by the curator, carried by a ConfigMap, read by the monitor.

A suite is two files. `suite.json` is a `SuiteHeader`; `items.jsonl` holds one `Item` a line in canonical JSON,
sorted by id. The hash is sha256 over the scorer version, the sampling parameters and the items' bytes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads

SCORER_VERSION: Final = "1"
"""Raised whenever a scorer could judge any answer differently."""
MAX_SUITE_BYTES: Final = 900 * 1024


@dataclass(frozen=True, slots=True)
class SuiteSampling:
    """How every item is asked. Greedy unless a suite says otherwise."""

    max_new_tokens: int = 24
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One question with a known answer."""

    id: str
    stratum: str
    prompt: str
    scorer: str
    """exact | contains | numeric | near | choice | json: see r1plus_monitoring.scoring.scorers."""
    answers: tuple[str, ...]
    """Any of these is right. Of `near` a number and its tolerance (`42 +- 0.5`), of `json` a JSON schema."""


@dataclass(frozen=True, slots=True)
class SuiteHeader:
    """`suite.json`."""

    name: str
    version: str
    family: str
    tier: str
    description: str
    reference_engine: str
    sha256: str
    items: int
    sampling: SuiteSampling
    scorer_version: str = SCORER_VERSION


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite whose hash has been checked."""

    header: SuiteHeader
    items: tuple[Item, ...]

    def strata(self) -> dict[str, int]:
        """Count items per stratum, in name order."""
        counts: dict[str, int] = {}
        for item in self.items:
            counts[item.stratum] = counts.get(item.stratum, 0) + 1
        return dict(sorted(counts.items()))


class SuiteError(ContractError):
    """A suite must not be used, and why."""


def encode_items(items: Sequence[Item]) -> str:
    """Return the text of `items.jsonl`."""
    return "".join(dumps(item) + "\n" for item in sorted(items, key=lambda item: item.id))


def suite_hash(items_text: str, sampling: SuiteSampling, scorer_version: str) -> str:
    """Return the sha256, 64 hex digits, of everything that decides what a score means."""
    head = dumps({"sampling": sampling, "scorerVersion": scorer_version})
    return hashlib.sha256(f"{head}\n{items_text}".encode()).hexdigest()


def load_suite(header_text: str, items_text: str) -> Suite:
    """Read and check a suite; raise SuiteError that names problem and place."""
    suite = read_suite(header_text, items_text)
    if suite.header.scorer_version != SCORER_VERSION:
        raise SuiteError(
            f"suite {suite.header.name}: scorer version {suite.header.scorer_version}, this monitor has"
            f" {SCORER_VERSION}"
        )
    return suite


def read_suite(header_text: str, items_text: str) -> Suite:
    """Read and check a suite of any scorer version, since a serving monitor may have another version.

    Raises SuiteError.
    """
    if len(items_text.encode(errors="surrogatepass")) > MAX_SUITE_BYTES:
        raise SuiteError(f"items.jsonl is larger than {MAX_SUITE_BYTES} bytes")
    try:
        header = loads(SuiteHeader, header_text)
        items = tuple(loads(Item, line) for line in split_lines(items_text))
    except ContractError as error:
        raise SuiteError(str(error)) from error
    digest = suite_hash(items_text, header.sampling, header.scorer_version)
    if digest != header.sha256:
        raise SuiteError(f"suite {header.name}: sha256 is {digest}, suite.json promises {header.sha256}")
    return Suite(header=header, items=_check_items(header, items))


def split_lines(text: str) -> list[str]:
    """Split into lines that are not blank, at newlines alone: JSON may contain the other separators of Unicode."""
    return [line for line in text.split("\n") if line.strip()]


def _check_items(header: SuiteHeader, items: tuple[Item, ...]) -> tuple[Item, ...]:
    if not items or len(items) != header.items:
        raise SuiteError(f"suite {header.name}: {len(items)} items, suite.json promises {header.items}")
    ids = [item.id for item in items]
    if ids != sorted(set(ids)):
        raise SuiteError(f"suite {header.name}: item ids must be unique and sorted")
    for item in items:
        if not item.answers or not all(item.answers):
            raise SuiteError(f"suite {header.name}: item {item.id} has no answer")
    return items
