"""`r1plus tenant`: half of a tenant's key, made, restored and rotated by the platform team; backup and erasure."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption
from r1plus_cli.tenant.backup import backup_command, restore_command, verify_backup_command
from r1plus_cli.tenant.key_halves import begin_rotation, create_half, finish_rotation, restore_halves
from r1plus_cli.tenant.stored_content import (
    confirm_time_command,
    erase_command,
    rotate_data_keys_command,
    rotate_root_command,
    verify_receipt_command,
)
from r1plus_contract.gateway import GATEWAY_KEY

app = typer.Typer(
    name="tenant",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Makes, restores and rotates a tenant's keys; backs up, restores and erases what its gateway stores.

`init` and `rotate-key` are for the platform team, which may write Secrets. The gateway's volume has the other half;
neither opens the tenant's data alone. Keep the recovery export offline: if Secret and export are both lost, the data
are lost. The other verbs are for those whom `spec.admins` of the R1PlusTenant names.
""",
)
NamespaceOption = Annotated[str, typer.Option("-n", "--namespace", help="The tenant.")]


@app.command("init")
def init_command(
    namespace: NamespaceOption,
    export: Annotated[
        Path | None, typer.Option("--export", help="New file for the recovery export, to be kept offline.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Recovery export to restore the Secret from.")] = None,
    is_another_cluster: Annotated[
        bool,
        typer.Option(
            "--another-cluster", help="With --from: the export is of this tenant in another cluster. No question."
        ),
    ] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Make the Secret with half of a tenant's key, or restore it from a recovery export.

    Example: `r1plus tenant init -n team-credit --export /media/safe/team-credit.json`
    """
    if (export is None) == (source is None):
        raise UsageError("Give --export FILE for a new tenant, or --from FILE to restore its Secret")
    cluster = connect(kubeconfig)
    if export is not None:
        create_half(cluster, namespace, export)
        _say(f"Secret {namespace}/{GATEWAY_KEY} is made. Move {export} to a place offline: it restores the Secret")
    elif source is not None:
        is_foreign = restore_halves(cluster, namespace, source, lambda text: is_another_cluster or _ask(text))
        then = "The gateway opens the tenant's data within two minutes"
        if is_foreign:
            then = f"Next, once the gateway is ready: r1plus tenant restore -n {namespace} --file BACKUP --keys KEYS"
        _say(f"Secret {namespace}/{GATEWAY_KEY} is restored. {then}")


@app.command("rotate-key")
def rotate_command(
    namespace: NamespaceOption,
    export: Annotated[
        Path | None, typer.Option("--export", help="New file for the recovery export, with both halves.")
    ] = None,
    is_last_step: Annotated[bool, typer.Option("--finish", help="Remove the older half.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Rotate half of a tenant's key: add a new one, and later remove the old one. Nothing stops meanwhile.

    1. `r1plus tenant rotate-key -n team-credit --export NEW` adds a half; the gateway uses both within two minutes
    2. `r1plus tenant rotate-key -n team-credit --finish`, after that, removes the older one
    """
    if (export is None) == (not is_last_step):
        raise UsageError("Give --export FILE to begin a rotation, or --finish to end it")
    cluster = connect(kubeconfig)
    if export is not None:
        name = begin_rotation(cluster, namespace, export)
        _say(
            f"{name} is added to Secret {namespace}/{GATEWAY_KEY}. Move {export} to a place offline. After 5 minutes:"
            f" r1plus tenant rotate-key -n {namespace} --finish"
        )
    else:
        _say(
            f"{finish_rotation(cluster, namespace)} is removed from Secret {namespace}/{GATEWAY_KEY}. If somebody may"
            f" have it, and a snapshot of the volume: after 5 minutes r1plus tenant rotate-root -n {namespace}"
        )


app.command("backup")(backup_command)
app.command("restore")(restore_command)
app.command("verify-backup")(verify_backup_command)
app.command("rotate-data-keys")(rotate_data_keys_command)
app.command("confirm-time")(confirm_time_command)
app.command("rotate-root")(rotate_root_command)
app.command("erase")(erase_command)
app.command("verify-receipt")(verify_receipt_command)


def _ask(question: str) -> bool:
    """Ask a person; nobody is there to answer where no terminal is."""
    return sys.stdin.isatty() and typer.confirm(question)


def _say(text: str) -> None:
    Console(soft_wrap=not sys.stdout.isatty()).print(Text(runnable_hint(text)))
