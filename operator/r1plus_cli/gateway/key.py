"""`r1plus key`: the API keys of a tenant's gateway, for its administrators."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.gateway.admin_api import GatewayTarget, Json, call_admin, find_models
from r1plus_cli.gateway.target import GatewayOption, call, find_target, format_time, print_rows
from r1plus_cli.options import (
    KubeconfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    open_console,
    parse_duration,
    print_document,
)

key_app = typer.Typer(
    name="key",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Administers the API keys of a tenant's gateway. For those whom `spec.admins` of the R1PlusTenant names.

Programs inside the cluster need no key: their ServiceAccount's token does. See docs/gateway-access.md.
""",
)
MOST_DIGITS: Final = 16
"""Of a bound: 2^53 has as many."""
_BOUND: Final = "A number, or none for no limit."
_KEY_HEADS: Final = ("ID", "NAME", "STATE", "MODELS", "LIMITS", "EXPIRES")

IdArgument = Annotated[str, typer.Argument(help="The key's id: the part between r1p_ and the next _.")]


@key_app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="What the key is for, in your words.")],
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A deployment it may call; repeat it. By default all.")
    ] = None,
    names_end_users: Annotated[
        bool, typer.Option("--end-users", help="It may name end users, by header x-r1plus-end-user.")
    ] = False,
    requests: Annotated[int | None, typer.Option("--requests-per-minute", min=0)] = None,
    tokens: Annotated[int | None, typer.Option("--tokens-per-minute", min=0)] = None,
    concurrent: Annotated[int | None, typer.Option("--concurrent-requests", min=0)] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=0, help="Tokens per calendar month, UTC.")] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends, such as 90d. By default never.")
    ] = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Make a key and print it. It is shown this once: nothing can show it again.

    Example: `r1plus key create "web shop" --model credit --budget 2000000 --expires 90d -n team-credit`
    """
    limits = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "concurrent_requests": concurrent,
        "budget_tokens": budget,
    }
    body: Json = {"name": name, "limits": {key: value for key, value in limits.items() if value is not None}}
    if models:
        body["models"] = models
    if names_end_users:
        body["scopes"] = ["end-users"]
    if expires is not None:
        body["expires_in_seconds"] = parse_duration("--expires", expires)
    target = find_target(kubeconfig, namespace, gateway)
    _show_issued(call_admin(target, "POST", "/keys", body=body), output)
    _note_unknown_models(target, models or [])


@key_app.command("update")
def update_command(
    key_id: IdArgument,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A deployment it may call, instead of those before; repeat it."),
    ] = None,
    has_all_models: Annotated[bool, typer.Option("--all-models", help="It may call all.")] = False,
    names_end_users: Annotated[
        bool | None, typer.Option("--end-users/--no-end-users", help="Whether it may name end users.")
    ] = None,
    requests: Annotated[str | None, typer.Option("--requests-per-minute", help=_BOUND)] = None,
    tokens: Annotated[str | None, typer.Option("--tokens-per-minute", help=_BOUND)] = None,
    concurrent: Annotated[str | None, typer.Option("--concurrent-requests", help=_BOUND)] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Tokens per calendar month, UTC, or none for no limit.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends, from now, such as 90d, or never.")
    ] = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Change a key's bounds from the next request on. What is not named stays, and so do secret, id and usage.

    Example: `r1plus key update rWaswRyRuGrI --budget 4000000 -n team-credit`
    """
    if models and has_all_models:
        raise UsageError("--all-models: also models are named; leave one out")
    bounds = {
        "requests_per_minute": ("--requests-per-minute", requests),
        "tokens_per_minute": ("--tokens-per-minute", tokens),
        "concurrent_requests": ("--concurrent-requests", concurrent),
        "budget_tokens": ("--budget", budget),
    }
    body: Json = {}
    if limits := {name: parse_bound(option, text) for name, (option, text) in bounds.items() if text is not None}:
        body["limits"] = limits
    if models or has_all_models:
        body["models"] = models or None
    if names_end_users is not None:
        body["scopes"] = ["end-users"] if names_end_users else []
    if expires is not None:
        body["expires_in_seconds"] = None if expires == "never" else parse_duration("--expires", expires)
    if not body:
        raise UsageError("Nothing is named that changes; name one of --budget, --model, --expires and the others")
    target = find_target(kubeconfig, namespace, gateway)
    answer = call_admin(target, "PATCH", f"/keys/{quote(key_id, safe='')}", body=body)
    if output is not Output.TABLE:
        print_document(answer, output)
    else:
        print_rows(_KEY_HEADS, [_describe_key(answer, datetime.now(UTC).timestamp())], "")
    _note_unknown_models(target, models or [])


@key_app.command("list")
def list_command(
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List all keys, revoked and expired ones as well, the newest first. No secret is stored, so none is shown."""
    answer = call(kubeconfig, namespace, gateway, "GET", "/keys")
    if output is not Output.TABLE:
        print_document(answer, output)
        return
    now = datetime.now(UTC).timestamp()
    rows = [_describe_key(key, now) for key in answer["data"]]
    print_rows(_KEY_HEADS, rows, "No key exists: r1plus key create NAME")


@key_app.command("rotate")
def rotate_command(
    key_id: IdArgument,
    grace: Annotated[str, typer.Option("--grace", help="How long the old secret is valid, at most 30d.")] = "24h",
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Give a key a new secret and print it; the old one is valid for a while. Limits, budget and usage stay."""
    body = {"grace_seconds": parse_duration("--grace", grace)}
    answer = call(kubeconfig, namespace, gateway, "POST", f"/keys/{quote(key_id, safe='')}/rotate", body=body)
    _show_issued(answer, output)


@key_app.command("revoke")
def revoke_command(
    key_id: IdArgument,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Revoke a key: it is refused with both secrets, and its running answers end. Its usage stays in the reports."""
    answer = call(kubeconfig, namespace, gateway, "DELETE", f"/keys/{quote(key_id, safe='')}")
    if output is not Output.TABLE:
        print_document(answer, output)
    else:
        open_console().print(Text(f"Key {answer['id']} ({answer['name']}) is revoked"))


def parse_bound(option: str, text: str) -> int | None:
    """Return the number, or None for `none`. Raises UsageError."""
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise UsageError(f"{option}: {text!r:.40} is not a whole number from 0; or give none for no limit")
    return int(text)


def _show_issued(answer: Json, output: Output) -> None:
    """Print the key alone on standard output, so that a script can read it, and the rest on standard error."""
    if output is not Output.TABLE:
        print_document(answer, output)
        return
    sys.stdout.write(f"{answer['key']}\n")
    old = ""
    if answer["previous_expires_at"] is not None:
        old = f" The secret before is valid until {format_time(answer['previous_expires_at'])}."
    text = f"Key {answer['id']} ({answer['name']}). Store it now: it is not shown again.{old}"
    Console(stderr=True, soft_wrap=True).print(Text(text, style="dim"))


def _note_unknown_models(target: GatewayTarget, models: Sequence[str]) -> None:
    """Say on standard error which of the named deployments do not answer now; nothing if that is not known."""
    if not models:
        return
    try:
        unknown = sorted(set(models) - find_models(target))
    except CliError:
        return
    for model in unknown:
        text = f"No deployment {model} serves now: the key may call it as soon as one does; see: r1plus status"
        Console(stderr=True, soft_wrap=True).print(Text(text, style="dim"))


def _describe_key(key: Json, now: float) -> tuple[str, ...]:
    return (
        key["id"],
        key["name"],
        _format_state(key, now),
        ",".join(key["models"]) if key["models"] is not None else "all",
        _format_limits(key["limits"]),
        format_time(key["expires_at"]),
    )


def _format_state(key: Json, now: float) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    if key["expires_at"] is not None and key["expires_at"] <= now:
        return "expired"
    is_rotating = key["previous_expires_at"] is not None and key["previous_expires_at"] > now
    return "rotating" if is_rotating else "valid"


def _format_limits(limits: Json) -> str:
    units = {
        "requests_per_minute": "requests/min",
        "tokens_per_minute": "tokens/min",
        "concurrent_requests": "at once",
        "budget_tokens": "tokens/month",
    }
    return ", ".join(f"{limits[name]} {unit}" for name, unit in units.items() if limits[name] is not None) or "none"
