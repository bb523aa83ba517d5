"""`python -m bench.context.picture FILE... [-o docs/context.png]`: draws records of `make bench NAME=context`.

Three panels over the length of the prompt: time to the first token, KV cache while an answer is generated, and the
share of needles that were found: runs with few items ask nothing else. Nothing is drawn that the records do not say. The lengths may be measured in several runs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import read_figures

TARGET: Final = Path(__file__).parents[3] / "docs" / "context.png"
INCHES, DPI = (9.6, 3.4), 120
NEEDLE: Final = "needle"
PANELS: Final = (
    ("first_token_seconds", "seconds to the first token"),
    ("kv_answer_mib", "MiB of KV cache while it generates"),
    (NEEDLE, "share of needles found"),
)
MARKS: Final = "o", "s", "^"


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "reports", nargs="+", type=Path, help="records of make bench NAME=context, or files with its output"
    )
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    reports = [read_figures(path) for path in arguments.reports]
    # No date in the file: the same data make the same picture.
    draw(join(reports)).savefig(arguments.output, metadata={"Software": None})
    print(arguments.output)


def join(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the reports of several runs of one engine as one; the loads are those before the first and after the last.

    Raises:
        ValueError: the runs are of several engines.
    """
    if len(names := sorted({report["engine"] for report in reports})) > 1:
        raise ValueError(
            f"the files are of several engines, {', '.join(names)}: a picture shows one; name files of one"
        )
    rows: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for method, found in report["rows"].items():
            rows[method] = sorted([*rows.get(method, []), *found], key=lambda row: int(row["tokens"]))
    machine = {"before": reports[0]["machine"]["before"], "after": reports[-1]["machine"]["after"]}
    return {**reports[0], "rows": rows, "machine": machine}


def draw(report: dict[str, Any]) -> Figure:
    """Return the figure of a report."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(PANELS)))
    for axes, (field, label) in zip(panels, PANELS, strict=True):
        for mark, (method, rows) in zip(MARKS, report["rows"].items(), strict=False):
            known = [row for row in rows if field != NEEDLE or (row["trained"] and NEEDLE in row["kinds"])]
            values = [share_found(row) if field == NEEDLE else row[field] for row in known]
            axes.plot([row["prompt_tokens"] for row in known], values, marker=mark, markersize=4, label=method)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("tokens of the prompt")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    panels[-1].set_ylim(-0.02, 1.02)
    panels[0].legend(fontsize="small")
    machine = report["machine"]
    loads = f"load {machine['before']['load']} before, {machine['after']['load']} after"
    figure.suptitle(f"{report['engine']} on {machine['before']['cpus']} cores ({loads})", fontsize="medium")
    return figure


def share_found(row: dict[str, Any]) -> float:
    """Return the share of a row's needles whose answer was right."""
    right, asked = map(int, row["kinds"][NEEDLE].split("/"))
    return right / asked


if __name__ == "__main__":
    main()
