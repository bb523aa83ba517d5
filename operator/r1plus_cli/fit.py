"""`r1plus fit`: an engine's memory term by term, and which batch and context fit which hardware. Needs no cluster.

It uses the function of the operator's plan, for any hardware.
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
from r1plus_policies.engine.hardware import Gpus, place_engine
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

UNKNOWN_GPU = "not in the table of GPUs (for another GPU give --engine and its --memory, such as 22Gi)"
_BACKEND_ORDER = (Backend.OPENVINO, Backend.TORCH, Backend.TENSORRT_LLM, Backend.VLLM, Backend.TENSORRT)


@dataclass(frozen=True, slots=True)
class FitTarget:
    """Hardware to fit into: its name, bytes per device, and the GPU if it is one."""

    name: str
    memory_bytes: int
    gpu: Accelerator | None = None


@dataclass(frozen=True, slots=True)
class FitAnswer:
    """The result for one engine on one hardware."""

    engine: Engine
    hardware: FitTarget
    requested: Fit
    """The requested batch and context, even if they do not fit."""
    refusal: str
    """Why they do not fit; empty if they do."""
    max_batch: int
    max_context: int
    nearest: tuple[Fit, ...]

    def to_document(self) -> dict[str, Any]:
        """Return the document for `-o json`. GiB, over all devices unless the name says otherwise."""
        return {
            "engine": self.engine.name,
            "hardware": self.hardware.name,
            "devices": self.requested.devices,
            "usableGiBPerDevice": _to_gib(self.hardware.memory_bytes),
            "batch": self.requested.batch,
            "context": self.requested.context,
            "fits": not self.refusal,
            "maxBatch": self.max_batch,
            "maxContext": self.max_context,
            "totalGiB": _to_gib(self.requested.total_bytes),
            "perDeviceGiB": _to_gib(self.requested.device_bytes),
            "terms": list_terms(self.requested),
            "nearest": [
                {"batch": n.batch, "context": n.context, "totalGiB": _to_gib(n.total_bytes)} for n in self.nearest
            ],
            "reason": self.refusal,
        }


def list_terms(result: Fit) -> dict[str, float]:
    """Return the terms of the sum in GiB; they add up to `totalGiB` except for rounding."""
    return {
        "weightsGiB": _to_gib(result.weights_bytes),
        "kvCacheGiB": _to_gib(result.kv_cache_bytes),
        "activationsGiB": _to_gib(result.activation_bytes),
        "runtimeGiB": _to_gib(result.runtime_bytes),
    }


def _to_gib(count: int) -> float:
    return round(count / GIB, 2)


def answer_fit(
    engine: Engine, shape: EngineShape, hardware: FitTarget, batch: int | None, context: int | None
) -> FitAnswer:
    """Fit a request. Defaults are the engine's best batch and its own context."""
    memory = 0 if (unfit_reason := _explain_unfit(engine, shape, hardware)) else hardware.memory_bytes
    result = fit_memory(shape, batch=batch, context=context, memory_bytes=memory, where=hardware.name)
    tokens = min(context or shape.context_length, shape.context_length)
    largest = 0 if explain_uneven_split(shape) else min(shape.best_batch, find_largest_batch(shape, tokens, memory))
    request = compute_fit(shape, batch or max(largest, 1), context or shape.context_length)
    if isinstance(result, Fit):
        return FitAnswer(engine, hardware, result, "", largest, find_longest_context(shape, largest, memory), ())
    longest = find_longest_context(shape, largest, memory) if largest else 0
    near = find_nearest_fits(shape, request.batch, request.context, memory)
    return FitAnswer(
        engine, hardware, request, unfit_reason or _name_options(result.message, hardware), largest, longest, near
    )


def _name_options(message: str, hardware: FitTarget) -> str:
    """Replace fields of an R1PlusDeployment by options of this command in a message of the policy."""
    larger = "use more memory" if hardware.gpu is None else "use a larger GPU, or more of them by --gpus"
    words = {
        "spec.context.maxTokens": "--context",
        "spec.batching.maxBatchSize": "--batch",
        "spec.engine: ": "",
        "add a larger node": larger,
    }
    for field, option in words.items():
        message = message.replace(field, option)
    return message


def _explain_unfit(engine: Engine, shape: EngineShape, hardware: FitTarget) -> str:
    """Return why the engine does not run on such GPUs, independent of memory."""
    gpu = hardware.gpu
    if gpu is None:
        return ""
    need = replace(read_gpu_need(engine), count=shape.devices)
    placement = place_engine(need, [Gpus(gpu.products[0], shape.devices, gpu.reported_mib, gpu.capability)])
    return f"{placement}; use another GPU: without --gpu all are listed" if isinstance(placement, str) else ""


def select_engine(
    engines: Sequence[Engine], *, name: str | None, tier: str | None, family: str | None, backend: str | None, gpu: bool
) -> Engine:
    """Return the engine of that name, or the newest of the tier for such hardware. UsageError lists the catalog."""
    if name is not None:
        matches = [e for e in engines if e.name == name]
    else:
        matches = [e for e in engines if (e.spec.requirements.gpu is not None) == gpu and e.spec.tier == tier]
        matches = [e for e in matches if family in (None, e.spec.family) and backend in (None, e.spec.backend)]
    if not matches:
        description = name or " ".join(filter(None, [family, tier, backend, "on GPU" if gpu else "on CPU (--memory)"]))
        raise UsageError(f"No engine {description!r} in the catalog; {_describe_catalog(engines)}")
    measured_matches = [e for e in matches if e.spec.reference.measured] or matches
    return max(measured_matches, key=lambda e: (version_key(e.spec.version), -_BACKEND_ORDER.index(e.spec.backend)))


def _describe_catalog(engines: Sequence[Engine]) -> str:
    on_gpu = ", ".join(e.name for e in engines if e.spec.requirements.gpu is not None) or "none"
    on_cpu = ", ".join(e.name for e in engines if e.spec.requirements.gpu is None) or "none"
    return f"on GPU: {on_gpu}; on CPU, with --memory: {on_cpu}"


def list_hardware(gpu: str | None, memory: str | None) -> list[FitTarget]:
    """Return one GPU, one amount of memory, or without a name all GPUs of the table."""
    if memory is not None:
        try:
            size = bytes_of(memory)
        except ValueError as error:
            raise UsageError(f"--memory: {error}") from error
        if size < MIB:
            raise UsageError(f"--memory: {memory} is less than 1Mi; give it with its unit, such as 4Gi")
        return [FitTarget(f"a node with {memory} for it", size)]
    if gpu is None:
        return [FitTarget(row.name, row.usable_bytes, row) for row in list_gpus()]
    row = find_accelerator(gpu)
    if row is None:
        known_names = ", ".join(sorted(r.name for r in TABLE))
        raise UsageError(f"--gpu {gpu!r}: {UNKNOWN_GPU}; known: {known_names}")
    return [FitTarget(row.name, row.usable_bytes, row)]


def fit_command(
    tier: Annotated[Tier | None, typer.Option("--tier", help="full (12B), lite (3B) or edge (0.7B).")] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", min=16, help="Tokens of prompt and answer. Default: the engine's context length."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Requests at once. Default: the most that fit, up to the engine's best."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="Name or product label, such as L40S or H100-MIG-3g.40gb. Default: each in turn."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, max=64, help="Split the model over this many GPUs.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Fit an engine on CPU into this much memory, such as 8Gi.")
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=0, help="Tokens that a layer keeps; 0 means full attention.")
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="An engine by name, instead of --tier.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Model family, such as r1plus or smollm2.")] = None,
    backend: Annotated[
        Backend | None, typer.Option("--backend", help="Default: a measured engine, then tensorrtllm, vllm, tensorrt.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table or json.")] = "table",
    catalog: Annotated[Path, typer.Option("--catalog", help="Folder with R1PlusEngines.")] = local.SHIPPED_CATALOG,
) -> None:
    """Show how much memory an engine needs, and which batch and context fit. Needs no cluster.

    total = weights + KV cache (batch × context) + activations + runtime, for each GPU. Memory is what the GPU reports,
    not its nominal size. **maxBatch** is the largest number of requests of that context that fit, at most the engine's
    best; **maxContext** is the longest context at that batch. Exit status 1 if the request does not fit.

    All hardware: `r1plus fit --tier full`

    One request: `r1plus fit --tier full --context 65536 --batch 32 --gpu L40S -o json`

    What if: `r1plus fit --tier full --window 0 --gpu H100 --gpus 4`  (full attention, four GPUs)

    On CPU: `r1plus fit --engine smollm2-full-f16 --memory 4Gi`
    """
    if output not in ("table", "json"):
        raise UsageError(f"--output: {output!r} is neither table nor json")
    if (tier is None) == (engine is None):
        raise UsageError("Give either --tier or --engine")
    if gpu is not None and memory is not None:
        raise UsageError("Give either --gpu or --memory")
    engines = local.load_engines(catalog, family)
    selected = select_engine(engines, name=engine, tier=tier, family=family, backend=backend, gpu=memory is None)
    if selected.spec.requirements.gpu is None and memory is None:
        raise UsageError(f"{selected.name} runs on CPU: give --memory, such as --memory 4Gi")
    _require_possible(selected, gpus, window)
    shape = _apply_overrides(selected.spec.shape, gpus, window)
    answers = [answer_fit(selected, shape, hardware, batch, context) for hardware in list_hardware(gpu, memory)]
    _print_answers(answers, output, one=gpu is not None or memory is not None)
    raise typer.Exit(0 if any(not a.refusal for a in answers) else 1)


def _require_possible(engine: Engine, gpus: int | None, window: int | None) -> None:
    """Reject overrides that no backend on CPU supports."""
    if engine.spec.requirements.gpu is not None:
        return
    if window:
        reason = f"{engine.name} runs on CPU, where every layer gets memory for all tokens"
        raise UsageError(f"--window {window}: {reason}; omit it, or limit the tokens by --context {window}")
    if gpus is not None:
        raise UsageError(f"--gpus {gpus}: {engine.name} runs on CPU; omit it")


def _apply_overrides(shape: EngineShape, gpus: int | None, window: int | None) -> EngineShape:
    """Return the engine's shape with the overrides of the options."""
    if window is not None:
        shape = replace(shape, window=window or None)
    return replace(shape, devices=gpus) if gpus else shape


def _print_answers(answers: list[FitAnswer], output: str, *, one: bool) -> None:
    if output == "json":
        documents = [a.to_document() for a in answers]
        sys.stdout.write(json.dumps(documents[0] if one else documents, indent=2) + "\n")
        return
    console = Console(soft_wrap=not sys.stdout.isatty())
    if one:
        _show_answer(console, answers[0])
    else:
        _show_comparison(console, answers)


def _show_answer(console: Console, result: FitAnswer) -> None:
    """Print one answer with all terms of the sum."""
    verdict = Text("fits", style="green") if not result.refusal else Text("does not fit", style="red")
    on = (
        f"{result.requested.devices} x {result.hardware.name}" if result.requested.devices > 1 else result.hardware.name
    )
    request_text = f": batch {result.requested.batch} x {result.requested.context} tokens on {on}: "
    console.print(Text(result.engine.name, style="bold") + Text(request_text) + verdict)
    table = Table.grid(padding=(0, 2))
    rows = [*list_terms(result.requested).items(), ("total", _to_gib(result.requested.total_bytes))]
    for name, gib in rows:
        table.add_row("", _WORDS.get(name, name), Text(f"{gib:.2f} GiB", justify="right"))
    if result.requested.devices > 1:
        table.add_row("", "on each", Text(f"{_to_gib(result.requested.device_bytes):.2f} GiB", justify="right"))
    table.add_row("", "usable", Text(f"{_to_gib(result.hardware.memory_bytes):.2f} GiB", justify="right"))
    console.print(table)
    if result.refusal:
        console.print(Text(f"  {result.refusal}"))
        if near := " or ".join(f"batch {n.batch} x {n.context} tokens" for n in result.nearest):
            console.print(Text(f"  nearest that fits: {near}"))
        return
    capacity = f"largest batch at that context: {result.max_batch}"
    console.print(Text(f"  {capacity}; longest context at that batch: {result.max_context} tokens"))


_WORDS = {
    "weightsGiB": "weights",
    "kvCacheGiB": "KV cache",
    "activationsGiB": "activations",
    "runtimeGiB": "runtime",
}


def _show_comparison(console: Console, answers: list[FitAnswer]) -> None:
    """Print one engine on every GPU of the table."""
    console.print(Text(f"{answers[0].engine.name}, batch and context on each GPU", style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("GPU", "USABLE", "FITS", "MAX BATCH", "MAX CONTEXT", "NEEDS"):
        table.add_column(name, justify="left" if name in ("GPU", "FITS") else "right", no_wrap=True)
    for result in answers:
        table.add_row(
            f"{result.requested.devices} x {result.hardware.name}"
            if result.requested.devices > 1
            else result.hardware.name,
            f"{_to_gib(result.hardware.memory_bytes):.1f} GiB",
            "no" if result.refusal else "yes",
            str(result.max_batch),
            str(result.max_context),
            f"{result.requested.batch} x {result.requested.context}: {_to_gib(result.requested.device_bytes):.1f} GiB",
        )
    console.print(table)
    for result in answers:
        if result.refusal and result.requested.device_bytes <= result.hardware.memory_bytes:
            console.print(Text(f"{result.hardware.name}: {result.refusal.partition(';')[0]}"))
