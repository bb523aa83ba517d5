"""`r1plus status`: the state of deployments, in words."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from r1plus_cli.deployment.view import (
    AT_REST,
    COLUMNS,
    PAUSED,
    PINNED,
    PROGRESSING,
    ConditionView,
    DeploymentView,
    format_age,
)
from r1plus_cli.hints import runnable_hint
from r1plus_contract.names import PORT_MONITOR

_FRACTION = re.compile(r"\.\d+(?=Z)")
HOLDS, WRONG, UNDER_WAY, UNKNOWN = ("✓", "green"), ("✗", "red"), ("…", "yellow"), ("?", "yellow")

TYPE_WIDTH = len("IsolationVerified") + 2
"""Width of the longest condition type."""

NO_OPERATOR = (
    "No pod of the operator is Ready: the state below is outdated, and nothing is repaired or gated."
    " See: kubectl get pods -A -l app.kubernetes.io/name=r1plus-operator"
)


def show_table(console: Console, views: Sequence[DeploymentView], now: datetime) -> None:
    """Print the columns of `kubectl get`, and below each deployment its state: both fit a narrow terminal."""
    rows = [(*COLUMNS, "AGE"), *((*view.columns(), format_age(view.created, now)) for view in views)]
    widths = tuple(max(len(row[column]) for row in rows) for column in range(len(rows[0])))
    console.print(Text(format_cells(rows[0], widths), style="bold"))
    for view, row in zip(views, rows[1:], strict=True):
        console.print(Text(format_cells(row, widths)))
        console.print(
            Text(f"  {fill_in_commands(view, view.format_headline())}", style="green" if view.ready else "yellow")
        )


def show_one(console: Console, view: DeploymentView, now: datetime) -> None:
    """Print everything about one deployment: state, figures, conditions with cause and remedy."""
    console.print(Text.assemble((view.key, "bold"), f"  tier {view.tier}, {format_age(view.created, now)} old"))
    console.print(Text(fill_in_commands(view, view.format_headline()), style="green" if view.ready else "yellow"))
    for label, value in _list_figures(view):
        console.print(Text.assemble((f"{label:<11}", "dim"), value))
    for line, style in format_incident_lines(view):
        console.print(Text(fill_in_commands(view, line), style=style))
    for condition in view.conditions:
        mark, colour = choose_mark(condition)
        console.print(Text.assemble((mark, colour), f" {condition.type:<{TYPE_WIDTH}}", (condition.reason, colour)))
        if condition.message:
            console.print(Text(f"    {fill_in_commands(view, condition.message)}", style="dim"))
    for line in list_next_steps(view):
        console.print(Text(f"  {runnable_hint(line)}", style="dim"))


def fill_in_commands(view: DeploymentView, text: str) -> str:
    """Return the operator's text with commands that can be run as they are, except for the reason."""
    return runnable_hint(text.replace(" NAME -n NAMESPACE ", f" {view.name} -n {view.namespace} "))


def choose_mark(condition: ConditionView) -> tuple[str, str]:
    """Return sign and colour. For Progressing, True is not better than False: at rest nothing is wrong."""
    if condition.type == PROGRESSING and condition.reason in (AT_REST, PINNED, PAUSED):
        return HOLDS
    if condition.type == PROGRESSING and condition.holds:
        return UNDER_WAY
    return {"True": HOLDS, "False": WRONG}.get(condition.status, UNKNOWN)


def format_incident_lines(view: DeploymentView) -> Iterable[tuple[str, str]]:
    """Yield what failed, figures before and after, lost items, what was tried, what is next, and the runbook."""
    incident = view.incident
    if incident is None:
        return
    yield f"Incident since {incident.since}: {incident.reason}, revision {incident.revision}", "bold red"
    if incident.now:
        before = f"{incident.before} right at its gate, " if incident.before else ""
        yield f"  dropped     {before}{incident.now} when it was measured", ""
    for number, line in enumerate(incident.lost):
        yield f"  {'lost' if number == 0 else '':<12}{line}", ""
    if incident.revision == view.revision and any(line.endswith("...)") for line in incident.lost):
        yield (
            f"{'':<12}Five ids per stratum are shown. Its monitor lists the first 50 (all outcomes: /outcomes):",
            "dim",
        )
        yield f"{'':<12}{_format_monitor_command(view.namespace, incident.revision)}", "dim"
    for number, line in enumerate(incident.tried):
        yield f"  {'tried' if number == 0 else '':<12}{line}", ""
    if incident.next:
        yield f"  next        {incident.next}", ""
    if incident.runbook:
        yield f"  runbook     {incident.runbook}", "dim"


def _format_monitor_command(namespace: str, revision: str) -> str:
    """Return a command that prints the monitor's verdict for the revision."""
    forward = f"kubectl port-forward -n {namespace} deploy/{revision} {PORT_MONITOR} >/dev/null"
    return f"{forward} & curl -s --retry 5 --retry-connrefused http://127.0.0.1:{PORT_MONITOR}/verdict; kill $!"


def list_next_steps(view: DeploymentView) -> list[str]:
    """Return commands that help in this state."""
    if view.ready:
        return [f'Ask it:  r1plus ask {view.name} -n {view.namespace} "What is the capital of Sweden?"']
    if not view.conditions:
        return ["Check the operator:  kubectl get pods -A -l app.kubernetes.io/name=r1plus-operator"]
    return [
        f"Pods:    kubectl get pods -n {view.namespace} -l r1plus.ai/deployment={view.name}",
        f"Events:  kubectl get events -n {view.namespace} --field-selector involvedObject.name={view.name}",
    ]


def _list_figures(view: DeploymentView) -> Iterable[tuple[str, str]]:
    engine = f"{view.engine}, batch {view.batch}, context {view.context} tokens" if view.engine else "none serves yet"
    yield "Engine", engine
    score = f"{view.accuracy or 'not measured yet'} right on {view.suite or 'no suite'}"
    yield (
        "Accuracy",
        f"{score}, threshold {view.threshold or '-'}, gate {view.gate or '-'}: {view.verdict or 'no verdict yet'}",
    )
    yield "Revision", view.revision or "none serves yet"
    if view.candidate:
        yield "Candidate", view.candidate
    if view.pinned:
        yield "Pinned", "traffic stays where it is: spec.rollout.pinned"
    if view.paused:
        yield "Paused", "the operator changes nothing but the network policies: spec.rollout.paused"
    if view.last_good:
        yield "Last good", view.last_good
    if view.last_request:
        yield "Last request", _FRACTION.sub("", view.last_request, count=1)
    for refusal in view.refusals:
        yield "Refused", refusal
    if view.runtime and view.runtime.reason != "Current":
        yield "Runtime", fill_in_commands(view, f"{view.runtime.triton}: {view.runtime.message}")
    yield "Endpoint", view.endpoint or "none yet"


WIDTHS = (12, 13, 4, 18, 5, 8, 12, 7)
"""Minimum widths of the columns of a change."""
LONGEST = 110
"""Longest text of a change; `r1plus status NAME` prints all of it."""


def shorten(text: str) -> str:
    """Shorten text to fit next to the columns."""
    return textwrap.shorten(text, LONGEST, placeholder=" …")


def compute_widths(views: Iterable[DeploymentView]) -> tuple[int, ...]:
    """Return column widths for these deployments."""
    rows = [COLUMNS, *(view.columns() for view in views)]
    return tuple(max(least, *(len(row[n]) for row in rows)) for n, least in enumerate(WIDTHS))


class ChangeReporter:
    """Reports changes of deployments, one line each: for `--watch` and for the demo.

    A figure that changes while the reason stays (the gate's progress) is reported at most every `every_s` seconds.
    """

    def __init__(self, every_s: float = 20.0, widths: tuple[int, ...] = WIDTHS) -> None:
        self._every_s = every_s
        self._widths = widths
        self._last_lines: dict[str, tuple[tuple[str, ...], str, float]] = {}

    def format_change(self, view: DeploymentView, now: float) -> str | None:
        """Return the line to print, or None if nothing has changed."""
        state = self._summarise_state(view)
        line = f"{format_cells(view.columns(), self._widths)}  {shorten(view.format_brief())}"
        previous = self._last_lines.get(view.key)
        if previous is not None and (
            previous[1] == line or (previous[0] == state and now - previous[2] < self._every_s)
        ):
            return None
        self._last_lines[view.key] = (state, line, now)
        return line

    def _summarise_state(self, view: DeploymentView) -> tuple[str, ...]:
        conditions = (f"{c.type} {c.status} {c.reason}" for c in view.conditions)
        return *view.columns(), view.revision, view.candidate, str(view.up_to_date), *conditions


def format_cells(cells: tuple[str, ...], widths: tuple[int, ...] = WIDTHS) -> str:
    """Align cells in columns of fixed widths."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
