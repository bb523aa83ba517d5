"""`r1plus edge`: bundles for machines without a network. The edge tier does the work; here are its options."""

import asyncio
import hashlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli import local
from r1plus_cli.errors import UsageError, converted_errors
from r1plus_cli.suite.suite_app import read_signing_key, say
from r1plus_contract.suites.suite_files import key_id
from r1plus_edge.bundle.archive import open_bundle
from r1plus_edge.bundle.keys import find_keys_file, load_keys
from r1plus_edge.bundle.manifest import SBOM_FILE, BundleManifest, Part
from r1plus_edge.errors import EdgeError
from r1plus_edge.start.engines import find_cache, select_engines
from r1plus_model_repo.importing.triton_server import PYTHON

app = typer.Typer(
    name="edge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Makes and installs bundles: all that a machine without a network needs to serve, in one signed file.

1. `r1plus suite keygen --out bundle-key.pem` once; give its public half to the machines' owners, on another way
2. `r1plus edge bundle r1plus.tar --software --triton --engine smollm2-edge-q4-1 --key bundle-key.pem`
3. on the machine: `python3 install.pyz r1plus.tar --key PUBLIC-KEY`

See docs/edge.md.
""",
)


@app.command("bundle")
def bundle_command(
    out: Annotated[Path, typer.Argument(metavar="OUT.tar", help="The bundle's file.")],
    key: Annotated[Path, typer.Option("--key", help="The private key, PEM, Ed25519: r1plus suite keygen makes one.")],
    engine: Annotated[str, typer.Option("--engine", help="Name of an engine of the catalog, or its folder.")] = "",
    suite: Annotated[str, typer.Option("--suite", help="Name of a shipped golden suite, or a folder.")] = "",
    software: Annotated[bool, typer.Option("--software", help="r1plus and all packages that it needs.")] = False,
    triton: Annotated[bool, typer.Option("--triton", help="tritonserver.")] = False,
    catalog: Annotated[
        Path, typer.Option("--catalog", help="Folder with R1PlusEngines; by default the shipped catalog.")
    ] = local.SHIPPED_CATALOG,
) -> None:
    """Write a bundle, signed, with a bill of materials. The same contents and the same key give the same bytes.

    With **--software**, the installer install.pyz is written beside it. A first installation needs --software,
    --triton and --engine; an update has what changes.
    """
    from r1plus_edge.bundle.contents import TRITON, gather_engine, gather_suite
    from r1plus_edge.bundle.installer import INSTALLER, build_installer
    from r1plus_edge.bundle.sbom import build_sbom
    from r1plus_edge.bundle.software import find_project, gather_wheels, read_wheel_version
    from r1plus_edge.bundle.writer import Signer, list_folder, write_bundle
    from r1plus_edge.start.preparation import prepare_engine, prepare_triton

    if not (engine or suite or software or triton):
        raise UsageError("nothing to pack: give --software, --triton, --engine or --suite")
    pair, cache = read_signing_key(key), find_cache()
    with converted_errors(), _open_scratch(cache) as scratch:
        sources: dict[str, Path] = {}
        manifest = BundleManifest(
            version("r1plus"), platform.machine(), PYTHON if software else "", (), triton=TRITON if triton else ""
        )
        if software:
            gather_wheels(find_project(), cache, scratch / "wheels", say)
            sources |= list_folder(Part.WHEELS, scratch / "wheels")
            manifest = replace(manifest, software=read_wheel_version(scratch / "wheels"))
        if triton:
            sources |= list_folder(Part.TRITON, asyncio.run(prepare_triton(cache, scratch, say)))
        if engine:
            known = local.load_engines(catalog)
            selected, folder = select_engines(engine, known)
            files = asyncio.run(prepare_engine(selected[0], folder, cache, scratch, say))
            sources |= gather_engine(selected[0], files, known, scratch)
            manifest = replace(manifest, engine=selected[0].name)
        if suite:
            name, suite_folder = _find_suite(suite)
            sources |= gather_suite(suite_folder)
            manifest = replace(manifest, suite=name)
        (scratch / SBOM_FILE).write_bytes(build_sbom(manifest, sources))
        sources[SBOM_FILE] = scratch / SBOM_FILE
        digest = write_bundle(out, sources, manifest, Signer(pair.public, pair.sign))
        if software:
            installer = build_installer()
            out.with_name(INSTALLER).write_bytes(installer)
    say(f"{out}: {out.stat().st_size / 2**20:.0f} MiB, {len(sources)} files, digest {digest}")
    say(f"signed by key {key_id(pair.public)}; give its public half to who installs it, and not with the bundle:")
    sys.stdout.write(f"{pair.public}\n")
    if software:
        say(f"installer {out.with_name(INSTALLER)}, sha256 {hashlib.sha256(installer).hexdigest()}")


@app.command("install")
def install_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's file.")],
    key: Annotated[
        str, typer.Option("--key", help="Public key of who made it; by default those that were given before.")
    ] = "",
    start: Annotated[bool, typer.Option("--start/--no-start", help="Serve in the background when it is done.")] = True,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Of `r1plus serve`, such as -- --data FOLDER.")
    ] = None,
) -> None:
    """Put Triton, engine and suite of a bundle where `r1plus serve` finds them, and serve. Nothing is fetched.

    Its software is not installed: this one does it. `install.pyz`, beside the bundle, begins with the software.
    """
    from r1plus_edge.bundle.contents import install_contents, needs_catalog

    with converted_errors():
        verified = open_bundle(bundle, (key,) if key else load_keys(find_keys_file()))
        began, known = time.monotonic(), local.load_engines(local.SHIPPED_CATALOG)
        contents = install_contents(verified, find_cache())
        parts = ", ".join(sorted(one.value for one in verified.parts - {Part.WHEELS}))
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  contents  {parts} from {bundle.name}\n")
        command = [str(Path(sys.prefix) / "bin" / "r1plus"), "serve"]
        if contents.engine is not None and contents.catalog is not None:
            if is_own := needs_catalog(contents.engine, known):
                known = local.load_engines(contents.catalog)
            (chosen, *_), _ = select_engines(str(contents.engine), known)
            command += ["--tier", chosen.spec.tier.value, "--engine", str(contents.engine)]
            command += ["--catalog", str(contents.catalog)] if is_own else []
        if contents.suite is not None:
            command += ["--suite", str(contents.suite)]
    command += options or []
    if not start:
        sys.stdout.write(f"\n  serve    {' '.join(command)}\n")
        return
    if contents.engine is None and not options:
        raise UsageError(f"{bundle}: has no engine, so there is nothing to serve; give --no-start, or -- --tier TIER")
    sys.stdout.flush()
    os.execv(command[0], [*command, "--background"])  # noqa: S606 - our own command takes over


def _find_suite(wanted: str) -> tuple[str, Path]:
    """Return name and folder of a golden suite."""
    folder = local.SHIPPED_SUITES / wanted
    if not folder.is_dir():
        folder = Path(wanted)
    if not folder.is_dir():
        names = ", ".join(sorted(local.load_suites(local.SHIPPED_SUITES)))
        raise UsageError(f"--suite {wanted}: no shipped suite has this name, and no folder; shipped are {names}")
    return folder.absolute().name, folder


@contextmanager
def _open_scratch(cache: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of the cache, and remove it at the end."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".bundle-", dir=cache)
    except OSError as error:
        raise EdgeError(f"{cache}: {error.strerror}; name another folder with R1PLUS_CACHE") from error
    with folder as name:
        yield Path(name)
