"""`r1plus fit`: what an engine needs, term by term, and which batch and context fit which hardware. Needs no cluster.

The same function decides in the operator's plan; here it is asked about hardware that nobody needs to have.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1plus_cli import local
from r1plus_cli.errors import UsageError
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import Backend, Engine, Tier
from r1plus_operator.plan.engine.feasibility import read_gpu_need
from r1plus_policies.engine.accelerators import TABLE, Accelerator, find_accelerator, list_gpus
from r1plus_policies.engine.hardware import Gpus
from r1plus_policies.engine.hardware import place_engine as put
from r1plus_policies.engine.memory_fit import (
    GIB,
    MIB,
    EngineShape,
    Fit,
    compute_fit,
    explain_uneven_split,
    find_largest_batch,
    find_longest_context,
    find_nearest_fits,
    fit_memory,
)
from r1plus_policies.engine.selection import version_key

NOT_KNOWN = "not in the table of GPUs (for another one give --engine and its --memory, such as 22Gi)"
_PREFERRED = (Backend.OPENVINO, Backend.TENSORRT_LLM, Backend.VLLM, Backend.TENSORRT)


@dataclass(frozen=True, slots=True)
class Place:
    """Hardware to fit into: a name for people, bytes of each device, and the GPU if it is one."""

    name: str
    memory_bytes: int
    gpu: Accelerator | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What `fit` says of one engine on one place."""

    engine: Engine
    place: Place
    asked: Fit
    """The wish, whether or not it fits."""
    refused: str
    """Why it does not; empty where it does."""
    max_batch: int
    max_context: int
    nearest: tuple[Fit, ...]

    def document(self) -> dict[str, Any]:
        """As `-o json` prints it. GiB, over all devices unless it says otherwise."""
        return {
            "engine": self.engine.name,
            "hardware": self.place.name,
            "devices": self.asked.devices,
            "usableGiBPerDevice": _gib(self.place.memory_bytes),
            "batch": self.asked.batch,
            "context": self.asked.context,
            "fits": not self.refused,
            "maxBatch": self.max_batch,
            "maxContext": self.max_context,
            "totalGiB": _gib(self.asked.total_bytes),
            "perDeviceGiB": _gib(self.asked.device_bytes),
            "terms": terms(self.asked),
            "nearest": [
                {"batch": n.batch, "context": n.context, "totalGiB": _gib(n.total_bytes)} for n in self.nearest
            ],
            "reason": self.refused,
        }


def terms(found: Fit) -> dict[str, float]:
    """The sum's terms, GiB; they add up to `totalGiB` but for rounding."""
    return {
        "weightsGiB": _gib(found.weights_bytes),
        "kvCacheGiB": _gib(found.kv_cache_bytes),
        "activationsGiB": _gib(found.activation_bytes),
        "runtimeGiB": _gib(found.runtime_bytes),
    }


def _gib(count: int) -> float:
    return round(count / GIB, 2)


def answer(engine: Engine, shape: EngineShape, place: Place, batch: int | None, context: int | None) -> Answer:
    """Fit a wish; open ends are the engine's best batch and its own context."""
    memory = 0 if (unfit := _unfit(engine, shape, place)) else place.memory_bytes
    found = fit_memory(shape, batch=batch, context=context, memory_bytes=memory, where=place.name)
    tokens = min(context or shape.context_length, shape.context_length)
    largest = 0 if explain_uneven_split(shape) else min(shape.best_batch, find_largest_batch(shape, tokens, memory))
    wanted = compute_fit(shape, batch or max(largest, 1), context or shape.context_length)
    if isinstance(found, Fit):
        return Answer(engine, place, found, "", largest, find_longest_context(shape, largest, memory), ())
    longest = find_longest_context(shape, largest, memory) if largest else 0
    near = find_nearest_fits(shape, wanted.batch, wanted.context, memory)
    return Answer(engine, place, wanted, unfit or _as_typed(found.message, place), largest, longest, near)


def _as_typed(message: str, place: Place) -> str:
    """A refusal in the words of this command: the policy speaks to whoever writes an R1PlusDeployment."""
    larger = "take more memory" if place.gpu is None else "take a larger GPU, or more of them by --gpus"
    words = {
        "spec.context.maxTokens": "--context",
        "spec.batching.maxBatchSize": "--batch",
        "spec.engine: ": "",
        "add a larger node": larger,
    }
    for spec, typed in words.items():
        message = message.replace(spec, typed)
    return message


def _unfit(engine: Engine, shape: EngineShape, place: Place) -> str:
    """Why the engine does not run on such GPUs, however much memory they have."""
    gpu = place.gpu
    if gpu is None:
        return ""
    asked = replace(read_gpu_need(engine), count=shape.devices)
    found = put(asked, [Gpus(gpu.products[0], shape.devices, gpu.reported_mib, gpu.capability)])
    return f"{found}; take another GPU: without --gpu each is told" if isinstance(found, str) else ""


def engine_for(
    engines: Sequence[Engine], *, name: str | None, tier: str | None, family: str | None, backend: str | None, gpu: bool
) -> Engine:
    """The engine of that name, or the newest of the tier that runs on such hardware; UsageError lists what there is."""
    if name is not None:
        found = [e for e in engines if e.name == name]
    else:
        found = [e for e in engines if (e.spec.requirements.gpu is not None) == gpu and e.spec.tier == tier]
        found = [e for e in found if family in (None, e.spec.family) and backend in (None, e.spec.backend)]
    if not found:
        asked = name or " ".join(filter(None, [family, tier, backend, "on GPU" if gpu else "on CPU (--memory)"]))
        raise UsageError(f"No engine {asked!r} in the catalog; {_known(engines)}")
    measured = [e for e in found if e.spec.reference.measured] or found
    return max(measured, key=lambda e: (version_key(e.spec.version), -_PREFERRED.index(e.spec.backend)))


def _known(engines: Sequence[Engine]) -> str:
    on_gpu = ", ".join(e.name for e in engines if e.spec.requirements.gpu is not None) or "none"
    on_cpu = ", ".join(e.name for e in engines if e.spec.requirements.gpu is None) or "none"
    return f"on GPU there are: {on_gpu}; on CPU, asked by --memory: {on_cpu}"


def places_for(gpu: str | None, memory: str | None) -> list[Place]:
    """One GPU, one amount of memory, or, where nothing is named, every GPU of the table."""
    if memory is not None:
        try:
            size = bytes_of(memory)
        except ValueError as error:
            raise UsageError(f"--memory: {error}") from error
        if size < MIB:
            raise UsageError(f"--memory: {memory} is less than 1Mi; give it with its unit, such as 4Gi")
        return [Place(f"a node with {memory} for it", size)]
    if gpu is None:
        return [Place(row.name, row.usable_bytes, row) for row in list_gpus()]
    row = find_accelerator(gpu)
    if row is None:
        known = ", ".join(sorted(r.name for r in TABLE))
        raise UsageError(f"--gpu {gpu!r}: {NOT_KNOWN}; it has: {known}")
    return [Place(row.name, row.usable_bytes, row)]


def fit_command(
    tier: Annotated[Tier | None, typer.Option("--tier", help="full (12B), lite (3B) or edge (0.7B).")] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=16, help="Tokens of prompt and answer. Default: the engine's own.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Requests at once. Default: the most that fit, up to the best.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="Name or product label, such as L40S or H100-MIG-3g.40gb. Default: each in turn."),
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, max=64, help="Split the model over so many.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Fit into this much memory instead, such as 8Gi: an engine on CPU.")
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=0, help="Tokens that a layer keeps; 0 is full attention.")
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="An engine by its name, instead of --tier.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Model family, such as r1plus or smollm2.")] = None,
    backend: Annotated[
        Backend | None, typer.Option("--backend", help="Default: what is measured, then tensorrtllm, vllm, tensorrt.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table or json.")] = "table",
    catalog: Annotated[Path, typer.Option("--catalog", help="Folder with R1PlusEngines.")] = local.SHIPPED_CATALOG,
) -> None:
    """Tell how much memory an engine needs, and which batch and context fit. Needs no cluster.

    total = weights + KV cache (batch × context) + activations + runtime, for each GPU. Memory is what a GPU really
    offers, not what its name promises. **maxBatch** is the most requests of that context that fit, at most the
    engine's best; **maxContext** the longest context at that batch. Exit status 1 if the wish does not fit.

    What fits where: `r1plus fit --tier full`

    One wish: `r1plus fit --tier full --context 65536 --batch 32 --gpu L40S -o json`

    What if: `r1plus fit --tier full --window 0 --gpu H100 --gpus 4`  (full attention, four GPUs)

    On CPU: `r1plus fit --engine smollm2-full-f16 --memory 4Gi`
    """
    if output not in ("table", "json"):
        raise UsageError(f"--output: {output!r} is neither table nor json")
    if (tier is None) == (engine is None):
        raise UsageError("Give either --tier or --engine")
    if gpu is not None and memory is not None:
        raise UsageError("Give either --gpu or --memory")
    engines = local.engines_in(catalog)
    chosen = engine_for(engines, name=engine, tier=tier, family=family, backend=backend, gpu=memory is None)
    if chosen.spec.requirements.gpu is None and memory is None:
        raise UsageError(f"{chosen.name} runs on CPU: give --memory, such as --memory 4Gi")
    _require_possible(chosen, gpus, window)
    shape = _as_asked(chosen.spec.shape, gpus, window)
    answers = [answer(chosen, shape, place, batch, context) for place in places_for(gpu, memory)]
    _print(answers, output, one=gpu is not None or memory is not None)
    raise typer.Exit(0 if any(not a.refused for a in answers) else 1)


def _require_possible(engine: Engine, gpus: int | None, window: int | None) -> None:
    """Refuse a `what if` that no backend on CPU can be."""
    if engine.spec.backend is not Backend.OPENVINO:
        return
    if window:
        told = f"{engine.name} runs on CPU, where every layer keeps all tokens (backend openvino)"
        raise UsageError(f"--window {window}: {told}; leave it out, or bound the tokens by --context {window}")
    if gpus is not None:
        raise UsageError(f"--gpus {gpus}: {engine.name} runs on CPU; leave it out")


def _as_asked(shape: EngineShape, gpus: int | None, window: int | None) -> EngineShape:
    """The engine's shape, with what if."""
    if window is not None:
        shape = replace(shape, window=window or None)
    return replace(shape, devices=gpus) if gpus else shape


def _print(answers: list[Answer], output: str, *, one: bool) -> None:
    if output == "json":
        documents = [a.document() for a in answers]
        sys.stdout.write(json.dumps(documents[0] if one else documents, indent=2) + "\n")
        return
    console = Console(soft_wrap=not sys.stdout.isatty())
    if one:
        _tell(console, answers[0])
    else:
        _compare(console, answers)


def _tell(console: Console, said: Answer) -> None:
    """One answer, the sum as it is added up on paper."""
    verdict = Text("fits", style="green") if not said.refused else Text("does not fit", style="red")
    on = f"{said.asked.devices} x {said.place.name}" if said.asked.devices > 1 else said.place.name
    wish = f": batch {said.asked.batch} x {said.asked.context} tokens on {on}: "
    console.print(Text(said.engine.name, style="bold") + Text(wish) + verdict)
    table = Table.grid(padding=(0, 2))
    rows = [*terms(said.asked).items(), ("total", _gib(said.asked.total_bytes))]
    for name, gib in rows:
        table.add_row("", _WORDS.get(name, name), Text(f"{gib:.2f} GiB", justify="right"))
    if said.asked.devices > 1:
        table.add_row("", "on each", Text(f"{_gib(said.asked.device_bytes):.2f} GiB", justify="right"))
    table.add_row("", "usable", Text(f"{_gib(said.place.memory_bytes):.2f} GiB", justify="right"))
    console.print(table)
    if said.refused:
        console.print(Text(f"  {said.refused}"))
        if near := " or ".join(f"batch {n.batch} x {n.context} tokens" for n in said.nearest):
            console.print(Text(f"  nearest that fits: {near}"))
        return
    most = f"most requests at once of that context: {said.max_batch}"
    console.print(Text(f"  {most}; longest context at that batch: {said.max_context} tokens"))


_WORDS = {
    "weightsGiB": "weights",
    "kvCacheGiB": "KV cache",
    "activationsGiB": "activations",
    "runtimeGiB": "runtime",
}


def _compare(console: Console, answers: list[Answer]) -> None:
    """One engine on every GPU of the table."""
    console.print(Text(f"{answers[0].engine.name}, batch and context on each GPU", style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("GPU", "USABLE", "FITS", "MAX BATCH", "MAX CONTEXT", "NEEDS"):
        table.add_column(name, justify="left" if name in ("GPU", "FITS") else "right", no_wrap=True)
    for said in answers:
        table.add_row(
            f"{said.asked.devices} x {said.place.name}" if said.asked.devices > 1 else said.place.name,
            f"{_gib(said.place.memory_bytes):.1f} GiB",
            "no" if said.refused else "yes",
            str(said.max_batch),
            str(said.max_context),
            f"{said.asked.batch} x {said.asked.context}: {_gib(said.asked.device_bytes):.1f} GiB",
        )
    console.print(table)
