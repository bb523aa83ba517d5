"""The figures beside those of R1+'s publisher, as a table and as a JSON object."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

PUBLISHED_MEMORY, PUBLISHED_BATCH, PUBLISHED_SPEED = "-40 %", "32", "+35 % (TensorRT)"
"""What R1+'s publisher says of `full` on an A100: FP16, the best batch, TensorRT."""
NEARLY: Final = 0.95
"""Share of the largest speed from which a batch is as good as the best."""
NOT_MEASURED: Final = ("not measured",)
COLUMNS: Final = (32, 27)
TWIN_SUFFIX: Final = "-fp32"
"""Of the name of an engine that has another one's numbers in FP32."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """Of one engine. Memory is that of its processes after a full batch."""

    name: str
    backend: str
    precision: str
    on_gpu: bool
    file_mib: int
    runtime: str = ""
    """Library and version; empty where nothing was measured."""
    memory_mib: int | None = None
    tokens_per_second: Mapping[str, list[float]] = field(default_factory=dict)
    """By requests at once, a figure per round."""

    @property
    def curve(self) -> dict[int, float]:
        """Batch -> tokens per second, the median of the rounds."""
        return {int(batch): statistics.median(rounds) for batch, rounds in self.tokens_per_second.items()}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the bench: the JSON line."""

    measured_at: str
    """UTC, RFC 3339."""
    command: str
    rounds: int
    processor: str
    cores: int
    threads: int
    """Of each engine on CPU."""
    gpus: Sequence[str]
    load_before: float
    load_after: float
    tokens: int
    """Of each answer, at most."""
    memory_batch: int
    """At which memory was read."""
    engines: Sequence[EngineFigures]

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps({**asdict(self), "claims": {name: texts for name, _, texts in list_claims(self)}})

    @property
    def hardware(self) -> str:
        """The machine in words."""
        gpus = f"; GPUs: {', '.join(self.gpus)}" if self.gpus else "; no GPU"
        return f"{self.processor}, {self.cores} cores{gpus}"


def read_run(figures: Mapping[str, Any]) -> Run:
    """Return the run whose JSON line has these figures.

    Raises:
        ValueError: they are of another bench.
    """
    values = {name: value for name, value in figures.items() if name != "claims"}
    try:
        return Run(**{**values, "engines": tuple(EngineFigures(**one) for one in values["engines"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"no figures of make bench NAME=claims: {error}") from error


def list_claims(run: Run) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return of each claim what it is about, the publisher's figure, and those of this run."""
    best = [_describe_best(one) for one in run.engines if len(one.curve) > 1]
    return [
        ("memory, FP16 against FP32", PUBLISHED_MEMORY, tuple(_compare_memory(run)) or NOT_MEASURED),
        ("best batch", PUBLISHED_BATCH, tuple(best) or NOT_MEASURED),
        ("speed, engine against engine", PUBLISHED_SPEED, tuple(_compare_speeds(run)) or NOT_MEASURED),
    ]


def _compare_memory(run: Run) -> Iterable[str]:
    """Compare each engine in FP32 with the same one in FP16."""
    by_name = {one.name: one for one in run.engines}
    for half in run.engines:
        wide = by_name.get(f"{half.name}{TWIN_SUFFIX}")
        if wide is None or half.memory_mib is None or wide.memory_mib is None:
            continue
        yield (
            f"{half.name}: {describe_change(half.memory_mib, wide.memory_mib)} ({half.memory_mib} against"
            f" {wide.memory_mib} MiB at batch {run.memory_batch}, files"
            f" {describe_change(half.file_mib, wide.file_mib)})"
        )


def _describe_best(one: EngineFigures) -> str:
    curve = one.curve
    best = max(curve, key=lambda batch: curve[batch])
    nearly = min(batch for batch, speed in curve.items() if speed >= NEARLY * curve[best])
    return f"{one.name}: {best} of 1 to {max(curve)} ({curve[best]:.0f} tokens/s), {100 * NEARLY:.0f} % of it from {nearly} on"


def _compare_speeds(run: Run) -> Iterable[str]:
    """Compare each engine with the first one."""
    with_speed = [one for one in run.engines if one.curve]
    for one in with_speed[1:]:
        shared = [batch for batch in one.curve if batch in with_speed[0].curve]
        if shared:
            changes = (f"{describe_change(one.curve[n], with_speed[0].curve[n])} at {n}" for n in shared)
            yield f"{one.name} to {with_speed[0].name}: {', '.join(changes)}"


def describe_change(value: float, base: float) -> str:
    """Return by how much a value differs from another, percent."""
    return f"{100 * (value / base - 1):+.0f} %"


def format_table(run: Run) -> str:
    """Return the claims, a line each, below a line that says what was measured on."""
    first, second = COLUMNS
    lines = [f"measured on: {run.hardware}; {', '.join(sorted({one.runtime for one in run.engines}))}"]
    lines.append(f"{'':<{first}}{'publisher, on an A100':<{second}}measured here")
    for what, published, measured in list_claims(run):
        lines.append(f"{what:<{first}}{published:<{second}}{measured[0]}")
        lines += [f"{'':<{first + second}}{text}" for text in measured[1:]]
    return "\n".join(lines)
