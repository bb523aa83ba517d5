"""`r1plus suite`: from candidates to a signed golden suite in a tenant's namespace."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.options import KubeconfigOption, NamespaceOption
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_contract.suites.suite_files import BASELINE_FILE, SuiteFiles, key_id

if TYPE_CHECKING:
    from r1plus_operator.observe.suite_signature import KeyPair

app = typer.Typer(
    name="suite",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Makes golden suites: questions with known answers that decide whether an engine may serve.

A suite has only items that a reference engine answers right in every condition. It needs a trusted signature:

1. `r1plus suite keygen --out suite-key.pem` once; put the public key into `spec.accuracy.suiteKeys`
2. `r1plus suite build candidates.jsonl --name bank-v1 --reference my-engine --deployment credit --out bank-v1`
3. `r1plus suite baseline bank-v1 --deployment credit` best after a restart of the engine
4. `r1plus suite sign bank-v1 --key suite-key.pem --configmap bank-v1.yaml`
5. `kubectl apply -n team-credit -f bank-v1.yaml`, then `spec.accuracy.suite: bank-v1`

See docs/suites.md. SUITE is always a folder or a ConfigMap's manifest.
""",
)

PASSPHRASE = "R1PLUS_SUITE_KEY_PASSPHRASE"
SuiteArgument = Annotated[Path, typer.Argument(help="A suite: its folder, or a ConfigMap's manifest.")]
ServedOption = Annotated[
    list[str] | None,
    typer.Option("--served", help="HTTP,GRPC of a Triton that serves the engine, each host:port. May be repeated."),
]
DeploymentOption = Annotated[
    str | None, typer.Option("--deployment", help="An R1PlusDeployment that serves it; its ports are forwarded.")
]
FolderOption = Annotated[
    list[Path] | None,
    typer.Option("--engine-dir", help="A folder with the engine's files, asked here (needs the extra `engine`)."),
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, max=1024, help="Production batch: the batch that your deployment serves at.")
]
ConfigMapOption = Annotated[
    Path | None, typer.Option("--configmap", help="Write the ConfigMap's manifest here as well; - is standard output.")
]
MinItemsOption = Annotated[int, typer.Option(min=2, help="Fewest items.")]
MinStratumOption = Annotated[int, typer.Option(min=1, help="Fewest items of a stratum.")]


@app.command("keygen")
def keygen_command(
    out: Annotated[Path, typer.Option("--out", help="The private key's file; it must not exist yet.")],
) -> None:
    """Make an Ed25519 key to sign suites with. Prints the public key, for spec.accuracy.suiteKeys or the chart.

    The private key is not encrypted: keep it where your other signing keys are. An encrypted PEM of your own works too:
    its passphrase is read from $R1PLUS_SUITE_KEY_PASSPHRASE.
    """
    from r1plus_operator.observe.suite_signature import generate_key

    key = generate_key()
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.encode_pem())
    except OSError as error:
        raise CliError(f"--out {out}: {error.strerror}; a key is never overwritten") from error
    say(f"Private key: {out} (mode 0600). Key {key_id(key.public)}; its public half, for spec.accuracy.suiteKeys:")
    sys.stdout.write(key.public + "\n")


@app.command("build")
def build_command(
    candidates: Annotated[Path, typer.Argument(help="Candidates, JSONL: one item a line, as a suite holds them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new suite.")],
    name: Annotated[str, typer.Option("--name", help="Ends with its version, for example bank-v1.")],
    reference: Annotated[str, typer.Option("--reference", help="The reference engine's name in the catalog.")],
    family: Annotated[str, typer.Option("--family", help="Engine family.")] = "smollm2",
    tier: Annotated[str, typer.Option("--tier", help="full, lite or edge.")] = "full",
    served: ServedOption = None,
    deployment: DeploymentOption = None,
    engine_dir: FolderOption = None,
    batch: BatchOption = 16,
    size: Annotated[int, typer.Option(min=2, help="Most items.")] = 212,
    min_items: MinItemsOption = 200,
    min_per_stratum: MinStratumOption = 50,
    min_strata: Annotated[int, typer.Option(min=2, help="Fewest strata.")] = 2,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")] = 24,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="An answer ends before it. May be repeated.")] = None,
    system: Annotated[str, typer.Option(help="System message of every question.")] = "",
    seed: Annotated[int, typer.Option(help="Of the choice among what stayed right.")] = 1,
    configmap: ConfigMapOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Ask a reference engine every candidate and keep those that are right in every condition.

    The conditions are the production batch in two orders, half of it, and single requests, on every given engine. Of
    the remaining items, each stratum gets the same number. The suite is unsigned and has no baseline yet.
    """
    # Late, like everything heavy here: `r1plus plan` must not wait for gRPC to load.
    from r1plus_cli.suite.answer_sources import EngineOptions, open_sources
    from r1plus_cli.suite.build import SuiteOptions, build, read_candidates
    from r1plus_cli.suite.storage import find_existing, save
    from r1plus_contract.suites.suite import SuiteSampling
    from r1plus_monitoring.curate.selection import Shape

    suite_options = SuiteOptions(name, family, tier, reference)
    items, problems = read_candidates(candidates)
    _exit_on_problems(str(candidates), [*suite_options.find_problems(), *find_existing(out), *problems])
    sampling = SuiteSampling(max_new_tokens=max_new_tokens, stop=tuple(stop or ()), system=system)
    shape = Shape(size=size, min_size=min_items, min_strata=min_strata, min_per_stratum=min_per_stratum)
    engines = EngineOptions(served or (), deployment, engine_dir or ())
    with (
        show_progress() as (on_progress, on_answer),
        open_sources(engines, sampling, functools.partial(connect, kubeconfig), namespace, on_answer) as sources,
    ):
        files = build(
            items, sources, suite_options, sampling, batch=batch, shape=shape, seed=seed, progress=on_progress
        )
    save(out, files)
    _write_configmap(files, configmap, namespace)
    say(f"{name}: written to {out}; next: r1plus suite baseline {out}, then r1plus suite sign {out}")


@app.command("baseline")
def baseline_command(
    suite: SuiteArgument,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Name of the engine that is asked; by default the suite's reference.")
    ] = None,
    served: ServedOption = None,
    deployment: DeploymentOption = None,
    engine_dir: FolderOption = None,
    batch: BatchOption = 16,
    configmap: ConfigMapOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Measure an engine on repeats that were not part of the selection, per condition, and store the figures.

    Nothing is removed: selection biases the figures that it used. The operator rejects thresholds that the reference
    did not reach here. The signature becomes invalid: sign again.
    """
    from r1plus_cli.suite.answer_sources import EngineOptions, open_sources
    from r1plus_cli.suite.build import measure
    from r1plus_cli.suite.storage import load, save
    from r1plus_contract.suites.suite_check import check

    files = load(suite)
    result = check(files)
    _exit_on_problems(str(suite), list(result.problems))
    assert result.suite is not None
    engine_name = engine or result.suite.header.reference_engine
    engines = EngineOptions(served or (), deployment, engine_dir or ())
    with (
        show_progress() as (on_progress, on_answer),
        open_sources(
            engines, result.suite.header.sampling, functools.partial(connect, kubeconfig), namespace, on_answer
        ) as sources,
    ):
        if len(sources) != 1:
            raise UsageError("A baseline needs one engine: give one of --served, --deployment and --engine-dir")
        files, figures = measure(files, result.suite, engine_name, sources[0], batch=batch, progress=on_progress)
    save(suite, files)
    _write_configmap(files, configmap, namespace)
    for one in figures:
        say(
            f"{engine_name}: {one.condition}: {one.correct} of {one.items} right; lost: {', '.join(one.lost) or 'none'}"
        )
    _print_reachable_threshold(min(figures, key=lambda one: one.correct))
    say(f"Next: r1plus suite sign {suite} --key KEY")


@app.command("verify")
def verify_command(
    suite: SuiteArgument,
    trust: Annotated[
        list[str] | None, typer.Option("--trust", help="A public key that is trusted. May be repeated.")
    ] = None,
    min_items: MinItemsOption = 200,
    min_per_stratum: MinStratumOption = 50,
) -> None:
    """Check everything that would prevent the use of a suite: format, hash, signature, answers, strata, size.

    Each problem has file and line, field, value, limit and remedy. Exit status 1 if there is one, so that a pipeline
    can stop. Without --trust, an unsigned suite is only reported.
    """
    from r1plus_cli.suite.storage import load
    from r1plus_cli.suite.verification import RecommendedSizes, find_trust_problems, verify

    result = verify(load(suite), RecommendedSizes(min_items, min_per_stratum))
    _exit_on_problems(str(suite), [*result.problems, *find_trust_problems(result, trust)])
    for line in result.format_summary():
        say(line)
    if result.reached is not None:
        _print_reachable_threshold(result.reached)
    say(f"{suite}: sound", style="green")


@app.command("sign")
def sign_command(
    suite: SuiteArgument,
    key: Annotated[Path, typer.Option("--key", help="The private key, PEM, Ed25519: r1plus suite keygen makes one.")],
    configmap: ConfigMapOption = None,
    namespace: NamespaceOption = None,
    min_items: MinItemsOption = 200,
    min_per_stratum: MinStratumOption = 50,
) -> None:
    """Sign a suite in place, and write the ConfigMap for the operator. A suite with problems is not signed.

    The signature covers every file: items, sampling, recorded answers and baseline. Sign last.
    """
    from r1plus_cli.suite.storage import load, save
    from r1plus_cli.suite.verification import RecommendedSizes, verify
    from r1plus_operator.observe.suite_signature import sign

    pair = read_signing_key(key)
    signed_files = sign(load(suite), pair)
    _exit_on_problems(str(suite), list(verify(signed_files, RecommendedSizes(min_items, min_per_stratum)).problems))
    save(suite, signed_files)
    _write_configmap(signed_files, configmap, namespace)
    say(f"{suite}: signed by key {key_id(pair.public)}, public key {pair.public}", style="green")


@app.command("diff")
def diff_command(
    old: Annotated[Path, typer.Argument(help="A suite, or a baseline.json.")],
    new: Annotated[Path, typer.Argument(help="Another suite or baseline.json.")],
) -> None:
    """Show how two suites, or two baselines, differ, and what must be scored again. Exit status 1 if they differ."""
    from r1plus_cli.suite import diff
    from r1plus_cli.suite.storage import load_baseline, load_sound
    from r1plus_contract.suites.suite_baseline import read_figures

    if all(path.is_file() and path.name.endswith(BASELINE_FILE) for path in (old, new)):
        lines = list(diff.compare_figures(load_baseline(old), load_baseline(new)))
    else:
        (old_suite, old_files), (new_suite, new_files) = load_sound(old), load_sound(new)
        lines = list(diff.compare_suites(old_suite, new_suite))
        if old_files.baseline and new_files.baseline:
            lines += diff.compare_figures(read_figures(old_files.baseline), read_figures(new_files.baseline))
    for line in lines:
        sys.stdout.write(line + "\n")
    if not lines:
        say("No difference")
    raise typer.Exit(1 if lines else 0)


def read_signing_key(file: Path) -> "KeyPair":
    """Read a private key to sign with; its passphrase, if it has one, is in the environment."""
    from r1plus_operator.observe.suite_signature import read_key

    passphrase = os.environ.get(PASSPHRASE)
    try:
        return read_key(file.read_bytes(), passphrase.encode() if passphrase else None)
    except (OSError, ValueError) as error:
        raise UsageError(f"--key {file}: {error}") from error


def say(line: str, style: str = "") -> None:
    """Print to standard error, so that standard output only has manifests and keys."""
    Console(stderr=True, soft_wrap=True).print(Text(line, style=style))


@contextlib.contextmanager
def show_progress() -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Print a line per condition, and on a terminal the number of answers."""
    console = Console(stderr=True, soft_wrap=True)
    count, last = 0, ""
    with console.status("") if console.is_terminal else contextlib.nullcontext() as status:

        def show_line(line: str) -> None:
            nonlocal count, last
            count, last = 0, line
            console.print(Text(line))

        def count_answer() -> None:
            nonlocal count
            count += 1
            if status is not None:
                status.update(f"{last}: {count} answers")

        yield show_line, count_answer


def _exit_on_problems(title: str, problems: list[str]) -> None:
    """Print all problems and exit with status 1, if there are any."""
    if not problems:
        return
    say(f"{title}: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}", style="red")
    for problem in problems:
        say(f"  {problem}")
    raise typer.Exit(1)


def _print_reachable_threshold(one: Measurement) -> None:
    from r1plus_policies.gate.reach import find_reachable_threshold

    best = find_reachable_threshold(one.count_lost_by_stratum())
    say(f"Lowest: {one.correct} of {one.items} ({one.condition}); meets spec.accuracy.threshold up to {best:g}")


def _write_configmap(files: SuiteFiles, path: Path | None, namespace: str | None) -> None:
    from r1plus_cli.suite.storage import render_manifest

    if path is None:
        return
    text = render_manifest(files, namespace)
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")
