"""`python -m bench.distillation.picture FILE... [-o docs/distillation.png]`: draws records of `make bench NAME=distillation`.

Three panels over the processor seconds of a training, the teacher's predictions included: items of the golden suite that
are right, KL from the teacher, perplexity. Nothing is drawn that the records do not say. The rows may be of several runs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import read_figures

TARGET: Final = Path(__file__).parents[3] / "docs" / "distillation.png"
INCHES, DPI = (9.6, 3.4), 120
PANELS: Final = (
    ("right", "right items of the suite"),
    ("divergence", "KL from the teacher, nats"),
    ("perplexity", "perplexity of held-out prose"),
)
ARMS: Final = {"KD": ("teacher's logits (KD)", "o"), "CE": ("text alone (CE)", "s")}
"""Arm -> label and mark."""


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "reports", nargs="+", type=Path, help="records of make bench NAME=distillation, or files with its output"
    )
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    reports = [read_figures(path) for path in arguments.reports]
    # No date in the file: the same data make the same picture.
    draw(join(reports)).savefig(arguments.output, metadata={"Software": None})
    print(arguments.output)


def join(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of several runs, in the order of time; of those with one name the newest report's.

    Raises:
        ValueError: the runs are of suites or students that cannot be compared, or have no rows.
    """
    rows: dict[str, dict[str, Any]] = {}
    for report in sorted(reports, key=lambda report: str(report["measured_at"])):
        rows |= {row["name"]: row for row in report.get("rows", ())}
    if not rows:
        raise ValueError("the files have no rows: run make bench NAME=distillation with its part arms")
    if len(items := sorted({row["items"] for row in rows.values()})) > 1:
        raise ValueError(f"the files count {' and '.join(map(str, items))} items of the suite: name files of one count")
    layers = sorted({row["record"]["recipe"]["layers"] for row in rows.values() if "record" in row})
    if len(layers) > 1:
        raise ValueError(f"the files have students of {' and '.join(map(str, layers))} layers: name files of one")
    return sorted(rows.values(), key=lambda row: float(row.get("processor_seconds", 0)))


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Return the figure of the rows. Each arm begins with the student before its training."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(PANELS)))
    begin = [{**row, "processor_seconds": 0.0, "steps": 0} for row in rows if row["name"] == "pruned only"]
    for axes, (field, label) in zip(panels, PANELS, strict=True):
        for arm, (name, mark) in ARMS.items():
            of_arm = [*begin, *(row for row in rows if row.get("arm") == arm)]
            times, values = ([row[key] for row in of_arm] for key in ("processor_seconds", field))
            axes.plot(times, values, marker=mark, markersize=4, label=name)
            for time, value, row in zip(times, values, of_arm, strict=True):
                near = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": "x-small"}
                axes.annotate(str(row["steps"]), (time, value), **near)
        for row in rows:
            if row["name"] == "teacher":
                axes.axhline(row[field], linestyle="--", color="gray", linewidth=1, label="teacher")
        axes.set_xlabel("processor seconds of training")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    panels[1].legend(fontsize="small")
    layers = next((row["record"]["recipe"]["layers"] for row in rows if "record" in row), "?")
    figure.suptitle(
        f"SmolLM2-135M, {layers} of 30 layers: quality against training time; numbers are steps", fontsize="medium"
    )
    return figure


if __name__ == "__main__":
    main()
