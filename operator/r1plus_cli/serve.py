"""`r1plus serve`: a deployment on this machine, without a cluster. The edge tier does it; here are its options."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from r1plus_cli import local
from r1plus_cli.documents import Document, read_documents
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.options import Output, OutputOption, print_document
from r1plus_cli.validate import find_problems
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT
from r1plus_contract.verdict import Gate
from r1plus_edge.background import find_parent, start_in_background
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.deployment import DEFAULT_NAMESPACE, Request, build_request
from r1plus_edge.engines import find_default_data, select_engines
from r1plus_edge.errors import EdgeError
from r1plus_edge.listening import Listening, read_listening
from r1plus_edge.report import LineNarrator, ServePhase, ServeStatus, read_status
from r1plus_edge.usage import describe_usage
from r1plus_model_repo.catalog.types import Engine, Tier
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.config import read_suite_folder
from r1plus_operator.observe.suite_projection import read_suite_source
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import SuiteTrust

if TYPE_CHECKING:
    from r1plus_edge.serve import ServeOptions

STOP_SECONDS = 30.0
"""For `serve stop`: a stop takes five."""
app = typer.Typer(
    name="serve", invoke_without_command=True, help="Serve a deployment on this machine, without a cluster."
)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder for state, keys and logs; by default ~/.local/share/r1plus/edge."),
]


@app.callback()
def serve_command(
    context: typer.Context,
    tier: Annotated[Tier | None, typer.Option("--tier", help="What to serve, where no file says it.")] = None,
    file: Annotated[str | None, typer.Option("-f", "--file", help="An R1PlusDeployment; - is standard input.")] = None,
    engine: Annotated[str, typer.Option("--engine", help="Name of an engine of the catalog, or its folder.")] = "",
    gate: Annotated[Gate | None, typer.Option("--gate", help="Instead of spec.accuracy.gate.")] = None,
    suite: Annotated[
        str, typer.Option("--suite", help="Name of a shipped golden suite, or the folder of one of your own.")
    ] = "",
    listen: Annotated[
        str, typer.Option("--listen", help="ADDRESS:PORT; by default 127.0.0.1:8400, or a free port.")
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate, PEM: beyond loopback.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, PEM.")] = None,
    data: DataOption = None,
    catalog: Annotated[
        Path, typer.Option("--catalog", help="Folder with R1PlusEngines; by default the shipped catalog.")
    ] = local.SHIPPED_CATALOG,
    suites: Annotated[Path, typer.Option("--suites", help="Folder with the shipped suites.")] = local.SHIPPED_SUITES,
    family: Annotated[str, typer.Option("--family", help="Engine family if the spec has none.")] = local.DEFAULT_FAMILY,
    background: Annotated[
        bool, typer.Option("--background", help="Return when it serves, and let it go on; Ctrl-C before that ends it.")
    ] = False,
) -> None:
    """Serve a deployment on this machine, without Kubernetes and without root, until Ctrl-C.

    It runs what the operator's plan renders: the same engine, golden suite, gate, monitor and gateway, as processes.
    The first start fetches Triton and makes the engine. `r1plus serve status` shows what serves and how accurate it is.
    """
    if context.invoked_subcommand is not None:
        return
    if background:
        raise typer.Exit(start_in_background([word for word in sys.argv if word != "--background"]))
    with _converted_errors():
        options = _build_options(
            tier, file, engine, gate, suite, read_listening(listen, tls_cert, tls_key), data, catalog, suites, family
        )
        asyncio.run(_serve_until_signal(options))


async def _serve_until_signal(options: "ServeOptions") -> None:
    """Serve; the first signal ends it, further ones change nothing: it takes five seconds at most."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    from r1plus_edge.serve import serve  # With the libraries of extra `edge`, which other verbs do not need.

    folder, parent = DataFolder(options.data.absolute()), find_parent()

    def announce(status: ServeStatus) -> str:
        return describe_usage(status, folder)

    def leave() -> None:
        if parent is not None:
            parent.release(folder.logs / "serve.log")

    narrator = LineNarrator(announce, leave)
    task = asyncio.create_task(serve(options, narrator))
    loop, end = asyncio.get_running_loop(), build_end(task)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    if parent is not None:
        loop.add_reader(parent.descriptor, lambda: parent.check(end))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    narrator.note("Stopped; nothing is left running")


def build_end(task: asyncio.Task[None]) -> Callable[[], None]:
    """Return what cancels a task once. A second time would cut off what it does to end well."""
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        if not has_ended:
            has_ended = True
            task.cancel()

    return end


@app.command("status")
def status_command(data: DataOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show what serves on this machine: its engine, its measured accuracy, what is wrong and what to do."""
    folder = _find_folder(data)
    status = read_status(folder.status)
    if status is None:
        raise CliError(f"--data {folder.root}: nothing was served there; start it: r1plus serve --tier edge")
    if find_holder(folder) is None:
        # A killed one could not write its end.
        status = replace(status, phase=ServePhase.STOPPED, pid=0, message="", conditions=())
    if output is Output.TABLE:
        _show_status(status, folder)
    else:
        print_document(status, output)
    raise typer.Exit(0 if status.phase is ServePhase.SERVING else 1)


@app.command("stop")
def stop_command(data: DataOption = None) -> None:
    """Stop what serves on this machine, and wait until nothing of it runs."""
    folder = _find_folder(data)
    pid = find_holder(folder)
    if pid is None:
        sys.stdout.write(f"Nothing serves from {folder.root}\n")
        return
    if pid <= 0:  # A signal to it would reach a group of processes, or all of them.
        raise CliError(
            f"--data {folder.root}: who serves from it runs in another container, or on another machine; stop it there"
        )
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError as error:
        raise CliError(f"--data {folder.root}: process {pid} is another user's; ask its owner to stop it") from error
    deadline = time.monotonic() + STOP_SECONDS
    while find_holder(folder) == pid:
        if time.monotonic() > deadline:
            raise CliError(f"process {pid} did not end in {STOP_SECONDS:g} s; end it with `kill -9 {pid}`")
        time.sleep(0.1)
    sys.stdout.write("Stopped; nothing is left running\n")


def _find_folder(data: Path | None) -> DataFolder:
    return DataFolder((data or find_default_data()).absolute())


@contextlib.contextmanager
def _converted_errors() -> Iterator[None]:
    try:
        yield
    except EdgeError as error:
        raise (UsageError if error.status == UsageError.status else CliError)(str(error)) from error


def _build_options(
    tier: Tier | None,
    file: str | None,
    engine: str,
    gate: Gate | None,
    suite: str,
    listening: Listening,
    data: Path | None,
    catalog: Path,
    suites: Path,
    family: str,
) -> "ServeOptions":
    from r1plus_edge.serve import ServeOptions  # as above

    engines = local.load_engines(catalog, family)
    sources, digests = local.load_suites(suites), set(SHIPPED_SUITES.values())
    if suite and suite not in sources:
        own = _read_suite(Path(suite))
        sources, suite = {**sources, own.name: own}, own.name
        # Who names the folder decides what serves on this machine.
        digests.add(own.digest)
    request = _read_request(file, tier, gate, suite, engines, family)
    selected, given = select_engines(engine, engines)
    return ServeOptions(
        request=request,
        engines=selected,
        suites=sources,
        trust=SuiteTrust(shipped_digests=frozenset(digests)),
        family=family,
        data=(data or find_default_data()).absolute(),
        listening=listening,
        given_engine=given,
    )


def _read_suite(folder: Path) -> SuiteSource:
    """Read a golden suite of the user's own."""
    if not folder.is_dir():
        names = ", ".join(sorted(local.load_suites(local.SHIPPED_SUITES)))
        raise UsageError(f"--suite {folder}: no shipped suite has this name, and no folder; shipped are {names}")
    source = read_suite_source(folder.absolute().name, read_suite_folder(folder))
    if source.suite is None:
        raise UsageError(f"--suite {folder}: {source.problem}; `r1plus suite verify {folder}` lists all")
    return source


def _read_request(
    file: str | None, tier: Tier | None, gate: Gate | None, suite: str, engines: tuple[Engine, ...], family: str
) -> Request:
    if file is None and tier is None:
        raise UsageError("--tier: say what to serve: full, lite or edge; or give an R1PlusDeployment with -f")
    name = tier.value if tier is not None else ""
    body = {"apiVersion": API_VERSION, "metadata": {"name": name}, "spec": {"tier": name}}
    document = Document("--tier", body)
    if file is not None:
        documents = read_documents(file, KIND_DEPLOYMENT)[KIND_DEPLOYMENT]
        if len(documents) != 1:
            raise UsageError(f"-f {file}: has {len(documents)} R1PlusDeployments; one machine serves one")
        document = documents[0]
    if problems := find_problems(document, engines, local.build_config(family)):
        raise UsageError("\n".join(f"{document.title}: {problem}" for problem in problems))
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec)
    except ValidationError as error:
        raise UsageError(f"{document.title}: {error}") from error
    namespace = str(document.metadata.get("namespace") or DEFAULT_NAMESPACE)
    return build_request(document.name, namespace, spec, tier=name, gate=gate, suite=suite)


def _show_status(status: ServeStatus, folder: DataFolder) -> None:
    rows = [
        ("state", f"{status.phase.value}{f' (pid {status.pid})' if status.pid else ''}"),
        ("message", status.message),
        ("address", status.url),
        ("deployment", f"{status.deployment} (tier {status.tier})"),
        ("engine", status.engine),
        ("revision", status.revision),
        ("verdict", f"{status.verdict} on {status.suite}, threshold {status.threshold:g}" if status.verdict else ""),
        ("accuracy", status.accuracy),
        ("watch", status.watch),
        ("gate", f"{status.percent} %" if status.phase is ServePhase.GATING else ""),
        ("restarts", str(status.restarts)),
        ("metrics", status.metrics_url),
        ("monitor", status.monitor_url),
        ("logs", str(folder.logs)),
    ]
    sys.stdout.writelines(f"{name:<11} {value}\n" for name, value in rows if value)
    sys.stdout.writelines(f"            {line}\n" for line in status.conditions)
