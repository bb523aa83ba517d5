"""The picture of the batch curve: tokens per second against requests at once, drawn from a record of `make bench NAME=claims`.

`python -m bench.claims.picture RECORD [-o FILE]`. The same record gives the same picture.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.claims.report import PUBLISHED_BATCH, EngineFigures, Run, read_run
from bench.figures import read_figures
from devcluster.images.sources import ROOT

TARGET: Final = ROOT / "docs" / "batch.png"
INCHES, DPI = (8.0, 3.4), 120


def draw_curve(run: Run) -> Figure:
    """Draw a line per engine, between the slowest and the fastest round, and the publisher's batch."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    axes: Axes = figure.subplots()
    curves = [one for one in run.engines if len(one.curve) > 1]
    for place, one in enumerate(curves):
        _draw_engine(axes, one, f"C{place}")
    axes.axvline(
        int(PUBLISHED_BATCH), color="tab:red", linestyle="--", label=f"publisher, on an A100: {PUBLISHED_BATCH}"
    )
    batches = sorted({batch for one in curves for batch in one.curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(bottom=0)
    axes.set_title(f"Tokens per second by requests at once, on {run.hardware}", fontsize="medium")
    axes.set_xlabel(f"requests at once, answers of {run.tokens} tokens; measured {run.measured_at[:10]}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return figure


def _draw_engine(axes: Axes, one: EngineFigures, color: str) -> None:
    curve = dict(sorted(one.curve.items()))
    rounds = [one.tokens_per_second[str(batch)] for batch in curve]
    axes.plot(list(curve), list(curve.values()), marker="o", color=color, label=f"{one.name} ({one.runtime})")
    axes.fill_between(list(curve), list(map(min, rounds)), list(map(max, rounds)), color=color, alpha=0.15, linewidth=0)


def main(arguments: Sequence[str]) -> int:
    """Draw and write; return the exit status: 1 where the record has no curve."""
    parser = argparse.ArgumentParser(prog="bench.claims.picture", description=__doc__)
    parser.add_argument("record", type=Path, help="of make bench NAME=claims, or a file with its output")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    given = parser.parse_args(arguments)
    try:
        run = read_run(read_figures(given.record))
    except (OSError, ValueError) as error:
        print(f"{given.record}: {error}", file=sys.stderr)
        return 1
    if not any(len(one.curve) > 1 for one in run.engines):
        print(f"{given.record}: has no speeds at several batches: measure --part batch", file=sys.stderr)
        return 1
    # No date in the file: the same record makes the same picture.
    draw_curve(run).savefig(given.output, metadata={"Software": None})
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
