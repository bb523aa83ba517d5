"""`make bench NAME=context`: time to the first token, memory and accuracy against length: dense, sparse and evicted.

Not a test: it prints. Items are those of the stratum `context` (curate/long_context.py), asked one at a time of the
backend's own engine, each length and attention in a process of its own. A length beyond what the model was trained for
is refused, as in the product; `--beyond` measures its time and memory nevertheless, and its answers count for nothing.
The last line is JSON; `python -m bench.context.picture FILE` draws it.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.context.one import Order, Row
from bench.reconcile.stage import machine
from bench.running import exit_at_sigterm
from devcluster.cache import cache_dir
from r1plus_contract.jsonable import dumps, loads
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.config_pbtxt import count_threads
from r1plus_model_repo.importing.demo_engines import MAKERS, find_folder_name
from r1plus_model_repo.importing.shipped import list_shipped
from r1plus_policies.engine.memory_fit import Misfit, fit_memory

LENGTHS: Final = (2048, 4096, 8192, 16384, 32768, 65536)
ITEMS: Final = 6
THRESHOLD: Final = 0.9
EVICTION: Final = (32, 512, 2048)
METHODS: Final[dict[str, dict[str, Any]]] = {
    "dense": {},
    "sparse": {"sparse_threshold": THRESHOLD},
    "evicted": {"eviction": EVICTION},
}
PUBLISHER: Final = {
    "by": "the publisher of R1+, not measured here: its weights are not public",
    "context_tokens": 65536,
    "errors_percent": 0.3,
    "of": "legal documents",
}


def main() -> None:
    """Measure every length and attention, print a table, and a JSON line last."""
    arguments = build_parser().parse_args()
    exit_at_sigterm()
    before = machine()
    print(before, flush=True)
    spec = next(one.spec for one in list_shipped() if one.name == arguments.engine)
    folder = arguments.engine_dir or make_engine(arguments.engine)
    rows: dict[str, list[dict[str, Any]]] = {method: [] for method in arguments.methods}
    refused = {}
    for tokens in arguments.lengths:
        if refusal := explain_refusal(spec, tokens):
            refused[str(tokens)] = refusal
            print(f"{tokens}: refused: {refusal}", flush=True)
            if not arguments.beyond:
                continue
        for method, order in list_orders(arguments, spec, folder, tokens):
            row = measure(order)
            rows[method].append(format_row(row, trained=not refusal))
            print(describe(method, row), flush=True)
    report = {
        "engine": arguments.engine,
        "trained_tokens": spec.architecture.context_length,
        "openvino_genai": version("openvino-genai"),
        "sparse_threshold": THRESHOLD,
        "eviction_tokens": EVICTION,
        "machine": {"before": before, "after": machine()},
        "rows": rows,
        "refused": refused,
        "publisher": PUBLISHER,
    }
    print(json.dumps(report))


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description="Time, memory and accuracy against length.")
    parser.add_argument("--engine", default="qwen-lite-q8-0", help="a shipped engine on CPU")
    parser.add_argument("--engine-dir", type=Path, help="its files, where they are made already")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="tokens of prompt and answer")
    parser.add_argument("--items", type=int, default=ITEMS, help="of each length, a third of each kind")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=tuple(METHODS))
    parser.add_argument("--beyond", action="store_true", help="also lengths that the model was not trained for")
    return parser


def make_engine(name: str) -> Path:
    """Make the engine's files in the cache, or find them there."""
    folder = find_folder_name(name)
    build = import_module(MAKERS[folder]).build_engines(cache_dir() / "engines", print, [folder])[folder]
    return Path(build.folder)


def explain_refusal(spec: EngineSpec, tokens: int) -> str:
    """Return why a deployment may not ask for this context; empty where it may."""
    fit = fit_memory(spec.shape, batch=1, context=tokens, memory_bytes=None)
    return fit.message if isinstance(fit, Misfit) else ""


def list_orders(
    arguments: argparse.Namespace, spec: EngineSpec, folder: Path, tokens: int
) -> Iterator[tuple[str, Order]]:
    """Yield what to measure at one length."""
    for method in arguments.methods:
        yield (
            method,
            Order(
                folder=str(folder),
                kv_bytes_per_token=spec.shape.kv_bytes_per_token,
                tokens=tokens,
                items=arguments.items,
                threads=count_threads(spec.requirements.cpu),
                **METHODS[method],
            ),
        )


def measure(order: Order) -> Row:
    """Measure in a process of its own. Raise RuntimeError with the end of its output if it fails."""
    # Outside of CI jobs OpenVINO writes an id under $HOME/intel at import, and reports it to Google Analytics.
    words = [sys.executable, "-m", "bench.context.one", dumps(order)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"CI": "true"})
    if done.returncode != 0:
        raise RuntimeError(f"{order.tokens} tokens: exit status {done.returncode}: {done.stderr.strip()[-600:]}")
    return loads(Row, done.stdout.strip().splitlines()[-1])


def format_row(row: Row, *, trained: bool) -> dict[str, Any]:
    """Return a row of the JSON line; the answers of a length that the model was not trained for count for nothing."""
    return {**dataclasses.asdict(row), "trained": trained}


def describe(method: str, row: Row) -> str:
    """Return a line of the table."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(row.kinds.items()))
    return (
        f"{row.tokens:>6} {method:<8} prompt {row.prompt_tokens:>6}: first token {row.first_token_seconds:>7.2f} s, each"
        f" further {row.token_ms:>6.1f} ms, process {row.peak_mib:>5} MiB, KV cache {row.kv_prompt_mib:>6.1f} MiB and then"
        f" {row.kv_answer_mib:>6.1f}; right {row.right} of {row.asked} ({kinds})"
    )


if __name__ == "__main__":
    main()
