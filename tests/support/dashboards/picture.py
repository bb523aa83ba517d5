"""README's picture: the dashboard's accuracy panel, drawn from a Prometheus by the panel's own queries.

`PYTHONPATH=tests python -m support.dashboards.picture --prometheus URL --namespace NS --deployment NAME [--minutes 60]`
Nothing is drawn that Prometheus does not say; without data there is no picture, and the exit status is 1.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from support.dashboards.asking import AskingError, Chosen, Line, Window, ask
from support.dashboards.boards import find_panel
from support.paths import ROOT

TARGET = ROOT / "docs" / "accuracy.png"
INCHES, DPI = (8.0, 3.4), 120
STEP_SECONDS = 15.0
MARGIN = 0.01
"""Of the share, above and below all that is drawn."""

QUERIES = find_panel("deployment", "Accuracy").by_legend
RATIO, LOWER, UPPER = "{{revision}}", "{{revision}}, lower bound", "{{revision}}, upper bound"
THRESHOLD, CONFIRMED = "threshold", "{{revision}}, counted after the alarm"

Answers = dict[str, list[Line]]
"""By the query's legend."""


def answers(url: str, chosen: Chosen, window: Window) -> Answers:
    """All that the panel shows. AskingError where Prometheus says nothing of this deployment's accuracy."""
    found = {legend: ask(url, chosen.fill(expr), window) for legend, expr in QUERIES.items()}
    if not found[RATIO]:
        raise AskingError(f"{url} knows no accuracy of {chosen.namespace}/{chosen.deployment} in that time")
    return found


def draw(found: Answers, chosen: Chosen) -> Figure:
    """The panel: a line per revision between its bounds, the threshold, and what was counted after an alarm."""
    start = min(line.times[0] for lines in found.values() for line in lines)
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    axes: Axes = figure.subplots()
    for place, line in enumerate(found[RATIO]):
        revision, color = line.labels.get("revision", ""), f"C{place}"
        axes.step(_minutes(line.times, start), line.values, where="post", label=revision, color=color)
        _band(axes, found, revision, color, start)
    for line in found[THRESHOLD]:
        axes.plot(_minutes(line.times, start), line.values, color="tab:red", linestyle="--", label="threshold")
    for line in found[CONFIRMED]:
        label = f"{line.labels.get('revision', '')}, counted after the alarm"
        axes.plot(
            _minutes(line.times[:1], start), line.values[:1], color="black", marker="x", linestyle="", label=label
        )
    lowest = min(value for lines in found.values() for line in lines for value in line.values)
    axes.set_ylim(max(0.0, lowest - MARGIN), 1 + MARGIN)
    axes.set_title(f"Accuracy of {chosen.namespace}/{chosen.deployment}: share of its golden suite that is right")
    axes.set_xlabel(f"minutes since {datetime.fromtimestamp(start, UTC):%Y-%m-%d %H:%M} UTC")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return figure


def _band(axes: Axes, found: Answers, revision: str, color: str, start: float) -> None:
    """Between the bounds, at the times that both have."""
    bounds = []
    for legend in (LOWER, UPPER):
        line = next((one for one in found[legend] if one.labels.get("revision", "") == revision), None)
        bounds.append(dict(zip(line.times, line.values, strict=True)) if line else {})
    lower, upper = bounds
    times = sorted(lower.keys() & upper.keys())
    between = [lower[at] for at in times], [upper[at] for at in times]
    axes.fill_between(_minutes(times, start), *between, step="post", color=color, alpha=0.15, linewidth=0)


def _minutes(times: Sequence[float], start: float) -> list[float]:
    return [(at - start) / 60 for at in times]


def main(arguments: Sequence[str]) -> int:
    """Draw and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="support.dashboards.picture", description=__doc__)
    parser.add_argument("--prometheus", required=True, help="its base URL")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--deployment", required=True)
    parser.add_argument("--minutes", type=float, default=60.0, help="up to now")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    given = parser.parse_args(arguments)
    now = time.time()
    chosen = Chosen(given.namespace, given.deployment)
    try:
        found = answers(given.prometheus, chosen, Window(now - 60 * given.minutes, now, STEP_SECONDS))
    except AskingError as error:
        print(error, file=sys.stderr)
        return 1
    # No date in the file: the same data make the same picture.
    draw(found, chosen).savefig(given.output, metadata={"Software": None})
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
