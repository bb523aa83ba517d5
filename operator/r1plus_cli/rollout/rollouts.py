"""`r1plus rollouts`: which images serve, and the progress of a refresh to newer ones."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.deployment.status_text import fill_in_commands
from r1plus_cli.deployment.view import DeploymentView, build_view
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console

COLUMNS = ("NAMESPACE", "NAME", "TRITON", "MONITOR", "RUNTIME")
_WORDS = (
    ("RefreshUnderWay", "under way"),
    ("RefreshWaits", "waiting"),
    ("RefreshFailed", "failed"),
    ("RuntimeOutdated", "outdated, no refresh requested"),
    ("Current", "current"),
)


def rollouts_command(
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="All tenants.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show which images serve, and the progress of newer ones: under way, waiting, failed."""
    cluster = connect(kubeconfig)
    space = None if everywhere else namespace or cluster.get_default_namespace()
    show_rollouts(open_console(), [build_view(cr) for cr in cluster.list_deployments(space)])


def show_rollouts(console: Console, views: Sequence[DeploymentView]) -> None:
    """Print a line per deployment, what to do about waiting or failed ones, and a summary."""
    rows = [COLUMNS, *map(_format_cells, views)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    for row in rows:
        console.print(Text("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()))
    for view in views:
        if view.runtime and view.runtime.reason in ("RefreshWaits", "RefreshFailed"):
            console.print(Text(f"{view.key}: {fill_in_commands(view, view.runtime.message)}"))
    counts = Counter(view.runtime.reason for view in views if view.runtime)
    summary = [f"{counts[reason]} {words}" for reason, words in _WORDS if counts[reason]]
    console.print(Text(", ".join(summary) or "No deployment serves yet"))


def _format_cells(view: DeploymentView) -> tuple[str, ...]:
    runtime = view.runtime
    if runtime is None:
        return view.namespace, view.name, "-", "-", "-"
    state = runtime.reason + (" (vulnerable)" if runtime.is_vulnerable else "")
    return view.namespace, view.name, _shorten_image(runtime.triton), _shorten_image(runtime.monitor), state


def _shorten_image(image: str) -> str:
    """Return the last part of an image's name, with its tag or the start of its digest."""
    name, _, digest = image.rpartition("/")[2].partition("@")
    return f"{name}@{digest[:19]}" if digest else name
