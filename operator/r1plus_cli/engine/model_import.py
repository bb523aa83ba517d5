"""`r1plus engine import`: from a model's file or folder to an engine of the catalog."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from r1plus_cli.engine.output import report_import, report_progress, translate_import_errors
from r1plus_cli.errors import UsageError
from r1plus_cli.options import takes_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportArguments:
    """The options of `r1plus engine import`."""

    source: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="A .gguf file, or a folder: OpenVINO IR, or a checkpoint for GPUs."),
    ]
    name: Annotated[str, typer.Option("--name", help="Name of the engine, such as bank-lite-q8-0.")]
    out: Annotated[Path, typer.Option("--out", help="Folder that receives NAME/.")]
    tier: Annotated[
        str | None, typer.Option("--tier", help="Service level: full, lite or edge. Required for generation.")
    ] = None
    kind: Annotated[
        str, typer.Option("--kind", help="generation: answers prompts. embedding: turns texts into vectors.")
    ] = "generation"
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="What runs it: openvino or torch on CPU, vllm or tensorrtllm on GPUs; vllm on CPU with --gpus 0.",
        ),
    ] = "openvino"
    family: Annotated[
        str | None, typer.Option("--family", help="Model family. By default the name up to its first '-'.")
    ] = None
    version: Annotated[str, typer.Option("--version", help="Version of the build; deployments use the newest.")] = (
        "1.0.0"
    )
    image: Annotated[
        str | None,
        typer.Option("--image", help="Image that you will push it as. Default: r1plus.local/engine-NAME:VERSION."),
    ] = None
    suite: Annotated[
        str | None, typer.Option("--suite", help="Golden suite of the engine. Default: FAMILY-TIER-v1.")
    ] = None
    inherited_from: Annotated[
        str | None,
        typer.Option("--inherited-from", help="Engine whose reference it should reach. Default: none."),
    ] = None
    cpu: Annotated[
        str | None,
        typer.Option("--cpu", help="CPU limit of a pod, and threads of the engine. Default: 2, for embedding 1."),
    ] = None
    best_batch: Annotated[
        int | None,
        typer.Option("--best-batch", help="Beyond it throughput hardly grows. Default: 16, on a GPU 32, of torch 4."),
    ] = None
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="Largest batch of a deployment. Default: 32, on a GPU 64, of torch 8."),
    ] = None
    weights_memory: Annotated[
        str | None, typer.Option("--weights-memory", help="Measurement memory, such as 800Mi. Default: an estimate.")
    ] = None
    runtime_memory: Annotated[
        str | None,
        typer.Option(
            "--runtime-memory",
            help="Measurement memory of server and backend, on CPU with activations. Default: an estimate.",
        ),
    ] = None
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", help="GPUs of one pod; vllm splits the model over them, 0: it runs on CPU. Default: 1."),
    ] = None
    gpu_product: Annotated[
        list[str] | None,
        typer.Option("--gpu-product", help="GPU that it is for, as in the label nvidia.com/gpu.product; repeatable."),
    ] = None
    max_num_tokens: Annotated[
        int | None, typer.Option("--max-num-tokens", help="Tokens in one step of a tensorrtllm build. Default: 8192.")
    ] = None
    sparse_threshold: Annotated[
        float | None,
        typer.Option(
            "--sparse-threshold",
            help="Read prompts with XAttention: the share of attention that is read, such as 0.9. Default: all.",
        ),
    ] = None
    evict: Annotated[
        str | None,
        typer.Option(
            "--evict",
            help="Tokens of a request that the KV cache keeps while it generates: START,RECENT,MAX such as"
            " 32,512,2048. Default: all.",
        ),
    ] = None
    context: Annotated[
        int | None,
        typer.Option("--context", help="Context length, if the model does not have it, or to reduce it."),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="Precision of a DIR's weights, such as INT8, if it does not have it."),
    ] = None
    parameters: Annotated[
        int | None, typer.Option("--parameters", help="Number of weights, if DIR does not have it.")
    ] = None

    @property
    def family_name(self) -> str:
        """The model family; by default the name up to its first hyphen."""
        return self.family if self.family is not None else self.name.partition("-")[0]


@takes_arguments(ImportArguments)
def import_command(arguments: ImportArguments) -> None:
    """Turn a model into an engine: the files for pods, a Containerfile for an image, and the R1PlusEngine.

    OUT/NAME/ has engine/ (with its provenance in engine.json), Containerfile and engine.yaml. It appears when it is
    complete. If the model cannot be served, the exit status is 1 and nothing is written.

    Example: `r1plus engine import SmolLM2-135M.Q8_0.gguf --name smol-lite-q8-0 --tier lite --out engines`

    For GPUs, **vllm** needs a Hugging Face checkpoint in safetensors. **tensorrtllm** needs DIR/tokenizer and either
    DIR/checkpoint (of convert_checkpoint.py; a Job builds it on the GPU that serves it) or DIR/plan (of trtllm-build)
    with **--gpu-product**. Weights are hard-linked if possible. Pickles and a model's own code are rejected.

    Example: `r1plus engine import Qwen3-8B --backend vllm --name bank-full --tier full --out engines`

    With **--sparse-threshold** or **--evict** openvino leaves tokens out of a long prompt's attention. It changes
    answers, so such an engine has a gate of its own; give it another name and another **--family** than the dense one.

    With **--gpus 0** vllm serves the checkpoint on CPU, in 32 bits, if the cluster has an image with vLLM for CPU.

    **torch** serves R1+'s own architecture, or a Llama, on one machine for few users: docs/model.md.

    Example: `r1plus engine import healed --backend torch --name r1-edge --tier edge --out engines`

    With **--kind embedding**, DIR is a sentence-transformers model of the BERT family in safetensors. The engine serves
    `/v1/embeddings` in the pods of a tenant's gateway.

    Example: `r1plus engine import all-MiniLM-L6-v2 --kind embedding --name bank-embed --out engines`
    """
    imports = {"generation": _import_generation, "embedding": _import_embedding}
    if arguments.kind not in imports:
        raise UsageError(f"--kind: {arguments.kind!r:.40} is not one of {', '.join(imports)}")
    imports[arguments.kind](arguments)


def _import_generation(arguments: ImportArguments) -> None:
    if arguments.tier is None:
        raise UsageError("--tier: missing; give full, lite or edge")
    with translate_import_errors():
        from r1plus_model_repo.importing.engine import import_engine
        from r1plus_model_repo.importing.model import Claims
        from r1plus_model_repo.importing.package.manifest import ImportOptions

        options = ImportOptions(
            name=arguments.name,
            tier=arguments.tier,
            family=arguments.family_name,
            version=arguments.version,
            image=arguments.image,
            suite=arguments.suite,
            inherited_from=arguments.inherited_from,
            cpu=arguments.cpu or "2",
            best_batch=arguments.best_batch,
            max_batch=arguments.max_batch,
            weights_memory=arguments.weights_memory,
            runtime_memory=arguments.runtime_memory,
            backend=arguments.backend,
            gpus=arguments.gpus,
            gpu_products=tuple(arguments.gpu_product or ()),
            max_num_tokens=arguments.max_num_tokens,
            sparse_threshold=arguments.sparse_threshold,
            eviction=_parse_eviction(arguments.evict),
        )
        claims = Claims(arguments.context, arguments.parameters, arguments.precision)
        with _name_wrong_options():
            result = import_engine(arguments.source, arguments.out, options, claims, report_progress)
    report_import(result)


def _import_embedding(arguments: ImportArguments) -> None:
    _check_foreign_options(arguments)
    with translate_import_errors():
        from r1plus_model_repo.importing.embedding.engine import EmbeddingOptions, import_embedding_engine

        options = EmbeddingOptions(
            arguments.name,
            arguments.family_name,
            arguments.version,
            arguments.image,
            arguments.cpu or "1",
            arguments.weights_memory,
            arguments.runtime_memory,
        )
        with _name_wrong_options():
            result = import_embedding_engine(arguments.source, arguments.out, options, report_progress)
        report_import(result)


def _parse_eviction(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--evict: {text!r:.40} is not START,RECENT,MAX in tokens, such as 32,512,2048")
    start, recent, most = map(int, parts)
    return start, recent, most


def _check_foreign_options(arguments: ImportArguments) -> None:
    """Refuse options that mean nothing for an engine of kind embedding."""
    values: Mapping[str, object] = {
        "--tier": arguments.tier,
        "--suite": arguments.suite,
        "--inherited-from": arguments.inherited_from,
        "--best-batch": arguments.best_batch,
        "--max-batch": arguments.max_batch,
        "--gpus": arguments.gpus,
        "--gpu-product": arguments.gpu_product,
        "--max-num-tokens": arguments.max_num_tokens,
        "--sparse-threshold": arguments.sparse_threshold,
        "--evict": arguments.evict,
        "--context": arguments.context,
        "--precision": arguments.precision,
        "--parameters": arguments.parameters,
        "--backend": arguments.backend if arguments.backend != "openvino" else None,
    }
    if foreign := [option for option, value in values.items() if value]:
        raise UsageError(f"{', '.join(foreign)}: not for --kind embedding; leave them out")


_OPTIONS: Final = {
    "metadata.name": "--name",
    "spec.family": "--family",
    "spec.tier": "--tier",
    "spec.version": "--version",
    "spec.artifact.image": "--image",
    "spec.reference.suite": "--suite",
    "spec.reference.inheritedFrom": "--inherited-from",
    "spec.requirements.cpu": "--cpu",
    "spec.requirements.weightsMemory": "--weights-memory",
    "spec.requirements.runtimeMemory": "--runtime-memory",
    "spec.batch.best": "--best-batch",
    "spec.batch.max": "--max-batch",
    "spec.batch": "--best-batch",
    "spec.backend": "--backend",
    "spec.requirements.gpu.count": "--gpus",
    "spec.requirements.gpu.products": "--gpu-product",
    "spec.build.maxNumTokens": "--max-num-tokens",
    "spec.attention.sparse.threshold": "--sparse-threshold",
    "spec.attention.eviction": "--evict",
    "spec.attention.eviction.startTokens": "--evict",
    "spec.attention.eviction.recentTokens": "--evict",
    "spec.attention.eviction.maxTokens": "--evict",
    "spec.precision": "--precision",
    "spec.architecture.parameters": "--parameters",
    "spec.architecture.contextLength": "--context",
}
"""Field of the R1PlusEngine -> the option that sets it."""


@contextmanager
def _name_wrong_options() -> Iterator[None]:
    """Name the options of an import's problems, instead of the fields of the R1PlusEngine."""
    from r1plus_model_repo.importing.options import ImportOptionsError

    try:
        yield
    except ImportOptionsError as error:
        raise UsageError("\n".join(_name_options(error.problems))) from error


def _name_options(problems: tuple[str, ...]) -> list[str]:
    lines = []
    for problem in problems:
        field, colon, what = problem.partition(": ")
        # A list has a position: spec.requirements.gpu.products.0.
        lines.append(f"{_OPTIONS.get(field.rstrip('.0123456789'), field)}{colon}{what}")
    return lines
