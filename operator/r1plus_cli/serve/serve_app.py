"""`r1plus serve`: a deployment on this machine, without a cluster. The edge tier does it; here are its options."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from r1plus_cli import local
from r1plus_cli.documents import STDIN
from r1plus_cli.errors import CliError, UsageError, converted_errors
from r1plus_cli.options import Output, OutputOption, print_document
from r1plus_cli.serve.arguments import ServeArguments, build_options
from r1plus_contract.verdict import Gate
from r1plus_edge.data_folder import DataFolder, check_readable, find_holder
from r1plus_edge.pods.places import LOOPBACK
from r1plus_edge.pods.processes import EndWatch, find_processes, list_children, send
from r1plus_edge.report import LineNarrator, ServePhase, ServeStatus, read_status
from r1plus_edge.start.background import find_parent, start_in_background
from r1plus_edge.start.engines import find_default_data
from r1plus_edge.start.listening import Listening, adopt_listening, read_listening
from r1plus_edge.update.handover import Handover, HandoverKind, return_handover, take_handover
from r1plus_edge.usage import describe_usage, is_journal
from r1plus_model_repo.catalog.types import Tier

if TYPE_CHECKING:
    from r1plus_edge.update.options import UpdatableOptions

STOP_SECONDS = 4.5
"""From the first signal until this process has ended, whatever it does then."""
WAIT_SECONDS = 30.0
"""For `serve stop`, where the process is not ours to end."""
_STANDARD_OUTPUT = 1
app = typer.Typer(name="serve", invoke_without_command=True)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", readable=False, help="Folder for state, keys and logs; by default ~/.local/share/r1plus/edge."
    ),
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

    Example: `r1plus serve --tier edge`
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
    _end_at_once()


def _end_at_once() -> NoReturn:
    """End this process without the interpreter's own end: to free all that is loaded takes seconds on busy cores."""
    with contextlib.suppress(OSError):  # Who reads it may be gone.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def _read_listening(listen: str, cert: Path | None, key: Path | None, handover: Handover | None) -> Listening:
    """Return where to listen; what another release hands over listens already."""
    if handover is None or not handover.listener:
        return read_listening(listen, cert, key)
    with socket.socket(fileno=os.dup(handover.listener)) as listener:
        return adopt_listening(listen, cert, key, listener)


async def _serve_until_signal(options: "UpdatableOptions", handover: Handover | None) -> None:
    """Serve; the first signal ends it, further ones change nothing: it takes `STOP_SECONDS` at most."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    from r1plus_edge.update.supervisor import (
        serve,  # With the libraries of extra `edge`, which other verbs do not need.
    )

    folder, parent = DataFolder(options.data.absolute()), find_parent()

    def announce(status: ServeStatus) -> str:
        return describe_usage(status, folder, shows_key=not is_journal(sys.stdout.fileno()))

    def leave() -> None:
        if parent is not None:
            parent.release(folder.logs / "serve.log")

    narrator = LineNarrator(announce, leave)
    task = asyncio.create_task(serve(options, narrator, handover))
    end = build_end(task, limit_stop)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: end())
    if parent is not None:
        asyncio.get_running_loop().add_reader(parent.descriptor, lambda: parent.check(end))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    narrator.note("Stopped; nothing is left running")


def build_end(task: asyncio.Task[None], limit: Callable[[], None]) -> Callable[[], None]:
    """Return what cancels a task once. A second time would cut off what it does to end well.

    `limit`: begins the time that the end may take. A signal's handler calls it at once, in any turn of the event loop.
    """
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        if not has_ended:
            has_ended = True
            limit()
            with contextlib.suppress(RuntimeError):  # Its loop is closed: it has ended by itself.
                task.get_loop().call_soon_threadsafe(task.cancel)

    return end


def limit_stop(seconds: float = STOP_SECONDS) -> None:
    """Let the kernel's clock end this process, whatever it does then, such as wait for a thread that reads an engine.

    Its children die with it, and its guardian ends what they have started.
    """
    text = f"Stopped after {seconds:g} s; what still ran is killed\n".encode()

    def end(number: int, frame: FrameType | None) -> NoReturn:
        with contextlib.suppress(OSError):  # Who reads it may be gone.
            os.write(_STANDARD_OUTPUT, text)
        os._exit(0)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


@app.command("status")
def status_command(data: DataOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show what serves on this machine: its engine, its measured accuracy, what is wrong and what to do."""
    folder = _find_readable_folder(data)
    status = read_status(folder.status)
    if status is None:
        again = f" --data {data}" if data else ""
        raise CliError(f"--data {folder.root}: nothing was served there; start it: r1plus serve --tier edge{again}")
    if find_holder(folder) is None:
        # A killed one could not write its end.
        status = replace(status, phase=ServePhase.STOPPED, pid=0, message="", update="", conditions=(), failures=())
    if output is Output.TABLE:
        _show_status(status, folder)
    else:
        print_document(status, output)
    raise typer.Exit(0 if status.phase is ServePhase.SERVING else 1)


@app.command("stop")
def stop_command(data: DataOption = None) -> None:
    """Stop what serves on this machine, and wait until nothing of it runs."""
    folder = _find_readable_folder(data)
    pid = find_holder(folder)
    if pid is None:
        sys.stdout.write(f"Nothing serves from {folder.root}\n")
        return
    if pid <= 0:  # A signal to it would reach a group of processes, or all of them.
        raise CliError(
            f"--data {folder.root}: who serves from it runs in another container, or on another machine; stop it there"
        )
    watch = EndWatch()
    with contextlib.suppress(OSError):  # It has ended meanwhile.
        watch.add([pid, *list_children(pid)])  # Its guardian, which has no mark, too.
    try:
        send(pid, signal.SIGTERM)
    except PermissionError as error:
        raise CliError(f"--data {folder.root}: process {pid} is another user's; ask its owner to stop it") from error
    _await_end(folder, pid, watch)
    sys.stdout.write("Stopped; nothing is left running\n")


def _await_end(folder: DataFolder, pid: int, watch: EndWatch) -> None:
    """Wait until what serves, and all that it has started, have ended. Raises CliError: they do not."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        holder = find_holder(folder)
        if holder in (pid, None):  # Else another one serves already, with processes of its own.
            watch.add(find_processes(folder.root))
        running = watch.list_running()
        if holder != pid and not running:
            return
        if time.monotonic() > deadline:
            left = " ".join(map(str, sorted(running))) or str(pid)
            raise CliError(
                f"--data {folder.root}: not ended in {WAIT_SECONDS:g} s: {left}; end it with `kill -9 {left}`"
            )
        time.sleep(0.1)


def find_folder(data: Path | None) -> DataFolder:
    return DataFolder((data or find_default_data()).absolute())


def _find_readable_folder(data: Path | None) -> DataFolder:
    folder = find_folder(data)
    with converted_errors():
        check_readable(folder)
    return folder


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
        ("schemas", status.schemas),
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
