"""`r1plus usage` and `r1plus audit`: what was used of a tenant's gateway, and whether its audit log is whole."""

from typing import Annotated, Final

import typer
from rich.text import Text

from r1plus_cli.errors import CliError
from r1plus_cli.gateway.admin_api import LONG_SECONDS
from r1plus_cli.gateway.target import GatewayOption, call, format_time, print_rows
from r1plus_cli.options import (
    KubeconfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    open_console,
    print_document,
    print_table,
)

_BUDGET: Final = ("used", "reserved", "limit", "left")


def usage_command(
    first: Annotated[str | None, typer.Option("--from", help="First day, UTC. By default 31 days ago.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, UTC. By default today.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Id of one key.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="One deployment.")] = None,
    end_user: Annotated[str | None, typer.Option("--end-user", help="One end user.")] = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show what was used, by caller, model and day, and what is left of this month's budgets.

    UNSETTLED are tokens of requests whose gateway crashed and whose use no pod knows: all that was reserved for them.
    """
    values = {"first": first, "last": last, "key": key, "model": model, "end_user": end_user}
    query = {name: value for name, value in values.items() if value is not None}
    answer = call(kubeconfig, namespace, gateway, "GET", "/usage", query=query)
    if output is not Output.TABLE:
        print_document(answer, output)
        return
    rows = [
        (
            row["day"],
            row["caller_id"],
            row["model"],
            *(str(row[name]) for name in ("requests", "prompt_tokens", "completion_tokens", "unsettled_tokens")),
        )
        for row in answer["data"]
    ]
    heads = ("DAY", "CALLER", "MODEL", "REQUESTS", "PROMPT", "COMPLETION", "UNSETTLED")
    print_rows(heads, rows, "Nothing was used in these days")
    if answer["is_cut"]:
        open_console().print(Text("There is more: ask for fewer days, or one key"))
    budgets = [
        (row["caller_id"], row["month"], *(_format_count(row[f"{name}_tokens"]) for name in _BUDGET))
        for row in answer["budgets"]
    ]
    if budgets:
        open_console().print()
        print_table(("CALLER", "MONTH", *(name.upper() for name in _BUDGET)), budgets)


def audit_command(
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Verify the whole audit log of a tenant's gateway. Exit status 1 if a record was changed, removed or cut.

    Keep the printed head: a later log that does not contain it was written again.
    """
    answer = call(kubeconfig, namespace, gateway, "GET", "/audit", seconds=LONG_SECONDS)
    if output is not Output.TABLE:
        print_document(answer, output)
    elif not answer["problem"]:
        head = answer["head"]
        open_console().print(Text(f"{answer['records']} records are whole; head {head['seq']} {head['mac']}"))
        for note in answer.get("restores", ()):  # a gateway of the release before says nothing of them
            open_console().print(
                Text(
                    f"Record {note['seq']}: restored at {format_time(note['at'])} from {note['backup']};"
                    " what was recorded after that backup is not in this log"
                )
            )
    if answer["problem"]:
        raise CliError(
            f"The audit log is not whole: {answer['problem']}. Keep a copy of the volume or database as evidence, and"
            " compare it with the last backup"
        )


def _format_count(value: int | None) -> str:
    return "-" if value is None else str(value)
