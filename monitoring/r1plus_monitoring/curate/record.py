"""What a suite's folder holds, and how it is written: `suite.json`, `items.jsonl`, `baseline.json`.

The first two are the contract's and are what the monitor reads. The third says how the suite came to be and what was
measured with it; nothing reads it but people and the documentation.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import loads, to_jsonable
from r1plus_contract.settings import ITEMS_FILE, REFERENCE_FILE
from r1plus_contract.suite import (
    SCORER_VERSION,
    Item,
    Sampling,
    Suite,
    SuiteHeader,
    encode_items,
    load_suite,
    suite_hash,
)
from r1plus_contract.suite_baseline import Measured
from r1plus_contract.suite_files import BASELINE_FILE, SIGNATURE_FILE

HEADER_FILE: Final = "suite.json"
FAMILY: Final = "smollm2"


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where the figures were measured, said plainly: the same engine answers otherwise on another processor."""

    processor: str
    bfloat16: bool
    """Whether the processor computes in bfloat16, and so the engine by its own choice."""
    threads: int
    openvino_genai: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that was taken out afterwards."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """`baseline.json`."""

    suite: str
    engine: str
    engine_digest: str
    hardware: Hardware
    seed: int
    selection: tuple[Measured, ...]
    baseline: tuple[Measured, ...]
    """On repeats that took no part in the choice."""
    cross: tuple[Measured, ...] = ()
    """Other engines on this suite."""
    served: tuple[Measured, ...] = ()
    """Engines on this suite, asked through Triton as the gate asks."""
    dropped: tuple[Dropped, ...] = ()


def hardware() -> Hardware:
    """This machine, by class and not by name."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(_field(line) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line)
    family, model = fields.get("cpu family", "?"), fields.get("model", "?")
    return Hardware(
        processor=f"{platform.machine()}, {fields.get('model name', 'unknown')}, family {family} model {model}",
        bfloat16="avx512_bf16" in fields.get("flags", ""),
        threads=len(os.sched_getaffinity(0)),
        openvino_genai=version("openvino-genai"),
    )


SERVED_ELSEWHERE: Final = Hardware("not known: asked through its address", bfloat16=False, threads=0, openvino_genai="")


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def header(
    name: str, tier: str, description: str, engine: str, sampling: Sampling, items: Sequence[Item], family: str = FAMILY
) -> SuiteHeader:
    """The header that belongs to these items. A suite named `x-v2` has version 2.0.0."""
    return SuiteHeader(
        name=name,
        version=f"{name.rpartition('-v')[2]}.0.0",
        family=family,
        tier=tier,
        description=description,
        reference_engine=engine,
        sha256=suite_hash(encode_items(items), sampling, SCORER_VERSION),
        items=len(items),
        sampling=sampling,
    )


def write_suite(folder: Path, head: SuiteHeader, items: Sequence[Item]) -> Suite:
    """Write and read back what the monitor will read. Signature and recorded answers of an older one go."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SIGNATURE_FILE, REFERENCE_FILE):
        (folder / name).unlink(missing_ok=True)
    (folder / ITEMS_FILE).write_text(encode_items(items), encoding="utf-8")
    (folder / HEADER_FILE).write_text(pretty(head), encoding="utf-8")
    return read_suite(folder)


def read_suite(folder: Path) -> Suite:
    """The suite of a folder; raises SuiteError."""
    header_text = (folder / HEADER_FILE).read_text(encoding="utf-8")
    return load_suite(header_text, (folder / ITEMS_FILE).read_text(encoding="utf-8"))


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Write `baseline.json`."""
    (folder / BASELINE_FILE).write_text(pretty(baseline), encoding="utf-8")


def read_baseline(folder: Path) -> Baseline:
    """Read `baseline.json`."""
    return loads(Baseline, (folder / BASELINE_FILE).read_text(encoding="utf-8"))


def pretty(value: object) -> str:
    """JSON for people to read."""
    return json.dumps(to_jsonable(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
