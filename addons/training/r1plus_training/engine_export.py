"""`r1plus engine export`: an engine as a folder of another ecosystem that generates text.

It parses options and calls `r1plus_export`, whose targets need heavy packages: they are imported when they run.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1plus_cli.engine.output import report_progress, say
from r1plus_cli.errors import CliError
from r1plus_cli.library_errors import translate_errors
from r1plus_cli.local import SHIPPED_SUITES
from r1plus_cli.suite import storage
from r1plus_contract.suites.suite import Suite

if TYPE_CHECKING:
    from r1plus_export.export import Export
    from r1plus_export.source import ExportedEngine


def export_command(
    engine: Annotated[
        str,
        typer.Argument(
            metavar="ENGINE", help="Folder that `r1plus engine import` or `make` wrote, or a shipped engine's name."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="hf, onnx or keras.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    suite: Annotated[
        Path | None,
        typer.Option("--suite", help="Folder of the engine's golden suite. Default: the shipped one that it names."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="The .gguf file that the engine was made of. Shipped engines fetch theirs."),
    ] = None,
    items: Annotated[int, typer.Option("--items", help="Items of the suite that are asked; all if it has fewer.")] = 50,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="hf: F16 (default) or F32. onnx: F32 (default) or INT4. keras: F32."),
    ] = None,
) -> None:
    """Write an engine as a folder that another library loads, and that generates text.

    **hf** is a Hugging Face checkpoint for transformers: `AutoModelForCausalLM.from_pretrained(OUT)`.

    **onnx** is a folder for ONNX Runtime GenAI on CPUs: `onnxruntime_genai.Model(OUT)`, in Python, C#, Java and C++.

    **keras** is r1plus.keras for Keras 3: `tf.keras.models.load_model`, after `import r1plus_export.keras_model`.

    The engine and the folder answer the same sample of the engine's golden suite, judged as the gate judges. If fewer
    answers of the folder are right, the exit status is 1 and nothing is written. OUT/export.json has the figures.

    Needs the extra of the same name, such as `pip install '.[cli,engine,hf]'`. See docs/exports.md.

    Example: `r1plus engine export smollm2-full-f16 --to hf --out smollm2-hf`

    Example: `r1plus engine export smollm2-full-f16 --to onnx --out smollm2-onnx`

    Example: `r1plus engine export smollm2-full-f16 --to keras --out smollm2-keras`

    Example: `r1plus engine export engines/bank-lite --weights bank-Q8_0.gguf --suite bank-v1 --to hf --out bank-hf`
    """
    with _translate_errors(to), _end_on_sigterm():
        from r1plus_edge.start.engines import find_cache
        from r1plus_export.export import ExportRequest, export_engine

        def find_suite(opened: "ExportedEngine") -> tuple[Suite, str]:
            return find_own_suite(opened, suite)

        request = ExportRequest(engine, to, out, find_cache(), find_suite, weights, items, precision)
        result = export_engine(request, report_progress)
    _report(result)


def find_own_suite(
    engine: "ExportedEngine", folder: Path | None, shipped_suites: Path = SHIPPED_SUITES
) -> tuple[Suite, str]:
    """Return the engine's golden suite and the text of its baseline.

    Raises:
        CliError: it is missing, unsound, or another engine's.
    """
    name = engine.spec.reference.suite
    if folder is None:
        folder = shipped_suites / name
        if not folder.is_dir():
            raise CliError(
                f"--suite: missing, and {name}, the golden suite of {engine.name}, is none that is shipped; give its"
                " folder, or make one with r1plus suite build"
            )
    suite, files = storage.load_sound(folder)
    header = suite.header
    if header.name != name and header.reference_engine != engine.name and header.family != engine.spec.family:
        raise CliError(
            f"--suite: {folder}: {header.name} is a suite of the family {header.family}, and {engine.name} is of"
            f" {engine.spec.family}; give {name}, or another suite of its family"
        )
    return suite, files.baseline


def _report(export: "Export") -> None:
    result = export.result
    same = "" if result.same_answers is None else f", {result.same_answers} answers the same text"
    say(
        f"{result.suite}: {result.export_correct} of {result.items} right, the engine {result.engine_correct}"
        f" ({result.engine_source}){same}"
    )
    say(f"{export.folder}: {export.bytes / 2**20:.0f} MiB", style="green")


@contextmanager
def _end_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that it removes what is half-written."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _translate_errors(target: str) -> Iterator[None]:
    def explain(error: RuntimeError) -> str | None:
        from r1plus_export.errors import ExportError
        from r1plus_model_repo.importing.errors import ImportingError

        return str(error) if isinstance(error, (ExportError, ImportingError)) else None

    with translate_errors(f"--to {target}", f"engine,{target}", "no files were left behind", explain):
        yield
