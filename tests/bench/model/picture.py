"""`python -m bench.model.picture FILE... [-o docs/healing.png]`: draws records of `make bench NAME=model PART=healing`.

Two panels over the steps of healing: items of the golden suite that are right, and perplexity of prose; dashed, the dense
model. Nothing is drawn that the records do not say. The models may be healed in several runs.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import read_figures

TARGET: Final = Path(__file__).parents[3] / "docs" / "healing.png"
INCHES, DPI = (9.6, 3.4), 120
MARKS: Final = "o", "s", "^", "D"


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "reports", nargs="+", type=Path, help="records of make bench NAME=model PART=healing, or files with its output"
    )
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    reports = [read_figures(path) for path in arguments.reports]
    # No date in the file: the same data make the same picture.
    draw(join([report["healing"] for report in reports])).savefig(arguments.output, metadata={"Software": None})
    print(arguments.output)


def join(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the healed models of several runs as one; the newest run of a model counts.

    Raises:
        ValueError: the runs asked suites of different sizes.
    """
    if len(sizes := sorted({run["dense"]["items"] for run in runs})) > 1:
        raise ValueError(
            f"the files are of suites with {' and '.join(map(str, sizes))} items: a picture shows one; name files of one"
        )
    return {"dense": runs[-1]["dense"], "healed": {name: one for run in runs for name, one in run["healed"].items()}}


def draw(run: Mapping[str, Any]) -> Figure:
    """Return the figure of a run."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    right, perplexity = figure.subplots(1, 2)
    dense = run["dense"]
    _draw_panel(right, run, "right", f"right, of {dense['items']} items")
    _draw_panel(perplexity, run, "perplexity", "perplexity of held-out prose")
    right.set_ylim(bottom=0)
    perplexity.set_yscale("log")
    right.legend(fontsize="small", loc="best")
    return figure


def _draw_panel(axes: Axes, run: Mapping[str, Any], field: str, label: str) -> None:
    for mark, (name, model) in zip(MARKS, run["healed"].items(), strict=False):
        steps, values = [point["step"] for point in model["curve"]], [point[field] for point in model["curve"]]
        axes.plot(steps, values, marker=mark, markersize=4, label=name)
    axes.axhline(run["dense"][field], linestyle="--", color="grey", label="dense")
    axes.set_xlabel("steps of healing")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
