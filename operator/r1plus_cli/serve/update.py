"""`r1plus serve update`: what is asked for, and the software of a bundle, in its slot."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli.errors import UsageError, converted_errors
from r1plus_cli.serve.serve_app import DataOption, find_folder
from r1plus_cli.serve.serve_app import app as app
from r1plus_edge.bundle.archive import open_bundle
from r1plus_edge.bundle.install import (
    ALLOW_OLDER,
    CURRENT,
    check_age,
    find_environment,
    find_software_root,
    install_software,
)
from r1plus_edge.bundle.keys import find_keys_file, load_keys
from r1plus_edge.bundle.manifest import Part
from r1plus_edge.control import ask_for_update
from r1plus_edge.errors import EdgeError
from r1plus_edge.report import LineNarrator
from r1plus_edge.start.engines import find_cache
from r1plus_edge.update.request import UpdateRequest, read_suite_texts
from r1plus_edge.update.slots import find_program, is_own, is_slot, make_current, remove_other_slots


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
    is_older_allowed: Annotated[
        bool, typer.Option(ALLOW_OLDER, help="Take a bundle whose software is older than what is installed.")
    ] = False,
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
    folder = find_folder(data)
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
            request = replace(request, engine="").on_top_of(
                _unpack_bundle(Path(engine), key, is_older_allowed=is_older_allowed)
            )
        former = _find_current(request.software)
        result = ask_for_update(folder, request, narrator)
    if result.is_in_force and request.software:
        _keep_software(Path(request.software), former)
    narrator.note(result.text)
    raise typer.Exit(0 if result.is_in_force else 1)


def _unpack_bundle(file: Path, key: str, *, is_older_allowed: bool) -> UpdateRequest:
    """Verify a bundle, put its contents where `serve` finds them, and return the update to them."""
    from r1plus_edge.bundle.contents import install_contents

    os.umask(os.umask(0o077) | 0o022)  # What runs out of these folders is for nobody else to change.
    bundle, software = open_bundle(file, (key,) if key else load_keys(find_keys_file())), ""
    if Part.WHEELS in bundle.parts:
        own = Path(sys.prefix)
        root = own.parent if is_slot(own) else find_software_root()
        slot = find_environment(bundle, root)
        if not is_own(slot):
            if not is_older_allowed:
                check_age(bundle, root / CURRENT)
            # Its own release knows best what else is in the bundle; an older one does not know this option.
            program = str(find_program(install_software(bundle, root)))
            os.execv(program, [program, *(word for word in sys.argv[1:] if word != ALLOW_OLDER)])  # noqa: S606
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
