"""`r1plus serve install` and `uninstall`: what serves as a service of systemd."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli.errors import converted_errors
from r1plus_cli.serve.owner import app as app
from r1plus_edge.start.engines import find_cache, find_default_data
from r1plus_edge.start.machine import read_machine
from r1plus_edge.start.service import NAME, build_service, find_command, find_unit, remove_unit, render_unit, write_unit

SystemOption = Annotated[
    bool, typer.Option("--system/--user", help="For the machine, which needs root, or for your user (the default).")
]
NameOption = Annotated[str, typer.Option("--name", help="Of the unit.")]


@app.command("install")
def install_command(
    options: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTIONS", help="Of `r1plus serve`, such as -- --tier edge.")
    ] = None,
    system: SystemOption = False,
    name: NameOption = NAME,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder of a user's service.")] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the unit, and write nothing.")] = False,
) -> None:
    """Write a systemd unit that serves from now on, restarts after a failure and sees little of the machine.

    Nothing is started: the lines that do it are printed. A service of the system runs as a user of its own, with its
    data in /var/lib/NAME. It reads this software and the cache of $R1PLUS_CACHE, and changes neither.

    Example: `r1plus serve install -- --tier edge`
    """
    with converted_errors():
        if not options:
            raise typer.BadParameter("say what to serve after `--`, such as -- --tier edge", param_hint="OPTIONS")
        folder, memory = (data or find_default_data()).absolute(), read_machine(Path("/")).memory_bytes
        service = build_service(
            name,
            options,
            memory,
            find_cache(),
            folder,
            is_system=system,
            command=find_command(Path(sys.prefix)),
        )
        if only_print:
            sys.stdout.write(render_unit(service))
            return
        unit = find_unit(name, is_system=system)
        write_unit(unit, service)
    manager = "systemctl" if system else "systemctl --user"
    lines = [f"{manager} daemon-reload", f"{manager} enable --now {name}", f"{manager} status {name}"]
    lines += [] if system else ["loginctl enable-linger    # to serve without a login"]
    sys.stdout.write(f"Written: {unit}\n\n" + "".join(f"  {line}\n" for line in lines))


@app.command("uninstall")
def uninstall_command(
    system: SystemOption = False,
    name: NameOption = NAME,
    remove_data: Annotated[
        bool, typer.Option("--remove-data", help="Remove its data folder, too: keys, memory, knowledge, verdicts.")
    ] = False,
) -> None:
    """Remove the unit that `install` wrote. Its data stay, unless you say otherwise."""
    with converted_errors():
        unit = find_unit(name, is_system=system)
        rest = remove_unit(unit, with_data=remove_data)
    sys.stdout.write(f"Removed: {unit}\n")
    if rest is not None:
        sys.stdout.write(f"Its data stay in {rest}\n")
    sys.stdout.write(f"\n  {'systemctl' if system else 'systemctl --user'} daemon-reload\n")
