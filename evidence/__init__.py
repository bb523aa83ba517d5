"""What long targets have shown: records with their commit, what is stale of them, and the figures that pages print.

`make evidence` prints the report. A page prints a figure with cog: `cog.outl(figure("bench-gateway", "ttft_ms.p99"))`.
"""

from evidence.figures import duration, figure, origin, table, value

__all__ = ["duration", "figure", "origin", "table", "value"]
