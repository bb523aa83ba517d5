"""`r1plus serve`: a deployment on this machine, without a cluster. The edge tier does it; here are its options."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from r1plus_cli import local
from r1plus_cli.documents import STDIN, Document, read_documents
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.options import Output, OutputOption, print_document
from r1plus_cli.serve_tenant import read_tenant
from r1plus_cli.validate import find_problems
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT, KIND_TENANT
from r1plus_contract.verdict import Gate
from r1plus_edge.background import find_parent, start_in_background
from r1plus_edge.bundle import open_bundle
from r1plus_edge.bundle_install import CURRENT, find_software_root, install_software
from r1plus_edge.bundle_keys import find_keys_file, load_keys
from r1plus_edge.bundle_manifest import Part
from r1plus_edge.control import ask_for_update
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.deployment import DEFAULT_NAMESPACE, Request, build_request
from r1plus_edge.engines import find_cache, find_default_data, select_engines
from r1plus_edge.errors import EdgeError, RequestError
from r1plus_edge.handover import Handover, HandoverKind, return_handover, take_handover
from r1plus_edge.listening import Listening, adopt_listening, read_listening
from r1plus_edge.places import LOOPBACK
from r1plus_edge.processes import has_ended
from r1plus_edge.report import LineNarrator, ServePhase, ServeStatus, read_status
from r1plus_edge.slots import find_program, is_own, is_slot, make_current, remove_other_slots
from r1plus_edge.update import UpdateRequest, read_suite_texts
from r1plus_edge.usage import describe_usage
from r1plus_model_repo.catalog.types import Engine, Tier
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.config import read_suite_folder
from r1plus_operator.observe.suite_projection import read_suite_source
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import SuiteTrust
from r1plus_policies.rollback.response import BAKE_SECONDS

if TYPE_CHECKING:
    from r1plus_edge.options import ServeOptions

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
    file: Annotated[
        str | None,
        typer.Option("-f", "--file", help="An R1PlusDeployment, an R1PlusTenant, or both; - is standard input."),
    ] = None,
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
        if file == STDIN:  # The child's is what tells it that this process is gone.
            raise UsageError("-f -: not with --background, which has no standard input; give a file")
        raise typer.Exit(start_in_background([word for word in sys.argv if word != "--background"]))
    with converted_errors():
        handover = take_handover()
        if handover is not None and handover.kind is HandoverKind.TRIAL:
            data, listen, tls_cert, tls_key = Path(handover.data), f"{LOOPBACK}:0", None, None
        listening, own = _read_listening(listen, tls_cert, tls_key, handover), (suite,) if suite else ()
        arguments = ServeArguments(tier, file, engine, gate, own, listening, data, (catalog,), suites, family)
        try:
            options = build_options(arguments)
        except Exception as error:
            if handover is None or handover.kind is not HandoverKind.FORWARD:
                raise
            return_handover(handover, str(error), sys.argv[1:])
            raise
        asyncio.run(_serve_until_signal(options, handover))


def _read_listening(listen: str, cert: Path | None, key: Path | None, handover: Handover | None) -> Listening:
    """Return where to listen; what another release hands over listens already."""
    if handover is None or not handover.listener:
        return read_listening(listen, cert, key)
    with socket.socket(fileno=os.dup(handover.listener)) as listener:
        return adopt_listening(listen, cert, key, listener)


async def _serve_until_signal(options: "ServeOptions", handover: Handover | None) -> None:
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
    task = asyncio.create_task(serve(options, narrator, handover))
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
        status = replace(status, phase=ServePhase.STOPPED, pid=0, message="", update="", conditions=(), failures=())
    if output is Output.TABLE:
        _show_status(status, folder)
    else:
        print_document(status, output)
    raise typer.Exit(0 if status.phase is ServePhase.SERVING else 1)


@app.command("update")
def update_command(
    engine: Annotated[
        str,
        typer.Argument(
            metavar="[ENGINE|BUNDLE]", help="Name of an engine of the catalog, the folder of one, or a bundle's file."
        ),
    ] = "",
    file: Annotated[Path | None, typer.Option("-f", "--file", help="An R1PlusDeployment of the same name.")] = None,
    suite: Annotated[str, typer.Option("--suite", help="Name of a shipped golden suite, or the folder of one.")] = "",
    catalog: Annotated[
        Path | None, typer.Option("--catalog", help="Folder with R1PlusEngines, besides those that are known.")
    ] = None,
    key: Annotated[
        str, typer.Option("--key", help="Public key of who made the bundle; by default those that were given before.")
    ] = "",
    software: Annotated[
        Path | None,
        typer.Option("--software", help="Folder of software that a bundle has brought before, such as to go back."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Update what serves on this machine: gate it beside what serves, and switch without a failed request.

    Where the memory does not hold both, what serves stops for the gate, and comes back on a Fail. Exit status 0: the
    update is in force, and stays so over restarts; 1: what served before serves. Ctrl-C leaves it going on.
    """
    if not (engine or file or suite or software):
        raise UsageError(
            "serve update: say what to update: an engine, a bundle, an R1PlusDeployment with -f, or --suite"
        )
    folder = _find_folder(data)
    request = UpdateRequest(
        engine=_make_absolute(engine),
        text=_read_deployment(file) if file else "",
        suite=Path(suite).absolute().name if suite and Path(suite).is_dir() else suite,
        suite_texts=_read_suite_texts(suite),
        catalog=_make_absolute(str(catalog or "")),
        # Without links: beside the slot itself is what starts it.
        software=str(software.resolve()) if software else "",
    )
    narrator = LineNarrator()
    with converted_errors():
        if Path(engine).is_file():
            request = replace(request, engine="").on_top_of(_unpack_bundle(Path(engine), key))
        former = _find_current(request.software)
        result = ask_for_update(folder, request, narrator)
    if result.is_in_force and request.software:
        _keep_software(Path(request.software), former)
    narrator.note(result.text)
    raise typer.Exit(0 if result.is_in_force else 1)


def _unpack_bundle(file: Path, key: str) -> UpdateRequest:
    """Verify a bundle, put its contents where `serve` finds them, and return the update to them."""
    from r1plus_edge.bundle_contents import install_contents

    os.umask(os.umask(0o077) | 0o022)  # What runs out of these folders is for nobody else to change.
    bundle, software = open_bundle(file, (key,) if key else load_keys(find_keys_file())), ""
    if Part.WHEELS in bundle.parts:
        own = Path(sys.prefix)
        slot = install_software(bundle, own.parent if is_slot(own) else find_software_root())
        if not is_own(slot):  # Its own release knows best what else is in the bundle.
            program = str(find_program(slot))
            os.execv(program, [program, *sys.argv[1:]])  # noqa: S606 - our own program
        software = str(slot)
    contents = install_contents(bundle, find_cache())
    engine, catalog, suite = (str(one or "") for one in (contents.engine, contents.catalog, contents.suite))
    if not (engine or suite or software):
        raise EdgeError(f"{file}: has neither software nor an engine nor a golden suite, so there is nothing to update")
    return UpdateRequest(engine=engine, catalog=catalog, suite=suite, software=software)


def _find_current(software: str) -> Path:
    """Return the software that starts now."""
    return (Path(software).parent / CURRENT).resolve()


def _keep_software(software: Path, former: Path) -> None:
    """Let the next start run it, and remove software that is neither this nor the one before."""
    if make_current(software):
        remove_other_slots(software.parent, (software, former))
        return
    sys.stderr.write(
        f"{software.parent / CURRENT}: cannot be changed, so the next start runs what served before; its owner has to"
        f" let it name {software.name}\n"
    )


def _make_absolute(text: str) -> str:
    """Return the path as it holds for another process; a name that is no folder stays as it is."""
    return str(Path(text).absolute()) if text and Path(text).is_dir() else text


def _read_deployment(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"-f {file}: {error}; name a file with an R1PlusDeployment") from error


def _read_suite_texts(suite: str) -> dict[str, str]:
    """Return file -> text of the suite's folder; none where it is the name of a shipped one."""
    if not suite or not Path(suite).is_dir():
        return {}
    try:
        return read_suite_texts(Path(suite))
    except (OSError, ValueError) as error:
        raise UsageError(f"--suite {suite}: {error}; `r1plus suite verify {suite}` lists all") from error


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
    while find_holder(folder) == pid or not has_ended(pid):
        if time.monotonic() > deadline:
            raise CliError(f"process {pid} did not end in {STOP_SECONDS:g} s; end it with `kill -9 {pid}`")
        time.sleep(0.1)
    sys.stdout.write("Stopped; nothing is left running\n")


def _find_folder(data: Path | None) -> DataFolder:
    return DataFolder((data or find_default_data()).absolute())


@contextlib.contextmanager
def converted_errors() -> Iterator[None]:
    """Turn errors of the edge tier into the command line's."""
    try:
        yield
    except EdgeError as error:
        raise (UsageError if error.status == UsageError.status else CliError)(str(error)) from error


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """The options of the command line that decide what is served; those of an update are on top of them."""

    tier: Tier | None
    file: str | None
    engine: str
    gate: Gate | None
    own_suites: tuple[str, ...]
    """As given with --suite; the last one is asked for."""
    listening: Listening
    data: Path | None
    catalogs: tuple[Path, ...]
    """The engines of a later one replace those of the same name."""
    suites: Path
    family: str
    is_file_updated: bool = False
    """Whether `file` is an update's; then the suite that it names holds."""

    def update(self, request: UpdateRequest) -> "ServeArguments":
        """Return the arguments with an update on top. A file of its own says all that it can say."""
        updated = self
        if request.file:
            updated = replace(updated, tier=None, gate=None, engine="", file=request.file, is_file_updated=True)
        return replace(
            updated,
            engine=request.engine or updated.engine,
            own_suites=(*self.own_suites, request.suite) if request.suite else self.own_suites,
            catalogs=(*self.catalogs, Path(request.catalog)) if request.catalog else self.catalogs,
        )


def build_options(arguments: ServeArguments, documents: dict[str, list[Document]] | None = None) -> "ServeOptions":
    """Read what the arguments name. Raises CliError, EdgeError: it cannot be read, or means nothing here.

    `documents`: of `arguments.file`, where it was read before: standard input gives them once.
    """
    from r1plus_edge.options import ServeOptions  # With the libraries of extra `edge`, as above.

    engines = tuple(
        {
            engine.name: engine
            for folder in arguments.catalogs
            for engine in local.load_engines(folder, arguments.family)
        }.values()
    )
    sources, digests, suite = local.load_suites(arguments.suites), set(SHIPPED_SUITES.values()), ""
    for given in arguments.own_suites:
        suite = given
        if given not in sources:
            own = _read_suite(Path(given))
            sources, suite = {**sources, own.name: own}, own.name
            # Who names the folder decides what serves on this machine.
            digests.add(own.digest)
    documents = documents or _read_file(arguments.file, arguments.tier)
    if arguments.is_file_updated and documents[KIND_TENANT]:
        raise UsageError(f"-f {arguments.file}: an R1PlusTenant holds from a start on: give it to `r1plus serve`")
    request = _read_request(arguments, documents[KIND_DEPLOYMENT], suite, engines)
    tenant = read_tenant(documents[KIND_TENANT], arguments.catalogs, request.namespace)
    selected, files = select_engines(arguments.engine, engines)
    if arguments.engine and request.spec.tier not in (tiers := {engine.spec.tier: engine.name for engine in selected}):
        tier, name = next(iter(tiers.items()))
        raise UsageError(
            f"--engine {name}: it is of tier {tier.value}, and tier {request.spec.tier.value} is asked for; give --tier"
            f" {tier.value}, or `tier: {tier.value}` in an R1PlusDeployment, also to `r1plus serve update -f`"
        )
    if arguments.engine and len(selected) == 1:
        request = request.select_engine(selected[0])

    def reread(update: UpdateRequest) -> ServeOptions:
        try:
            return build_options(arguments.update(update), None if update.file else documents)
        except CliError as error:
            raise RequestError(str(error)) from error

    return ServeOptions(
        request=request,
        engines=selected,
        suites=sources,
        trust=SuiteTrust(shipped_digests=frozenset(digests)),
        family=arguments.family,
        data=(arguments.data or find_default_data()).absolute(),
        listening=arguments.listening,
        reread=reread,
        given_engine=files,
        catalog=engines,
        words=tuple(sys.argv[1:]),
        bake_seconds=float(os.environ.get("R1PLUS_BAKE_SECONDS", BAKE_SECONDS)),
        tenant=tenant,
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


def _read_file(file: str | None, tier: Tier | None) -> dict[str, list[Document]]:
    """Return kind -> objects of the file. With --tier an R1PlusTenant is enough."""
    if file is None and tier is None:
        raise UsageError("--tier: say what to serve: full, lite or edge; or give an R1PlusDeployment with -f")
    kinds = (KIND_DEPLOYMENT,) if tier is None else (KIND_DEPLOYMENT, KIND_TENANT)
    documents = read_documents(file, *kinds) if file is not None else {KIND_DEPLOYMENT: [], KIND_TENANT: []}
    if len(documents[KIND_DEPLOYMENT]) > 1:
        raise UsageError(f"-f {file}: has {len(documents[KIND_DEPLOYMENT])} R1PlusDeployments; one machine serves one")
    return documents


def _read_request(
    arguments: ServeArguments, deployments: list[Document], suite: str, engines: tuple[Engine, ...]
) -> Request:
    tier = arguments.tier
    name = tier.value if tier is not None else ""
    body = {"apiVersion": API_VERSION, "metadata": {"name": name}, "spec": {"tier": name}}
    document = Document("--tier", body)
    if deployments:
        (document,) = deployments
    if problems := find_problems(document, engines, local.build_config(arguments.family)):
        raise UsageError("\n".join(f"{document.title}: {problem}" for problem in problems))
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec)
    except ValidationError as error:
        raise UsageError(f"{document.title}: {error}") from error
    if arguments.is_file_updated and spec.accuracy.suite:
        suite = ""
    namespace = str(document.metadata.get("namespace") or DEFAULT_NAMESPACE)
    return build_request(document.name, namespace, spec, tier=name, gate=arguments.gate, suite=suite)


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
        ("documents", f"searched by {status.search}" if status.search else ""),
        *(("helpers", f"not confined: {one}") for one in status.confinement),
        ("gate", f"{status.percent} %" if status.phase is ServePhase.GATING else ""),
        ("rollback", status.rollback),
        ("update", status.update),
        ("restarts", str(status.restarts)),
        ("metrics", status.metrics_url),
        ("monitor", status.monitor_url),
        ("logs", str(folder.logs)),
    ]
    sys.stdout.writelines(f"{name:<11} {value}\n" for name, value in rows if value)
    sys.stdout.writelines(f"            {line}\n" for line in (*status.conditions, *status.failures))
