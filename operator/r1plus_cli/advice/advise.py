"""`r1plus advise`: which tier is enough for a golden suite, measured on this machine."""

import contextlib
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from r1plus_cli import local
from r1plus_cli.advice.candidates import Candidate, Sizes, explain_none, find_candidates, select_engines
from r1plus_cli.advice.figures import EngineFigures, Exclusion, recommend
from r1plus_cli.advice.recorded import Recorded, read_recorded
from r1plus_cli.advice.report import Advice, show_advice
from r1plus_cli.advice.results import Results, build_key
from r1plus_cli.cluster.connection import connect
from r1plus_cli.errors import CliError, UsageError, converted_errors
from r1plus_cli.options import KubeconfigOption, NamespaceOption, Output, OutputOption, RegistryOption, print_document
from r1plus_cli.registry import DEFAULT, Registry, parse_address
from r1plus_contract.suites.suite import Suite
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_edge.data_folder import DataFolder, check_path, find_holder, hold
from r1plus_edge.errors import EdgeError
from r1plus_edge.start.engines import find_cache, find_default_data
from r1plus_edge.start.machine import LocalMachine, check_machine, describe_node, read_machine
from r1plus_model_repo.catalog.types import Engine


@dataclass(frozen=True, slots=True)
class SuiteChoice:
    """A golden suite, and how `serve` is told of it."""

    suite: Suite
    files: SuiteFiles | None
    """Of one that is not shipped."""


def advise_command(
    suite: Annotated[
        str, typer.Option("--suite", help="A shipped golden suite, or one of your own: its folder or manifest.")
    ],
    engines: Annotated[
        list[str] | None,
        typer.Option("--engines", help="Engines to compare, with commas. Default: all that this machine can serve."),
    ] = None,
    price: Annotated[str, typer.Option("--price", help="Euros per hour of a machine like this one.")] = "",
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.001, max=1, help="spec.accuracy.threshold that you need.")
    ] = 0.98,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Requests at once. Default: the plan's.")] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=16, help="Tokens of prompt and answer. Default: the plan's.")
    ] = None,
    family: Annotated[
        str,
        typer.Option("--family", help="Compare the engines of this model family, such as qwen. Default: all but qwen."),
    ] = "",
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder for results; by default ~/.local/share/r1plus/advise.")
    ] = None,
    catalog: Annotated[
        Path, typer.Option("--catalog", help="Folder with R1PlusEngines; by default the shipped catalog.")
    ] = local.SHIPPED_CATALOG,
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    registry: RegistryOption = DEFAULT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Measure engines on a golden suite, and name the cheapest tier that meets the threshold.

    Each engine is served on this machine as `r1plus serve` does it. Its gate asks every item, and then its speed is
    measured through the gateway. Results are kept: the same command goes on after an interruption. With --kubeconfig
    the table also has what that cluster has measured on the suite; it is only read.

    Exit status 1 if no engine meets the threshold.

    Example: `r1plus advise --suite smollm2-full-v1 --engines smollm2-full-f16,smollm2-lite-q8-0 --price 0.08`
    """
    amount = parse_price(price)
    known = local.load_engines(catalog, family)
    selected = select_engines(_split(engines or ()), known, family, local.list_separate_families(catalog))
    choice = read_suite(suite)
    root = (data or find_default_data().with_name("advise")).absolute()
    recorded = Recorded((), ())
    if kubeconfig is not None:
        recorded = _read_cluster(kubeconfig, namespace, registry, choice.suite)
    if recorded.problem:
        _tell(recorded.problem)
    with converted_errors(), _terminated_as_interrupted():
        own = _measure_here(selected, choice, Sizes(batch, context), root, catalog, is_optional=bool(recorded.figures))
    measured, others = (*own.figures, *recorded.figures), (*own.exclusions, *recorded.exclusions)
    best = recommend(measured, threshold, amount)
    advice = Advice(choice.suite, threshold, amount, own.machine, measured, others, best)
    _print_advice(advice, output)
    raise typer.Exit(0 if advice.recommendation.cheapest is not None else 1)


def _print_advice(advice: Advice, output: Output) -> None:
    if output is Output.TABLE:
        show_advice(advice)
    else:
        print_document(advice.to_document(), output)


def parse_price(text: str) -> float | None:
    """Return euros per hour; None: no price is given. Raises UsageError."""
    if not text:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 < price < math.inf:
        raise UsageError(f"--price: {text!r:.40} is no price above zero; give euros per hour of the machine, as 0.08")
    return price


def read_suite(text: str) -> SuiteChoice:
    """Return a shipped suite by name, or one of the user's own by its folder or manifest. Raises UsageError."""
    from r1plus_cli.suite.storage import load_sound  # late: YAML of a manifest

    shipped = local.load_suites(local.SHIPPED_SUITES)
    if text in shipped:
        source = shipped[text]
        if source.suite is None:
            raise CliError(f"--suite {text}: {source.problem}")
        return SuiteChoice(source.suite, None)
    if not Path(text).exists():
        names = ", ".join(sorted(shipped)) or "none"
        raise UsageError(f"--suite {text}: no shipped suite has this name, and no folder or manifest; shipped: {names}")
    suite, files = load_sound(Path(text))
    return SuiteChoice(suite, files)


def _split(names: Sequence[str]) -> list[str]:
    return [name for text in names for part in text.split(",") if (name := part.strip())]


@dataclass(frozen=True, slots=True)
class MeasuredMachine:
    """What this machine has measured."""

    machine: str
    """In words; empty: it can measure nothing."""
    figures: tuple[EngineFigures, ...]
    exclusions: tuple[Exclusion, ...]


def _measure_here(
    engines: Sequence[Engine], choice: SuiteChoice, sizes: Sizes, root: Path, catalog: Path, *, is_optional: bool
) -> MeasuredMachine:
    """Measure what this machine can serve. `is_optional`: a cluster has figures, so that none of here is no error."""
    try:
        machine = _prepare_folder(root)
    except EdgeError as error:
        if not is_optional:
            raise
        return MeasuredMachine("", (), tuple(Exclusion(one.name, one.spec.tier.value, str(error)) for one in engines))
    node = describe_node(machine)
    candidates, exclusions = find_candidates(engines, choice.suite, sizes, node, find_cache())
    if not candidates and not is_optional:
        raise explain_none(exclusions, engines, node, choice.suite)
    folder = DataFolder(root)
    if (holder := find_holder(folder)) is not None:
        raise CliError(f"--data {root}: r1plus advise runs there already (pid {holder}); wait, or name another folder")
    with hold(folder):
        figures, failures = _measure_all(candidates, choice, machine, root, catalog)
    return MeasuredMachine(machine.text, tuple(figures), (*exclusions, *failures))


def _prepare_folder(root: Path) -> LocalMachine:
    """Return this machine, and make the folder. Raises EdgeError."""
    check_path("--data", root)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeError(f"--data {root}: {error.strerror}; name a folder that you may write") from error
    machine = read_machine(root)
    check_machine(machine, root)
    return machine


def _measure_all(
    candidates: Sequence[Candidate], choice: SuiteChoice, machine: LocalMachine, root: Path, catalog: Path
) -> tuple[list[EngineFigures], list[Exclusion]]:
    """Measure one after the other: two at once would slow each other. Return figures, and what could not be served."""
    software = _list_software() if candidates else ()
    figures: list[EngineFigures] = []
    failures: list[Exclusion] = []
    for number, candidate in enumerate(candidates, 1):
        _tell(f"{candidate.engine.name} ({number} of {len(candidates)})")
        try:
            figures.append(_measure(candidate, choice, machine, software, Results(root), catalog))
        except KeyboardInterrupt:
            text = f"Interrupted; {len(figures)} of {len(candidates)} engines are measured, and kept in {root}"
            raise CliError(f"{text}. The same command goes on from there") from None
        except OSError as error:
            raise CliError(f"--data {root}: {error.strerror}; make room, and run the same command again") from error
        except CliError as error:
            failures.append(Exclusion(candidate.engine.name, candidate.engine.spec.tier.value, str(error)))
            _tell(f"           {error}")
    return figures, failures


def _list_software() -> tuple[str, ...]:
    """Return the digests of all that serves. Raises UsageError where it is not installed."""
    try:
        from r1plus_edge.pods.images import find_images

        images = find_images(find_cache())
    except (ImportError, PackageNotFoundError) as error:
        raise UsageError(f"{error.name} is not installed; install r1plus[edge], as `make quickstart` does") from error
    return images.triton, images.monitor, images.gateway


def _measure(
    candidate: Candidate,
    choice: SuiteChoice,
    machine: LocalMachine,
    software: Sequence[str],
    results: Results,
    catalog: Path,
) -> EngineFigures:
    # Late: they need the libraries of extra `edge`, which other verbs do not.
    from r1plus_cli.advice.trial import Place, UnansweredError, remove_trial, run_trial
    from r1plus_cli.suite.storage import save

    key = build_key(candidate, choice.suite, software, machine.cores)
    trial = results.find_trial(key)
    if (known := results.load(key)) is not None:
        _tell(f"           measured {known.measured_at}; {results.root} has it")
        return known
    suite = choice.suite.header.name
    if choice.files is not None:
        folder = trial / "suite" / suite
        save(folder, choice.files)
        suite = str(folder)
    try:
        figures = run_trial(candidate, choice.suite, Place(trial, catalog, suite, _tell))
    except UnansweredError:
        remove_trial(trial)  # Its verdict would be found again.
        raise
    results.save(key, figures)
    remove_trial(trial)
    return figures


def _read_cluster(kubeconfig: str, namespace: str | None, registry: str, suite: Suite) -> Recorded:
    cluster = connect(kubeconfig)
    space = namespace or cluster.get_default_namespace()
    reader = Registry(parse_address(registry), lambda: cluster)
    return read_recorded(cluster, lambda: reader.read_evaluations(space, None, items=False), suite, space)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a run as Ctrl-C does: what it has started ends with it.

    Ctrl-C, too: a shell's background job has it ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _tell(line: str) -> None:
    """Write to standard error: standard output has the result alone."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
