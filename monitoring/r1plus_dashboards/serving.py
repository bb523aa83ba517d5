"""What callers of one deployment feel."""

from r1plus_contract import metrics
from r1plus_dashboards.build import Board, Panel, PanelKind, Query, of_one, per_second, quantile

_FIRST_TOKEN = of_one(f"{metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS}_bucket")
_REQUESTS = metrics.ENGINE_REQUESTS_TOTAL
_BAD = 'result=~"error|refused|queue_full|schema_memory_full"'
SERVING = Board(
    uid="r1plus-serving",
    title="R1+ / serving",
    meaning="Latency and load of one R1PlusDeployment, users' requests and probes together.",
    of_one=True,
    rows=(
        (
            "Latency",
            (
                Panel(
                    "Time to first token",
                    "From arrival, waiting included. The alert is about 95 %.",
                    tuple(Query(quantile(q, _FIRST_TOKEN), f"{q:.0%}") for q in (0.5, 0.95, 0.99)),
                    unit="s",
                ),
                Panel(
                    "Time to first token by pod, 95 %",
                    "One slow pod among several: look at its node.",
                    (Query(quantile(0.95, _FIRST_TOKEN, "le, pod"), "{{pod}}"),),
                    unit="s",
                ),
            ),
        ),
        (
            "Load",
            (
                Panel(
                    "Tokens a second",
                    "prompt: read; completion: written.",
                    (
                        Query(
                            f"sum by (direction) ({per_second(of_one(metrics.ENGINE_TOKENS_TOTAL))})", "{{direction}}"
                        ),
                    ),
                ),
                Panel(
                    "Requests a second, by how they ended",
                    "refused: too long, say; queue_full: too many at once; cancelled: the caller hung up;"
                    " counted: only the prompt's length was asked for.",
                    (Query(f"sum by (result) ({per_second(of_one(_REQUESTS))})", "{{result}}"),),
                    PanelKind.STACKED,
                ),
                Panel(
                    "Memory for schemas, used",
                    "By compiled schemas and grammars. Emptied from 80 % on, as soon as nothing runs.",
                    (Query(f"max by (pod) ({of_one(metrics.ENGINE_SCHEMA_USED_RATIO)})", "{{pod}}"),),
                ),
                Panel(
                    "Running",
                    "At most the batch, per pod.",
                    (Query(f"sum by (pod) ({of_one(metrics.ENGINE_RUNNING_REQUESTS)})", "{{pod}}"),),
                    PanelKind.STACKED,
                ),
                Panel(
                    "Waiting for a slot",
                    "Above 0 for long: more requests come than are answered.",
                    (Query(f"sum by (pod) ({of_one(metrics.ENGINE_WAITING_REQUESTS)})", "{{pod}}"),),
                    PanelKind.STACKED,
                ),
            ),
        ),
        (
            "Trouble",
            (
                Panel(
                    "Share of requests that failed or were refused",
                    "Among all that ended.",
                    (
                        Query(
                            f"sum({per_second(of_one(_REQUESTS, _BAD))}) / sum({per_second(of_one(_REQUESTS))})",
                            "share",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "Pods that Prometheus reaches",
                    "By revision: while a candidate is gated there are two.",
                    (Query(f"sum by (revision) ({of_one('up')})", "{{revision}}"),),
                    PanelKind.STACKED,
                ),
            ),
        ),
    ),
)
