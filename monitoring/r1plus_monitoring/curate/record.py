"""The files of a suite's folder, and how they are written: `suite.json`, `items.jsonl`, `baseline.json`.

The monitor reads the first two, which the contract defines. The third records how the suite was made and what was
measured with it, for people and for the documentation.
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
from r1plus_contract.monitor.settings import ITEMS_FILE, REFERENCE_FILE
from r1plus_contract.suites.suite import (
    SCORER_VERSION,
    Item,
    Suite,
    SuiteHeader,
    SuiteSampling,
    encode_items,
    load_suite,
    suite_hash,
)
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_contract.suites.suite_files import BASELINE_FILE, SIGNATURE_FILE

HEADER_FILE: Final = "suite.json"


@dataclass(frozen=True, slots=True)
class MeasurementHost:
    """Where the figures were measured: the same engine answers differently on another processor."""

    processor: str
    bfloat16: bool
    """Whether the processor computes in bfloat16, and so the engine by default."""
    threads: int
    openvino_genai: str


@dataclass(frozen=True, slots=True)
class DroppedItem:
    """An item that was removed afterwards."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """`baseline.json`."""

    suite: str
    engine: str
    engine_digest: str
    hardware: MeasurementHost
    seed: int
    selection: tuple[Measurement, ...]
    baseline: tuple[Measurement, ...]
    """On repeats that took no part in the choice."""
    cross: tuple[Measurement, ...] = ()
    """Other engines on this suite."""
    served: tuple[Measurement, ...] = ()
    """Engines on this suite, asked through Triton as the gate asks."""
    dropped: tuple[DroppedItem, ...] = ()


def read_hardware() -> MeasurementHost:
    """Return the class of this machine, without its name."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(_split_field(line) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line)
    family, model = fields.get("cpu family", "?"), fields.get("model", "?")
    return MeasurementHost(
        processor=f"{platform.machine()}, {fields.get('model name', 'unknown')}, family {family} model {model}",
        bfloat16="avx512_bf16" in fields.get("flags", ""),
        threads=len(os.sched_getaffinity(0)),
        openvino_genai=version("openvino-genai"),
    )


SERVED_ELSEWHERE: Final = MeasurementHost(
    "not known: asked through its address", bfloat16=False, threads=0, openvino_genai=""
)


def _split_field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def build_header(
    name: str,
    tier: str,
    description: str,
    engine: str,
    sampling: SuiteSampling,
    items: Sequence[Item],
    family: str,
) -> SuiteHeader:
    """Build the header of these items. A suite named `x-v2` has version 2.0.0."""
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
    """Write a suite and read it back. Signature and recorded answers of an older one are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SIGNATURE_FILE, REFERENCE_FILE):
        (folder / name).unlink(missing_ok=True)
    (folder / ITEMS_FILE).write_text(encode_items(items), encoding="utf-8")
    (folder / HEADER_FILE).write_text(format_json(head), encoding="utf-8")
    return read_suite(folder)


def read_suite(folder: Path) -> Suite:
    """Read the suite of a folder; raise SuiteError."""
    header_text = (folder / HEADER_FILE).read_text(encoding="utf-8")
    return load_suite(header_text, (folder / ITEMS_FILE).read_text(encoding="utf-8"))


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Write `baseline.json`."""
    (folder / BASELINE_FILE).write_text(format_json(baseline), encoding="utf-8")


def read_baseline(folder: Path) -> Baseline:
    """Read `baseline.json`."""
    return loads(Baseline, (folder / BASELINE_FILE).read_text(encoding="utf-8"))


def format_json(value: object) -> str:
    """Format JSON for people to read."""
    return json.dumps(to_jsonable(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
