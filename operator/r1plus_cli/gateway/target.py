"""Which gateway a command calls, and how answers of its admin API are printed."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.gateway.admin_api import GatewayTarget, Json, call_admin
from r1plus_cli.options import open_console, print_table
from r1plus_contract.timestamps import format_timestamp

GatewayOption = Annotated[
    str,
    typer.Option(
        "--gateway", envvar="R1PLUS_GATEWAY", help="Its URL, if you reach it; by default a port is forwarded."
    ),
]


def find_target(kubeconfig: str | None, namespace: str | None, gateway: str) -> GatewayTarget:
    """Return which gateway is meant. A URL may be the base URL of OpenAI's clients, which ends with /v1."""
    url = gateway.rstrip("/").removesuffix("/v1").rstrip("/")
    return GatewayTarget(functools.partial(connect, kubeconfig), namespace, url)


def call(kubeconfig: str | None, namespace: str | None, gateway: str, method: str, path: str, **options: Any) -> Json:
    """Call the admin API of a tenant's gateway, as `call_admin` does."""
    return call_admin(find_target(kubeconfig, namespace, gateway), method, path, **options)


def format_time(moment: float | None) -> str:
    """Return the time as text; None is never."""
    return "never" if moment is None else format_timestamp(moment)


def print_rows(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str) -> None:
    """Print rows as a table, or a line where there are none."""
    if rows:
        print_table(heads, rows)
    else:
        open_console().print(Text(empty))
