"""`r1plus status`: where deployments stand, told as a person would."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from r1plus_cli.hints import as_typed
from r1plus_cli.view import AT_REST, COLUMNS, PAUSED, PINNED, PROGRESSING, ConditionView, DeploymentView, age

_FRACTION = re.compile(r"\.\d+(?=Z)")
HOLDS, WRONG, UNDER_WAY, UNKNOWN = ("✓", "green"), ("✗", "red"), ("…", "yellow"), ("?", "yellow")

TYPE_WIDTH = len("IsolationVerified") + 2
"""Of a condition's type, the longest that there is."""

NO_OPERATOR = (
    "No pod of the operator is Ready: nothing below has been looked at since, and nothing is repaired or gated."
    " See: kubectl get pods -A -l app.kubernetes.io/name=r1plus-operator"
)


def show_table(console: Console, views: Sequence[DeploymentView], now: datetime) -> None:
    """The columns of `kubectl get`, and under each deployment where it stands: both fit a narrow terminal."""
    rows = [(*COLUMNS, "AGE"), *((*view.columns(), age(view.created, now)) for view in views)]
    widths = tuple(max(len(row[column]) for row in rows) for column in range(len(rows[0])))
    console.print(Text(format_cells(rows[0], widths), style="bold"))
    for view, row in zip(views, rows[1:], strict=True):
        console.print(Text(format_cells(row, widths)))
        console.print(Text(f"  {name_commands(view, view.headline())}", style="green" if view.ready else "yellow"))


def show_one(console: Console, view: DeploymentView, now: datetime) -> None:
    """Everything about one deployment: state, figures, conditions with cause and remedy."""
    console.print(Text.assemble((view.key, "bold"), f"  tier {view.tier}, {age(view.created, now)} old"))
    console.print(Text(name_commands(view, view.headline()), style="green" if view.ready else "yellow"))
    for label, value in _figures(view):
        console.print(Text.assemble((f"{label:<11}", "dim"), value))
    for line, style in incident_lines(view):
        console.print(Text(name_commands(view, line), style=style))
    for condition in view.conditions:
        mark, colour = mark_of(condition)
        console.print(Text.assemble((mark, colour), f" {condition.type:<{TYPE_WIDTH}}", (condition.reason, colour)))
        if condition.message:
            console.print(Text(f"    {name_commands(view, condition.message)}", style="dim"))
    for line in next_steps(view):
        console.print(Text(f"  {as_typed(line)}", style="dim"))


def name_commands(view: DeploymentView, text: str) -> str:
    """What the operator wrote, with commands that can be typed as they are but for the reason."""
    return as_typed(text.replace(" NAME -n NAMESPACE ", f" {view.name} -n {view.namespace} "))


def mark_of(condition: ConditionView) -> tuple[str, str]:
    """Sign and colour. Progressing is the one that is not better True than False: at rest nothing is wrong."""
    if condition.type == PROGRESSING and condition.reason in (AT_REST, PINNED, PAUSED):
        return HOLDS
    if condition.type == PROGRESSING and condition.holds:
        return UNDER_WAY
    return {"True": HOLDS, "False": WRONG}.get(condition.status, UNKNOWN)


def incident_lines(view: DeploymentView) -> Iterable[tuple[str, str]]:
    """What fell, from what to what, which items, what was tried, what comes next, where to read on."""
    found = view.incident
    if found is None:
        return
    yield f"Incident since {found.since}: {found.reason}, revision {found.revision}", "bold red"
    if found.now:
        before = f"{found.before} right at its gate, " if found.before else ""
        yield f"  fell        {before}{found.now} when it was counted", ""
    for number, line in enumerate(found.lost):
        yield f"  {'lost' if number == 0 else '':<12}{line}", ""
    if found.revision == view.revision and any(line.endswith("...)") for line in found.lost):
        yield (
            f"{'':<12}Ids are cut: five a stratum. Its monitor names the first 50 (and all it asked since: /outcomes):",
            "dim",
        )
        yield f"{'':<12}{_ask_monitor(view.namespace, found.revision)}", "dim"
    for number, line in enumerate(found.tried):
        yield f"  {'tried' if number == 0 else '':<12}{line}", ""
    if found.next:
        yield f"  next        {found.next}", ""
    if found.runbook:
        yield f"  runbook     {found.runbook}", "dim"


def _ask_monitor(namespace: str, revision: str) -> str:
    """A command that prints all that a monitor of the revision says."""
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/verdict').read().decode())"
    return f'kubectl exec -n {namespace} deploy/{revision} -c monitor -- python3 -c "{script}"'


def next_steps(view: DeploymentView) -> list[str]:
    """Commands that help from here, by what the conditions say."""
    if view.ready:
        return [f'Ask it:  r1plus ask {view.name} -n {view.namespace} "What is the capital of Sweden?"']
    if not view.conditions:
        return ["Is the operator there?  kubectl get pods -A -l app.kubernetes.io/name=r1plus-operator"]
    return [
        f"Pods:    kubectl get pods -n {view.namespace} -l r1plus.ai/deployment={view.name}",
        f"Events:  kubectl get events -n {view.namespace} --field-selector involvedObject.name={view.name}",
    ]


def _figures(view: DeploymentView) -> Iterable[tuple[str, str]]:
    engine = f"{view.engine}, batch {view.batch}, context {view.context} tokens" if view.engine else "none serves yet"
    yield "Engine", engine
    score = f"{view.accuracy or 'not counted yet'} right on {view.suite or 'no suite'}"
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
        yield "Paused", "the operator moves and repairs nothing but network policies: spec.rollout.paused"
    if view.last_good:
        yield "Last good", view.last_good
    if view.last_request:
        yield "Asked last", _FRACTION.sub("", view.last_request, count=1)
    if view.request_refused:
        yield "Refused", view.request_refused
    if view.runtime and view.runtime.reason != "Current":
        yield "Runtime", name_commands(view, f"{view.runtime.triton}: {view.runtime.message}")
    yield "Endpoint", view.endpoint or "none yet"


WIDTHS = (12, 13, 4, 18, 5, 8, 12, 7)
"""Of the columns of a change, at least: what comes later is most often no wider."""
LONGEST = 110
"""Characters of a change's text: `r1plus status NAME` has the whole of it."""


def shorten(text: str) -> str:
    """Text that fits beside the columns."""
    return textwrap.shorten(text, LONGEST, placeholder=" …")


def widths_for(views: Iterable[DeploymentView]) -> tuple[int, ...]:
    """Columns wide enough for these."""
    rows = [COLUMNS, *(view.columns() for view in views)]
    return tuple(max(least, *(len(row[n]) for row in rows)) for n, least in enumerate(WIDTHS))


class ChangeTeller:
    """Says what is new about deployments, one line per change: for `--watch` and for the demo.

    A figure that moves within the same reason (the gate's progress) is told again at most every `every_s` seconds.
    """

    def __init__(self, every_s: float = 20.0, widths: tuple[int, ...] = WIDTHS) -> None:
        self._every_s = every_s
        self._widths = widths
        self._told: dict[str, tuple[tuple[str, ...], str, float]] = {}

    def line(self, view: DeploymentView, now: float) -> str | None:
        """The line to print, or None when there is nothing new to say."""
        state = self._state(view)
        line = f"{format_cells(view.columns(), self._widths)}  {shorten(view.brief())}"
        before = self._told.get(view.key)
        if before is not None and (before[1] == line or (before[0] == state and now - before[2] < self._every_s)):
            return None
        self._told[view.key] = (state, line, now)
        return line

    def _state(self, view: DeploymentView) -> tuple[str, ...]:
        conditions = (f"{c.type} {c.status} {c.reason}" for c in view.conditions)
        return *view.columns(), view.revision, view.candidate, str(view.up_to_date), *conditions


def format_cells(cells: tuple[str, ...], widths: tuple[int, ...] = WIDTHS) -> str:
    """Cells in columns that stay in line from one print to the next."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
