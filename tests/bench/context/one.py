"""One length and one attention, in a process of its own, whose memory is then theirs: `python -m bench.context.one JSON`.

It asks the backend's own engine, one item after the other, and prints a JSON line. Called by `bench.context`.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item
from r1plus_model_repo.backends.openvino.openvino_engine import BLOCK_TOKENS, EngineSettings, Eviction, OpenVinoEngine
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_monitoring.curate.long_context import build_long_items
from r1plus_monitoring.scoring.scorers import score

ANSWER_TOKENS = 24
STOP = ("\n",)


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure."""

    folder: str
    kv_bytes_per_token: int
    tokens: int
    items: int
    threads: int
    sparse_threshold: float | None = None
    eviction: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one length and one attention."""

    tokens: int
    """Most tokens of prompt and answer."""
    prompt_tokens: int
    """Median of the items."""
    first_token_seconds: float
    """Median."""
    token_ms: float
    """Of each token after the first; median over the items."""
    peak_mib: float
    """Of the process, weights included."""
    kv_prompt_mib: float
    """Blocks of the KV cache that are in use when a prompt has been read; most of the items."""
    kv_answer_mib: float
    """The same at the answer's end, of answers of three tokens or more: what is evicted has left then."""
    right: int
    asked: int
    kinds: dict[str, str]
    """Right answers of each kind."""


@dataclass(slots=True)
class Answer:
    """One answer and what it took."""

    text: str
    prompt_tokens: int
    first_token_seconds: float
    token_ms: float
    kv_prompt: float
    kv_answer: float
    """Shares of the pool."""
    is_short: bool
    """Two tokens at most: nothing was evicted yet."""


def main() -> None:
    """Measure and print."""
    order = loads(Order, sys.argv[1])
    sys.stdout.write(dumps(measure(order)) + "\n")


def measure(order: Order) -> Row:
    """Ask each item alone."""
    settings = EngineSettings(
        path=Path(order.folder),
        max_batch=1,
        context=order.tokens + ANSWER_TOKENS,
        kv_cache_bytes=0,
        kv_bytes_per_token=order.kv_bytes_per_token,
        threads=order.threads,
        sparse_threshold=order.sparse_threshold,
        eviction=Eviction(*order.eviction) if order.eviction else None,
    )
    engine = OpenVinoEngine(settings)
    items = build_long_items(order.tokens, order.items)
    answers = [ask(engine, item) for item in items]
    longer = [answer for answer in answers if not answer.is_short]
    pool_mib = settings.kv_blocks * BLOCK_TOKENS * order.kv_bytes_per_token / 2**20
    right = {item.id for item, answer in zip(items, answers, strict=True) if is_right(item, answer.text)}
    return Row(
        tokens=order.tokens,
        prompt_tokens=round(statistics.median(answer.prompt_tokens for answer in answers)),
        first_token_seconds=round(statistics.median(answer.first_token_seconds for answer in answers), 2),
        token_ms=round(statistics.median(answer.token_ms for answer in answers), 1),
        peak_mib=round(read_peak_bytes() / 2**20),
        kv_prompt_mib=round(max(answer.kv_prompt for answer in answers) * pool_mib, 1),
        kv_answer_mib=round(max(answer.kv_answer for answer in longer or answers) * pool_mib, 1),
        right=len(right),
        asked=len(items),
        kinds=count_kinds(items, right),
    )


def ask(engine: OpenVinoEngine, item: Item) -> Answer:
    """Ask one item to its end, step by step."""
    job = engine.prepare(GenerationRequest(prompt=item.prompt, max_new_tokens=ANSWER_TOKENS))
    began = time.monotonic()
    handle = engine.add(job)
    ids: list[int] = []
    first, usage = 0.0, []
    reason = None
    while reason is None:
        engine.step()
        usage.append(engine._pipeline.get_metrics().cache_usage / 100)
        new, reason = handle.read()
        ids.extend(new)
        first = first or (time.monotonic() - began if ids else 0.0)
    seconds = time.monotonic() - began - first
    reading = len(usage) - len(ids) + 1
    return Answer(
        text=cut(engine.decode(ids)),
        prompt_tokens=job.prompt_tokens,
        first_token_seconds=first,
        token_ms=1000 * seconds / max(1, len(ids) - 1),
        kv_prompt=max(usage[:reading]),
        kv_answer=usage[-1],
        is_short=len(ids) <= 2,
    )


def cut(text: str) -> str:
    """Return the answer's first line, as a suite with this stop string gets it."""
    return text.lstrip().split(STOP[0])[0]


def is_right(item: Item, text: str) -> bool:
    """Score an answer that has ended."""
    return score(item, text, "stop") == OutcomeLabel.CORRECT


def count_kinds(items: tuple[Item, ...], right: set[str]) -> dict[str, str]:
    """Return right and all of each kind, such as `2/3`."""
    kinds: dict[str, list[bool]] = {}
    for item in items:
        kinds.setdefault(item.id.split("-")[0], []).append(item.id in right)
    return {kind: f"{sum(found)}/{len(found)}" for kind, found in kinds.items()}


def read_peak_bytes() -> int:
    """Return the most memory that this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()
