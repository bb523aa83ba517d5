"""`r1plus status`: the state of deployments, in a table, in full, or as it changes."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.cluster.interface import Cluster
from r1plus_cli.deployment import status_text
from r1plus_cli.deployment.view import COLUMNS, build_view
from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console, write_at_once


def status_command(
    name: Annotated[
        str | None, typer.Argument(help="One R1PlusDeployment in full; without it, a line for each.")
    ] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="All tenants.")] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Print a line for each change, until Ctrl-C.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the state of deployments: what serves, its measured accuracy, what is wrong and what to do."""
    cluster = connect(kubeconfig)
    space = None if everywhere else namespace or cluster.get_default_namespace()
    if name is not None and space is None:
        raise UsageError("A name needs one namespace: give -n, not -A")
    if cluster.is_operator_ready() is False:
        open_console().print(Text(runnable_hint(status_text.NO_OPERATOR), style="bold red"))
    if watch:
        _watch(cluster, space, name)
    elif name is not None and space is not None:
        status_text.show_one(open_console(), build_view(cluster.get_deployment(space, name)), datetime.now(UTC))
    else:
        _show_all(cluster, space)


def _show_all(cluster: Cluster, namespace: str | None) -> None:
    views = [build_view(cr) for cr in cluster.list_deployments(namespace)]
    if not views:
        where = "any namespace" if namespace is None else f"namespace {namespace}"
        hint = "kubectl apply -f examples/tenants.yaml -f examples/credit-full.yaml"
        open_console().print(Text(runnable_hint(f"No R1PlusDeployment in {where}; try: {hint}")))
        return
    status_text.show_table(open_console(), views, datetime.now(UTC))


def _watch(cluster: Cluster, namespace: str | None, name: str | None) -> None:
    views = [view for view in map(build_view, cluster.list_deployments(namespace)) if name in (None, view.name)]
    widths = status_text.compute_widths(views)
    reporter = status_text.ChangeReporter(widths=widths)
    write_at_once(f"{'TIME (UTC)':<10}  {status_text.format_cells(COLUMNS, widths)}  STATE\n")
    try:
        for view in map(build_view, cluster.watch_changes(namespace)):
            line = reporter.format_change(view, time.monotonic()) if name in (None, view.name) else None
            if line is not None:
                write_at_once(f"{datetime.now(UTC):%H:%M:%S}    {line}\n")
    except KeyboardInterrupt:
        return
