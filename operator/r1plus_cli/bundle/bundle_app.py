"""`r1plus bundle`: verify a release's bundle, and push it to a registry."""

import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli.bundle.credentials import Login, find_login
from r1plus_cli.bundle.push_target import build_install_line, parse_target
from r1plus_cli.bundle.release import SBOM_PREDICATE
from r1plus_cli.bundle.verification import Release, open_release
from r1plus_cli.engine.output import say
from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_model_repo.engine_fetch.sigstore import load_public_key

app = typer.Typer(
    name="bundle",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Carries a release into a private network: one file with the images, the chart and this command.

1. `r1plus bundle verify r1plus-0.1.0.oci.tar --key release.pub`: who signed it, and that it is whole
2. `r1plus bundle push r1plus-0.1.0.oci.tar --key release.pub --to registry.bank.example/r1plus`
3. the `helm install` line that the push prints

Nothing else is needed: neither docker nor cosign. Signatures are Sigstore bundles by a key; `cosign verify --key` reads
them as well.
""",
)
BundleFile = Annotated[Path, typer.Argument(metavar="FILE", help="The bundle, such as r1plus-0.1.0.oci.tar.")]
KeyFiles = Annotated[
    list[Path], typer.Option("--key", help="Public key of the publisher, PEM. May be given more than once.")
]


@app.command("verify")
def verify_command(file: BundleFile, key: KeyFiles) -> None:
    """Verify a bundle: its signature, the digest of every byte, and that it has nothing that was not signed.

    Needs no network. Exit status 0: use it. 1: another key signed it. 2: it is cut, changed, or not a bundle.

    Example: `r1plus bundle verify r1plus-0.1.0.oci.tar --key release.pub`
    """
    with open_release(file, _read_keys(key)) as release:
        _print_contents(release)
    say(f"{file}: signed by your key, whole, and nothing unsigned in it", style="green")


@app.command("push")
def push_command(
    file: BundleFile,
    key: KeyFiles,
    to: Annotated[str, typer.Option("--to", help="Registry and path, such as registry.bank.example/r1plus.")],
    values: Annotated[
        Path | None, typer.Option("--values", help="File to write the chart's values to, for helm install -f.")
    ] = None,
    username: Annotated[str | None, typer.Option("--username", help="User, instead of a stored login.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password of --username from standard input.")
    ] = False,
    ca: Annotated[Path | None, typer.Option("--ca", help="CA certificates (PEM) of the registry.")] = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="The registry speaks HTTP.")] = False,
    move_tags: Annotated[
        bool, typer.Option("--move-tags", help="Move tags that name other content in the registry.")
    ] = False,
) -> None:
    """Verify a bundle, push it to a registry, and print the line that installs it.

    Logins are those of docker, podman and helm. What the registry has already is not sent again: run the command again
    after a failure, and it goes on. A tag appears after all that it names.

    Example: `r1plus bundle push r1plus-0.1.0.oci.tar --key release.pub --to registry.bank.example/r1plus`
    """
    from r1plus_cli.bundle.push import push_release  # Loads httpx, which no other command needs to start.
    from r1plus_cli.bundle.registry import OciRegistry

    target = parse_target(to)
    if values is not None and values.exists():
        raise UsageError(f"--values: {values} already exists; give another name, or set images.prefix in it yourself")
    login = _read_login(target.host, username, password_stdin)
    context = _load_ca(ca)
    with open_release(file, _read_keys(key)) as release:
        say(f"{file}: r1plus {release.lock.version}, verified; pushing to {target.prefix}")
        with OciRegistry(target.host, login, verify=context, is_plain=plain_http) as registry:
            result = push_release(
                release, registry, target, may_move_tags=move_tags, report=lambda line: say(line, style="dim")
            )
    sent, present = result.sent_bytes / 2**20, result.present_bytes / 2**20
    say(f"pushed: {sent:.0f} MiB sent, {present:.0f} MiB were there", style="green")
    if values is not None:
        values.write_text(f"images:\n  prefix: {target.prefix}\n")
    sys.stdout.write(runnable_hint(build_install_line(release.lock, target, values, plain_http)) + "\n")


def _read_keys(paths: list[Path]) -> list[str]:
    keys: list[str] = []
    for path in paths:
        try:
            keys.append(path.read_text())
            load_public_key(keys[-1])
        except (OSError, ValueError) as error:
            raise UsageError(f"--key: {path}: {getattr(error, 'strerror', None) or error}") from error
    return keys


def _read_login(host: str, username: str | None, reads_password: bool) -> Login | None:
    if username is None:
        if reads_password:
            raise UsageError("--password-stdin: needs --username")
        return find_login(host)
    if not reads_password:
        raise UsageError("--username: give the password with --password-stdin; a command line can be read by others")
    return Login(username, sys.stdin.readline().rstrip("\r\n"))


def _load_ca(path: Path | None) -> ssl.SSLContext | bool:
    if path is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca: {path}: not certificates in PEM: {error}") from error


def _print_contents(release: Release) -> None:
    for artifact in release.lock.artifacts:
        platforms = ", ".join(artifact.platforms) or artifact.kind.value
        bill = "with SBOM" if SBOM_PREDICATE in release.predicates[artifact.digest] else "no SBOM"
        sys.stdout.write(f"{artifact.repository}:{artifact.tag}  {artifact.digest}  {platforms}  {bill}\n")
    for file in release.lock.files:
        sys.stdout.write(f"{file.name}  {file.digest}\n")
