"""`make bench NAME=claims`: what R1+'s publisher says of speed, memory and batch on an A100, measured on this hardware.

Memory of FP16 against FP32, batch 1 to 64, and engine against engine. On CPU that is SmolLM2-135M in OpenVINO and in
vLLM; `--engine` names others, and those for GPUs. Each engine runs in a process of its own, with the settings that the
served model has, without Triton. Those on CPU are open at the same time and asked in turn, so a change of the machine's
pace meets all of them. Not a test: it prints. Compare ratios of one run. The last line is JSON.
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.claims.engines import Subject, list_on_cpu, read_given
from bench.claims.report import TWIN_SUFFIX, EngineFigures, Run, format_table
from bench.claims.running import CONTEXT, Worker, limit_batch, open_workers, query_gpus
from bench.running import exit_at_sigterm

MEMORY, BATCH, ENGINES = PARTS = ("memory", "batch", "engines")
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
COMPARED: Final = (1, 8, 32)
"""Batches at which engines are compared, where the others are not asked for."""
MEMORY_BATCH: Final = 32
TOKENS, ROUNDS = 64, 3
QUICK_TOKENS, QUICK_ROUNDS = 8, 1
MOST_TOKENS: Final = CONTEXT // 2
"""Of an answer: the question with its chat template takes the other half of the context at most."""
WARM_UP: Final = (8, 8)


def main() -> None:
    """Measure what is asked for; print the table, and a JSON line last."""
    arguments = _parse()
    exit_at_sigterm()
    load, began = os.getloadavg()[0], datetime.now(UTC)
    threads = len(os.sched_getaffinity(0))
    rounds, tokens = arguments.rounds, arguments.tokens
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as name:
        subjects = _list_subjects(arguments, Path(name))
        figures = {one.name: _describe(one) for one in subjects}
        if MEMORY in arguments.part:
            for name, runtime, mib in _measure_memory(subjects, threads, tokens):
                figures[name] = replace(figures[name], runtime=runtime, memory_mib=mib)
        if batches := BATCHES if BATCH in arguments.part else COMPARED if ENGINES in arguments.part else ():
            for name, runtime, speeds in _measure_speeds(subjects, batches, rounds, tokens, threads):
                figures[name] = replace(figures[name], runtime=runtime, tokens_per_second=speeds)
    run = Run(
        measured_at=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        command=shlex.join(["python", "-m", "bench.claims", *sys.argv[1:]]),
        rounds=rounds,
        processor=_read_processor(),
        cores=threads,
        threads=threads,
        gpus=query_gpus("name"),
        load_before=round(load, 1),
        load_after=round(os.getloadavg()[0], 1),
        tokens=tokens,
        memory_batch=MEMORY_BATCH,
        engines=tuple(figures.values()),
    )
    print(format_table(run))
    print(run.to_json())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The publisher's claims, measured here.")
    parser.add_argument("--part", action="append", choices=PARTS, help="one of them, several times; default: all")
    parser.add_argument("--engine", action="append", default=[], metavar="FOLDER=PYTHON", help="instead of SmolLM2")
    parser.add_argument("--quick", action="store_true", help="show that it runs: few tokens, one round")
    parser.add_argument("--tokens", type=int, metavar="N", help=f"of each answer, at most; default: {TOKENS}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"over all batches; default: {ROUNDS}")
    arguments = parser.parse_args()
    arguments.part = arguments.part or list(PARTS)
    arguments.tokens = arguments.tokens or (QUICK_TOKENS if arguments.quick else TOKENS)
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    if not (1 <= arguments.tokens <= MOST_TOKENS and arguments.rounds >= 1):
        parser.error(f"--tokens must be from 1 to {MOST_TOKENS}, and --rounds at least 1")
    return arguments


def _list_subjects(arguments: argparse.Namespace, scratch: Path) -> list[Subject]:
    if arguments.engine:
        found = read_given(arguments.engine)
        return [one for one in found if MEMORY in arguments.part or not one.is_twin]
    if query_gpus("name"):
        print("A GPU is here: --engine FOLDER=PYTHON measures an engine on it (docs/gpus.md)", flush=True)
    with_others = bool({BATCH, ENGINES} & set(arguments.part))
    return list_on_cpu(scratch, with_twin=MEMORY in arguments.part, with_others=with_others)


def _describe(subject: Subject) -> EngineFigures:
    return EngineFigures(
        name=subject.name,
        backend=subject.spec.backend.value,
        precision=subject.precision,
        on_gpu=subject.on_gpu,
        file_mib=round(subject.file_bytes / 2**20),
    )


def _measure_memory(subjects: Sequence[Subject], threads: int, tokens: int) -> Iterator[tuple[str, str, int]]:
    """Yield name, library, and MiB after a full batch, of each engine that has a twin in FP32, and of the twin."""
    twins = {one.name for one in subjects if one.is_twin}
    for subject in subjects:
        if not twins & {subject.name, f"{subject.name}{TWIN_SUFFIX}"}:
            continue
        batch = limit_batch(subject, MEMORY_BATCH)
        with open_workers([subject], batch, threads) as (worker,):
            worker.ask(batch, tokens)
            mib = worker.read_memory()
            print(f"{subject.name}: {mib} MiB at batch {batch}", flush=True)
            yield subject.name, worker.runtime, mib


def _measure_speeds(
    subjects: Sequence[Subject], batches: Sequence[int], rounds: int, tokens: int, threads: int
) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """Yield name, library, and tokens per second of each round by batch, of each engine. One on a GPU has it alone."""
    measured = [one for one in subjects if not one.is_twin]
    groups = [[one for one in measured if not one.on_gpu], *([one] for one in measured if one.on_gpu)]
    for group in filter(None, groups):
        with open_workers(group, max(batches), threads) as workers:
            speeds = _ask_in_turn(workers, [batch for _ in range(rounds) for batch in batches], tokens)
            for worker in workers:
                yield worker.subject.name, worker.runtime, speeds[worker.subject.name]


def _ask_in_turn(workers: Sequence[Worker], batches: Sequence[int], tokens: int) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {worker.subject.name: {} for worker in workers}
    for worker in workers:
        worker.ask(*WARM_UP)
    for batch in batches:
        for worker in workers:
            if batch > limit_batch(worker.subject, batch):
                continue
            speed = round(worker.ask(batch, tokens), 1)
            print(f"{worker.subject.name}: {speed} tokens/s at batch {batch}", flush=True)
            found[worker.subject.name].setdefault(str(batch), []).append(speed)
    return found


def _read_processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "an unknown processor")


if __name__ == "__main__":
    main()
