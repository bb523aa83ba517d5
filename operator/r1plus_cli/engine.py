"""`r1plus engine`: from a model's file to an engine of the catalog. Words in, calls to the importing room out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.hints import as_typed

app = typer.Typer(
    name="engine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Makes engines: a model's file or folder becomes what pods load, and an R1PlusEngine that says what it is.

1. `r1plus engine quantize model-F16.gguf --to Q8_0 --out model-Q8_0.gguf` for another precision, if you want one
2. `r1plus engine import model-Q8_0.gguf --name bank-lite --tier lite --image REGISTRY/bank-lite:1.0.0 --out engines`
3. `podman build -t REGISTRY/bank-lite:1.0.0 engines/bank-lite` and push it
4. `kubectl apply -f engines/bank-lite/engine.yaml`, then `spec.engine.family: bank` in a deployment

A checkpoint for GPUs is taken as it is: `r1plus engine import DIR --backend vllm` (a Hugging Face checkpoint) or
`--backend tensorrtllm` (DIR/checkpoint and DIR/tokenizer). What it fits: `r1plus fit --engine NAME --catalog OUT/NAME`.

Nothing is believed of a file: layers, heads, context, precision and chat template are read from it, and what would not
be served is refused with field, value and remedy. docs/engines.md tells more.
""",
)


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="A .gguf file, or a folder: OpenVINO IR, or a checkpoint for GPUs."),
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the engine, such as bank-lite-q8-0.")],
    tier: Annotated[str, typer.Option("--tier", help="What it is made for: full, lite or edge.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives NAME/.")],
    backend: Annotated[
        str, typer.Option("--backend", help="What runs it: openvino on CPU, vllm or tensorrtllm on GPUs.")
    ] = "openvino",
    family: Annotated[
        str | None, typer.Option("--family", help="Model family. By default the name up to its first '-'.")
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Of the build; deployments take the newest.")] = "1.0.0",
    image: Annotated[
        str | None,
        typer.Option("--image", help="Image that you will push it as. Default: r1plus.local/engine-NAME:VERSION."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Golden suite that it is held to. Default: FAMILY-TIER-v1.")
    ] = None,
    inherited_from: Annotated[
        str | None,
        typer.Option("--inherited-from", help="Engine whose reference it claims to reach; without it, it claims none."),
    ] = None,
    cpu: Annotated[str, typer.Option("--cpu", help="CPU limit of a pod, and threads of the engine.")] = "2",
    best_batch: Annotated[
        int | None,
        typer.Option("--best-batch", help="Beyond it throughput hardly grows. Default: 16, on a GPU 32."),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="Largest batch a deployment may ask for. Default: 32, on a GPU 64."),
    ] = None,
    weights_memory: Annotated[
        str | None, typer.Option("--weights-memory", help="As measured, such as 800Mi. Default: estimated.")
    ] = None,
    runtime_memory: Annotated[
        str | None,
        typer.Option(
            "--runtime-memory", help="Server and backend, on CPU activations, too, as measured. Default: an estimate."
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="Of one pod; vllm splits it over them. Default: 1.")
    ] = None,
    gpu_product: Annotated[
        list[str] | None,
        typer.Option("--gpu-product", help="GPU it is for, as the label nvidia.com/gpu.product says; repeatable."),
    ] = None,
    max_num_tokens: Annotated[
        int | None, typer.Option("--max-num-tokens", help="Tokens in one step of a tensorrtllm build. Default: 8192.")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", help="Context length, where the model does not say it, or less than it says."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Of a DIR's weights, such as INT8, where it does not say it.")
    ] = None,
    parameters: Annotated[int | None, typer.Option("--parameters", help="Number of its weights, likewise.")] = None,
) -> None:
    """Turn a model into an engine: the files for pods, what an image is built from, and the R1PlusEngine.

    OUT/NAME/ holds engine/ (with engine.json: what it was made from, and by), Containerfile and engine.yaml. It is
    there when it is whole. Exit status 1, and nothing is written, if the model would not be served.

    Example: `r1plus engine import SmolLM2-135M.Q8_0.gguf --name smol-lite-q8-0 --tier lite --out engines`

    For GPUs **vllm** takes a Hugging Face checkpoint in safetensors; **tensorrtllm** takes DIR/checkpoint (of
    convert_checkpoint.py; a Job builds it on the GPU that serves it) and DIR/tokenizer, or DIR/plan (of trtllm-build)
    and DIR/tokenizer with **--gpu-product**. Weights are hard-linked where that can be. Pickles and a model's own code
    are refused.

    Example: `r1plus engine import Qwen3-8B --backend vllm --name bank-full --tier full --out engines`
    """
    with _importing():
        from r1plus_model_repo.importing.engine import import_engine
        from r1plus_model_repo.importing.model import Claims
        from r1plus_model_repo.importing.package.manifest import ImportOptions, ImportOptionsError

        wish = ImportOptions(
            name=name,
            tier=tier,
            family=family if family is not None else name.partition("-")[0],
            version=version,
            image=image,
            suite=suite,
            inherited_from=inherited_from,
            cpu=cpu,
            best_batch=best_batch,
            max_batch=max_batch,
            weights_memory=weights_memory,
            runtime_memory=runtime_memory,
            backend=backend,
            gpus=gpus,
            gpu_products=tuple(gpu_product or ()),
            max_num_tokens=max_num_tokens,
        )
        try:
            made = import_engine(source, out, wish, Claims(context, parameters, precision), _progress)
        except ImportOptionsError as error:
            raise UsageError("\n".join(_as_options(error.problems))) from error
    for note in made.notes:
        _say(f"Note: {note}", style="yellow")
    _say(f"{made.folder}: sha256 {made.sha256}", style="green")
    _say("Next:")
    for line in (
        f"podman build -t {made.image} {made.folder}",
        f"podman push {made.image}",
        f"kubectl apply -f {made.folder / 'engine.yaml'}",
    ):
        sys.stdout.write(as_typed(line) + "\n")


@app.command("quantize")
def quantize_command(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .gguf file.")],
    to: Annotated[str, typer.Option("--to", help="F16, Q8_0, Q4_0 or Q4_1.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
) -> None:
    """Write a GGUF file in another precision; tokenizer, chat template and norms stay as they are.

    Whatever is stored in fewer bits loses, and what comes from a quantised file has lost already: quantise the F16
    file, and let a golden suite tell what it costs. The same file gives the same bytes.

    Example: `r1plus engine quantize model-F16.gguf --to Q8_0 --out model-Q8_0.gguf`
    """
    with _importing():
        from r1plus_contract.delivery import file_sha256
        from r1plus_model_repo.importing.gguf.requantise import Precision, requantise

        if to not in Precision.__members__:
            raise UsageError(f"--to: {to!r:.40} is not one of {', '.join(Precision.__members__)}")
        if out.exists():
            raise UsageError(f"--out: {out} is there already; remove it, or give another name")
        if not out.parent.is_dir():
            raise UsageError(f"--out: {out.parent} is no folder; make it first")
        requantise(source, out, Precision[to], _progress)
        _say(f"{out}: {out.stat().st_size / 2**20:.0f} MiB, sha256 {file_sha256(out)}", style="green")


@app.command("sign")
def sign_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `r1plus engine import` wrote.")],
    key: Annotated[Path, typer.Option("--key", help="Private key, PEM, on curve P-256, P-384 or P-521.")],
) -> None:
    """Vouch for an engine's files: FOLDER/model.sig, in the OpenSSF Model Signing format.

    An engine that comes by a volume must be signed by a key in the chart's delivery.trustedKeys. A key pair:
    `openssl ecparam -name prime256v1 -genkey -noout -out signing.pem`, `openssl ec -in signing.pem -pubout`.

    Example: `r1plus engine sign engines/bank-lite --key signing.pem`
    """
    with _importing():
        from r1plus_model_repo.importing.package.signature import sign

        _say(f"{sign(folder, key)}: signed", style="green")


@app.command("pack")
def pack_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `r1plus engine import` wrote.")],
    url: Annotated[str, typer.Option("--url", help="Where you will put the archive: an https address.")],
) -> None:
    """Pack an engine, with its signature if it has one, into a tar that a Job fetches onto a volume.

    Writes FOLDER/NAME.tar, and into FOLDER/engine.yaml the address, the sha256 and the size instead of the image.

    Example: `r1plus engine pack engines/bank-lite --url https://artifacts.bank.example/bank-lite.tar`
    """
    with _importing():
        from r1plus_model_repo.importing.package.archive import pack

        made = pack(folder, url)
    if not made.signed:
        _say(f"Note: {folder / 'model.sig'} is missing; r1plus engine sign makes it", style="yellow")
    _say(f"{made.tar}: sha256 {made.sha256}", style="green")
    _say("Next:")
    for line in (f"put {made.tar} at {url}", f"kubectl apply -f {made.manifest}"):
        sys.stdout.write(as_typed(line) + "\n")


@contextmanager
def _importing() -> Iterator[None]:
    """What goes wrong in the importing room, as the command line tells it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed, which making engines needs: in a clone, pip install '.[cli,engine]'"
        ) from error
    except OSError as error:
        raise CliError(f"{error.filename or 'A file'}: {error.strerror or error}; nothing was left behind") from error
    except RuntimeError as error:
        from r1plus_model_repo.importing.errors import ImportingError

        if not isinstance(error, ImportingError):
            raise
        raise CliError(str(error)) from error


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
    "spec.precision": "--precision",
    "spec.architecture.parameters": "--parameters",
    "spec.architecture.contextLength": "--context",
}
"""A field of the R1PlusEngine is what an option says."""


def _as_options(problems: tuple[str, ...]) -> list[str]:
    told = []
    for problem in problems:
        field, colon, what = problem.partition(": ")
        # Of a list the position is told, too: spec.requirements.gpu.products.0.
        told.append(f"{_OPTIONS.get(field.rstrip('.0123456789'), field)}{colon}{what}")
    return told


def _progress(line: str) -> None:
    _say(line, style="dim")


def _say(line: str, style: str = "") -> None:
    """To people: standard error, so that standard output stays for commands to run."""
    Console(stderr=True, soft_wrap=True).print(Text(line, style=style))
