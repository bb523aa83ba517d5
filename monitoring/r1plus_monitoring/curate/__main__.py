"""`python -m r1plus_monitoring.curate`: make a golden suite, measure other engines on it, drop items from it.

    make     --name smollm2-full-v1 --tier full --engine smollm2-full-f16 --engine-dir DIR --out monitoring/suites
    make     --name qwen-lite-v1 --family qwen --tier lite --engine qwen-lite-q8-0 --engine-dir DIR --out ...
    compare  --suite monitoring/suites/smollm2-full-v1 --engine smollm2-full-q4-1 --engine-dir DIR
    verify   --suite monitoring/suites/smollm2-full-v1 --engine smollm2-full-f16 --http HOST:PORT --grpc HOST:PORT
    drop     --suite monitoring/suites/smollm2-full-v1 --reason "flipped through Triton at batch 16" ID...
    record   --suite monitoring/suites/smollm2-full-v1 --engine smollm2-full-f16 --engine-dir DIR
    context  --lengths 2048:60,4096:20,8192:6 --out candidates.jsonl

Run by a maintainer, never by the product. Needs the extra `engine`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.monitor.settings import REFERENCE_FILE
from r1plus_contract.suites.suite import Item, SuiteSampling, encode_items
from r1plus_contract.suites.suite_reference import write_reference
from r1plus_monitoring.curate import record
from r1plus_monitoring.curate.asking import Asker, ProcessAsker, RecordedAsker
from r1plus_monitoring.curate.candidates import FAMILIES, build_candidates
from r1plus_monitoring.curate.long_context import LEAST_TOKENS, build_long_items
from r1plus_monitoring.curate.pipeline import (
    BASELINE_CONDITIONS,
    CROSS_CONDITIONS,
    FRESH_CONDITIONS,
    SERVED_CONDITIONS,
    curate,
    measure,
)
from r1plus_monitoring.curate.selection import NotEnoughItemsError, Shape, sample
from r1plus_monitoring.curate.served import ServedAsker
from r1plus_monitoring.scoring.replay import record as select_answers

SAMPLING = SuiteSampling(max_new_tokens=24, stop=("\n", "."))
"""Greedy; an answer ends with its first sentence, which keeps a probe under 25 tokens."""
LENGTHS: Final = "items of the stratum `context` as TOKENS:ITEMS,..., such as 2048:60,4096:20"
MOST_TOKENS: Final = 2**22
"""Of all candidates of one call. A suite has room for a fourteenth of them."""


def main() -> None:
    """Entry point."""
    arguments = build_parser().parse_args()
    try:
        _COMMANDS[arguments.command](arguments)
    except NotEnoughItemsError as error:
        sys.exit(f"{arguments.name}: {error}")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    root = argparse.ArgumentParser(prog="python -m r1plus_monitoring.curate", description=__doc__.splitlines()[0])
    commands = root.add_subparsers(dest="command", required=True)
    one = commands.add_parser("make", help="ask every candidate and write a suite")
    one.add_argument("--name", required=True, help="for example smollm2-full-v1")
    one.add_argument("--tier", required=True, choices=["full", "lite", "edge"])
    one.add_argument("--family", default=FAMILIES[0], choices=FAMILIES, help="of the engine; it says what is asked")
    one.add_argument("--out", required=True, type=Path, help="folder of suites")
    one.add_argument("--size", type=int, default=Shape().size, help="most items")
    one.add_argument("--seed", type=int, default=1, help="of the stratified choice")
    one.add_argument("--strata", default="", help="ask only these, separated by commas; all when left out")
    one.add_argument("--sample", type=int, default=0, help="ask at most so many candidates; all when 0")
    one.add_argument("--long-context", default=(), type=parse_lengths, help=LENGTHS)
    one.add_argument("--answers", type=Path, help="folder that keeps answers: an interrupted run goes on from there")
    one.add_argument(
        "--no-baseline", action="store_true", help="leave the baseline to `verify --fresh`, which replaces it"
    )
    two = commands.add_parser("compare", help="measure another engine on a suite")
    five = commands.add_parser("record", help="record answers of the reference, for the monitor to replay")
    for command in (one, two, five):
        command.add_argument("--engine-dir", required=True, type=Path, help="folder with the OpenVINO IR")
    three = commands.add_parser("verify", help="measure a served engine on a suite, through Triton")
    three.add_argument("--http", required=True, help="host:port of Triton's HTTP")
    three.add_argument("--grpc", required=True, help="host:port of Triton's gRPC")
    three.add_argument("--fresh", action="store_true", help="the baseline: in orders that took no part in the choice")
    three.add_argument("--quick", action="store_true", help="one sweep at the production batch only")
    for command in (one, two, three, five):
        command.add_argument("--engine", required=True, help="name in the catalog")
    four = commands.add_parser("drop", help="take items out of a suite and say why")
    four.add_argument("--reason", required=True)
    four.add_argument("ids", nargs="+")
    six = commands.add_parser("context", help="write candidates about long texts, for `r1plus suite build`")
    six.add_argument("--lengths", required=True, type=parse_lengths, help=LENGTHS)
    six.add_argument("--out", required=True, type=Path, help="file of candidates, one item a line")
    six.add_argument("--seed", type=int, default=1, help="of the texts")
    for command in (two, three, four, five):
        command.add_argument("--suite", required=True, type=Path, help="folder of one suite")
    return root


def make(arguments: argparse.Namespace) -> None:
    """Write `suite.json`, `items.jsonl` and `baseline.json`."""
    asker: Asker = ProcessAsker(arguments.engine_dir, SAMPLING)
    if arguments.answers:
        asker = RecordedAsker(arguments.engine_dir, SAMPLING, arguments.answers, asker)
    shape = Shape(size=arguments.size)
    strata = arguments.strata.split(",") if arguments.strata else []
    candidate_items = sample(build_candidates(arguments.family), strata, arguments.sample, arguments.seed)
    candidate_items = (*candidate_items, *build_context_items(arguments.long_context, arguments.seed))
    baseline_conditions = () if arguments.no_baseline else BASELINE_CONDITIONS
    suite_items = curate(
        arguments.engine, candidate_items, asker, shape, arguments.seed, print_progress, baseline_conditions
    )
    description = f"What {arguments.engine} answers right at every batch size, in every order and arithmetic asked."
    head = record.build_header(
        arguments.name, arguments.tier, description, arguments.engine, SAMPLING, suite_items.items, arguments.family
    )
    folder = arguments.out / arguments.name
    suite = record.write_suite(folder, head, suite_items.items)
    record.write_baseline(
        folder,
        record.Baseline(
            suite=head.sha256,
            engine=arguments.engine,
            engine_digest=digest_folder(arguments.engine_dir),
            hardware=record.read_hardware(),
            seed=arguments.seed,
            selection=suite_items.selection,
            baseline=suite_items.baseline,
        ),
    )
    print_progress(f"{head.name}: {head.items} items, sha256 {head.sha256}, {suite.strata()}")


def compare(arguments: argparse.Namespace) -> None:
    """Add another engine's figures to `baseline.json`, in place of older ones of the same engine."""
    suite = record.read_suite(arguments.suite)
    asker = ProcessAsker(arguments.engine_dir, suite.header.sampling)
    figures = measure(arguments.engine, suite.items, asker, CROSS_CONDITIONS, print_progress)
    baseline = record.read_baseline(arguments.suite)
    other_engines = tuple(one for one in baseline.cross if one.engine != arguments.engine)
    record.write_baseline(arguments.suite, dataclasses.replace(baseline, cross=(*other_engines, *figures)))


def verify(arguments: argparse.Namespace) -> None:
    """Add what a served engine answers to `baseline.json`, and show the items that it lost."""
    suite = record.read_suite(arguments.suite)
    asker = ServedAsker(arguments.http, arguments.grpc, suite.header.sampling)
    conditions = FRESH_CONDITIONS if arguments.fresh else SERVED_CONDITIONS
    figures = measure(
        arguments.engine, suite.items, asker, conditions[:1] if arguments.quick else conditions, print_progress
    )
    baseline = record.read_baseline(arguments.suite)
    if arguments.fresh:
        baseline = dataclasses.replace(baseline, baseline=figures)
    else:
        other_engines = tuple(one for one in baseline.served if one.engine != arguments.engine)
        baseline = dataclasses.replace(baseline, served=(*other_engines, *figures))
    record.write_baseline(arguments.suite, baseline)
    for one in figures:
        print_progress(f"{one.condition}: lost {' '.join(one.lost) or 'none'}")


def drop(arguments: argparse.Namespace) -> None:
    """Rewrite the suite without some items; its hash changes, so every verdict on it is Unknown again."""
    suite = record.read_suite(arguments.suite)
    unknown = set(arguments.ids) - {item.id for item in suite.items}
    if unknown:
        sys.exit(f"{suite.header.name}: no such items: {', '.join(sorted(unknown))}")
    items = tuple(item for item in suite.items if item.id not in arguments.ids)
    old = suite.header
    head = record.build_header(
        old.name, old.tier, old.description, old.reference_engine, old.sampling, items, old.family
    )
    record.write_suite(arguments.suite, head, items)
    baseline = record.read_baseline(arguments.suite)
    dropped_items = (
        *baseline.dropped,
        *(record.DroppedItem(name, arguments.reason) for name in sorted(set(arguments.ids))),
    )
    record.write_baseline(arguments.suite, dataclasses.replace(baseline, suite=head.sha256, dropped=dropped_items))
    print_progress(f"{head.name}: {head.items} items, sha256 {head.sha256}")


def record_answers(arguments: argparse.Namespace) -> None:
    """Write `reference.jsonl`: answers of the reference to some of its items, with the scores that they get now."""
    suite = record.read_suite(arguments.suite)
    if arguments.engine != suite.header.reference_engine:
        sys.exit(f"--engine: {arguments.engine} is not the reference, {suite.header.reference_engine}")
    answers = ProcessAsker(arguments.engine_dir, suite.header.sampling).ask(suite.items, CROSS_CONDITIONS[0])
    answer_texts = {name: (answer.text, answer.finish_reason) for name, answer in answers.items()}
    text = write_reference(select_answers(suite.items, answer_texts, seed=1))
    (arguments.suite / REFERENCE_FILE).write_bytes(text.encode())
    print_progress(f"{suite.header.name}: {len(text.splitlines())} recorded answers; any signature is void")


def write_context(arguments: argparse.Namespace) -> None:
    """Write candidates of the stratum `context`."""
    items = build_context_items(arguments.lengths, arguments.seed)
    arguments.out.write_text(encode_items(items), encoding="utf-8")
    print_progress(f"{arguments.out}: {len(items)} candidates, {arguments.out.stat().st_size:,} bytes")


def parse_lengths(text: str) -> tuple[tuple[int, int], ...]:
    """Return pairs of tokens and items. Raise ArgumentTypeError."""
    try:
        pairs = tuple((int(tokens), int(count)) for tokens, count in (part.split(":") for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is not TOKENS:ITEMS,..., such as 2048:60,4096:20") from error
    if short := [tokens for tokens, count in pairs if tokens < LEAST_TOKENS or count < 1]:
        raise argparse.ArgumentTypeError(f"{short[0]} tokens: at least {LEAST_TOKENS}, and at least one item")
    if (total := sum(tokens * count for tokens, count in pairs)) > MOST_TOKENS:
        raise argparse.ArgumentTypeError(
            f"{total} tokens in all, at most {MOST_TOKENS} are written: a suite holds some 300,000; give less"
        )
    if len({tokens for tokens, _ in pairs}) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r:.60} has a length twice, whose items would be the same; add them up")
    return pairs


def build_context_items(lengths: Sequence[tuple[int, int]], seed: int) -> tuple[Item, ...]:
    """Build the items of each length."""
    return tuple(item for tokens, count in lengths for item in build_long_items(tokens, count, seed))


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], None]]] = MappingProxyType(
    {
        "make": make,
        "compare": compare,
        "verify": verify,
        "drop": drop,
        "record": record_answers,
        "context": write_context,
    }
)


def print_progress(line: str) -> None:
    """Print one line of progress."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
