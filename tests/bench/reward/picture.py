"""`python -m bench.reward.picture FILE [-o docs/reward.png]`: draws a record of `make bench NAME=reward`.

Held-out questions that are right before and after, by the form of the expression that is asked for.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from bench.figures import read_figures

TARGET: Final = Path(__file__).parents[3] / "docs" / "reward.png"
INCHES, DPI = (9.6, 3.4), 120
WIDTH: Final = 0.4


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="a record of make bench NAME=reward, or a file with its output")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    # No date in the file: the same data make the same picture.
    draw(read_figures(arguments.report)).savefig(arguments.output, metadata={"Software": None})
    print(arguments.output)


def count_by_form(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return how many questions of each form are right before and after."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        form = row["form"].replace("{", "").replace("}", "")
        counts[form][0] += row["before"]
        counts[form][1] += row["after"]
    return {form: (before, after) for form, (before, after) in counts.items()}


def draw(report: dict[str, Any]) -> Figure:
    """Return the figure of a report."""
    counts, change = count_by_form(report["held_out_templates"]["rows"]), report["held_out"]
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for part, label in enumerate(("before", "after")):
        places = [place + (part - 0.5) * WIDTH for place in range(len(counts))]
        axes.bar(places, [pair[part] for pair in counts.values()], WIDTH, label=f"{label}: {change[label]}")
    axes.set_xticks(range(len(counts)), list(counts), rotation=40, ha="right", fontsize="small")
    axes.set_ylabel("right questions")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3, axis="y")
    figure.suptitle(f"{change['questions']} held-out questions, {report['model']}", fontsize="medium")
    return figure


if __name__ == "__main__":
    main()
