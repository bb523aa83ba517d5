"""What a tenant's administrators do with stored content, through its gateway. Called by `tenant_app`."""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.gateway.admin_api import LONG_SECONDS, Json
from r1plus_cli.gateway.target import GatewayOption, call
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console

ERASED: Final = ("conversations", "items", "responses", "memories", "files", "vector_stores", "chunks")
"""Counts of a receipt; that of an older gateway has the first three."""
POLL_SECONDS: Final = 2.0
STALLED_SECONDS: Final = 180.0
"""Without progress: the gateway has stopped the rotation, or is busy."""


def erase_command(
    end_user: Annotated[
        str | None, typer.Option("--end-user", help="Id of a person, as in header x-r1plus-end-user: with every key.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Id of a key: with all its end users.")] = None,
    account: Annotated[
        str | None, typer.Option("--service-account", help="NAMESPACE/NAME of a ServiceAccount.")
    ] = None,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="New file for the signed receipt. By default it is printed.")
    ] = None,
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Erase stored conversations, responses, memories and knowledge, and destroy their keys. This cannot be undone.

    The receipt says what went, and which keys were destroyed. Usage and audit log stay; they name no person. Exit
    status 1 if nothing was stored. If it ends early, the gateway goes on, and the same command prints the receipt.

    Example: `r1plus tenant erase --end-user anna@example.com --receipt anna.json -n team-credit`
    """
    named = {"end_user": end_user, "key": key, "service_account": account}
    body = {name: value for name, value in named.items() if value}
    if len(body) != 1:
        raise UsageError("Name one of --end-user, --key and --service-account")
    if receipt is not None and receipt.exists():
        raise UsageError(f"--receipt: {receipt} exists; name a new file")
    if not is_confirmed:
        typer.confirm(f"Erase what is stored for {next(iter(body.values()))}? This cannot be undone", abort=True)
    answer = call(kubeconfig, namespace, gateway, "POST", "/erasures", body=body, seconds=LONG_SECONDS)
    text = json.dumps(answer, indent=1)
    if receipt is None:
        sys.stdout.write(f"{text}\n")
    else:
        with receipt.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    if not any(answer.get(name) for name in (*ERASED, "data_keys")):
        raise CliError(
            f"Nothing is stored for {next(iter(body.values()))}; check the spelling. The receipt proves that nothing"
            " was deleted"
        )
    counts = ", ".join(f"{name.replace('_', ' ')}: {answer[name]}" for name in ERASED if name in answer)
    summary = f"Erased {counts}; data keys destroyed: {len(answer['data_keys'])}"
    Console(stderr=True, soft_wrap=True).print(Text(summary, style="dim"))


def rotate_data_keys_command(
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Give the content of each caller and end user a new key. What older keys encrypted is encrypted again meanwhile.

    Nothing stops. While a rotation is under way, this begins no other and says how much is left.
    """
    state = call(kubeconfig, namespace, gateway, "GET", "/data-keys", seconds=LONG_SECONDS)
    if not state["older_keys"]:
        state = call(kubeconfig, namespace, gateway, "POST", "/data-keys/rotate", seconds=LONG_SECONDS)
        open_console().print(Text(f"{state['owners']} owners of content have a new key"))
    open_console().print(
        Text(f"{state['rows_left']} rows are left to encrypt again; {state['older_keys']} older keys go after that")
    )


def confirm_time_command(
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Let a tenant's gateway go by its machine's clock, once that is right. A log record says who did.

    Where a gateway starts with a clock more than 7 days ahead, retention waits for this; then it deletes what is older
    than its time. A ledger that followed a clock ahead goes back: limits per minute begin again, and so may a month.
    """
    answer = call(kubeconfig, namespace, gateway, "POST", "/time/confirm")
    now = datetime.fromtimestamp(answer["now"], UTC)
    open_console().print(Text(f"The gateway goes by {now:%Y-%m-%dT%H:%M:%SZ}"))


def rotate_root_command(
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Give a tenant a new root, so that who knows the old one reads neither later data nor later backups.

    Rotate the Secret's half before (`rotate-key`, then `--finish`): an older half opens the new root, too. API keys,
    end users, usage, audit log and receipts stay valid. Requests wait while the file on the volume is encrypted again.
    Then this waits until content is encrypted again, which goes on without it.

    Example: `r1plus tenant rotate-root -n team-credit`
    """
    state = call(kubeconfig, namespace, gateway, "POST", "/root/rotate", seconds=LONG_SECONDS)
    _say(f"Root {state['id']} replaces the one before, and {state['owners']} owners of content have a new key")

    def read_state() -> Json:
        return call(kubeconfig, namespace, gateway, "GET", "/data-keys", seconds=LONG_SECONDS)

    wait_until_encrypted(state, read_state, _say)
    _say(
        "The rotation has ended. Make a backup, with a new keys file: r1plus tenant backup. Older backups need the keys"
        " file and the recovery export of their time"
    )


def wait_until_encrypted(
    state: Json,
    read_state: Callable[[], Json],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until no older data key is left, and say how far it is. Raises CliError where nothing goes on."""
    seconds = 0.0
    while state["older_keys"]:
        if seconds == 0:
            say(f"{state['rows_left']} rows are left to encrypt again; {state['older_keys']} older keys go after that")
        if seconds >= STALLED_SECONDS:
            raise CliError(
                f"The root is replaced, but {state['rows_left']} rows of content were not encrypted again for"
                f" {seconds:g} s. The gateway's log names a row that does not decrypt; r1plus tenant rotate-data-keys"
                " says how much is left"
            )
        sleep(POLL_SECONDS)
        seconds, before = seconds + POLL_SECONDS, state
        state = read_state()
        if state != before:
            seconds = 0.0


def verify_receipt_command(
    file: Annotated[Path, typer.Argument(help="The receipt.", exists=True, dir_okay=False)],
    public_key: Annotated[
        str, typer.Option("--public-key", help="The tenant's, as you noted it. By default its gateway is asked.")
    ] = "",
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Verify the receipt of an erasure. Exit status 1 if it was changed, or is not this tenant's."""
    from r1plus_gateway.store.upkeep.erasure import verify_receipt

    key = public_key or str(call(kubeconfig, namespace, gateway, "GET", "/receipt-key")["public_key"])
    document = _read_receipt(file)
    if document is None or not verify_receipt(document, key):
        raise CliError(f"{file} is not a receipt that key {key} has signed: it was changed, or is another tenant's")
    open_console().print(Text(f"Receipt {document['id']} is whole: signed by {key}"))


def _read_receipt(file: Path) -> Json | None:
    """Return a receipt; None if it is none.

    A name that is there twice would show its readers another value than the signed one.
    """
    try:
        document = json.loads(file.read_bytes(), object_pairs_hook=_build_object)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _build_object(pairs: list[tuple[str, Any]]) -> Json:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise ValueError("a name is there twice")
    return built


def _say(text: str) -> None:
    open_console().print(Text(runnable_hint(text)))
