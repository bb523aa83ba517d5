"""Panels as data, and JSON by grafana-foundation-sdk. Names in a query are the contract's, but for Grafana's `$`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, statushistory, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from r1plus_contract import metrics

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
RATE = "$__rate_interval"
RANGE = "$__range"
HEIGHT, STAT_HEIGHT = 8, 4
WIDTH = 24
_DASHED = dashboard.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [4, 6]})
_RED = dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "red"})

AnyPanel = timeseries.Panel | stat.Panel | table.Panel | statetimeline.Panel | statushistory.Panel


class PanelKind(Enum):
    """How a panel shows its queries."""

    GRAPH = "graph"
    LOG = "log"
    STACKED = "stacked"
    STAT = "stat"
    TABLE = "table"
    STATES = "states"
    GRID = "grid"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what its series are called."""

    expr: str
    legend: str = ""
    """With labels in double braces; in a table, the column's name."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `width` is of 24 columns."""

    title: str
    meaning: str
    queries: tuple[Query, ...]
    kind: PanelKind = PanelKind.GRAPH
    unit: str = "short"
    width: int = WIDTH // 2
    highest: float | None = None


@dataclass(frozen=True, slots=True)
class GraphEvent:
    """What is marked on every graph: moments at which `expr` yields something."""

    name: str
    expr: str
    color: str


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. `of_one`: about the deployment that is chosen above it; `of_tenant`: about the tenant."""

    uid: str
    title: str
    meaning: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    of_one: bool = False
    of_tenant: bool = False
    events: tuple[GraphEvent, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Of all rows."""
        return tuple(panel for _, panels in self.rows for panel in panels)


def of_one(metric: str, *matchers: str) -> str:
    """Series of the chosen deployment."""
    chosen = ('namespace="$namespace"', 'deployment="$deployment"', *matchers)
    return f"{metric}{{{','.join(chosen)}}}"


def of_tenant(metric: str, *matchers: str, labels: Sequence[str] = ("model", "key")) -> str:
    """Series of the chosen tenant's gateway, of the chosen models and keys as far as they have these `labels`."""
    chosen = ('namespace="$namespace"', *(f'{label}=~"${label}"' for label in labels), *matchers)
    return f"{metric}{{{','.join(chosen)}}}"


def per_second(selected: str) -> str:
    """A counter's rate."""
    return f"rate({selected}[{RATE}])"


def quantile(share: float, histogram: str, by: str = "le") -> str:
    """Of a histogram's selected `_bucket` series."""
    return f"histogram_quantile({share}, sum by ({by}) ({per_second(histogram)}))"


def to_json(board: Board) -> str:
    """The dashboard as Grafana reads it."""
    made = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.meaning)
        .tags(["r1plus"])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("1m")
        .link(_other_boards())
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in _variables(board):
        made = made.with_variable(variable)
    for event in board.events:
        made = made.annotation(_annotation(event))
    for title, panels in board.rows:
        made = made.with_row(builders.Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    return json.dumps(json.loads(JSONEncoder().encode(made.build())), indent=1, sort_keys=True) + "\n"


def _other_boards() -> builders.DashboardLink:
    link = builders.DashboardLink("R1+").type(dashboard.DashboardLinkType.DASHBOARDS).tags(["r1plus"])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _variables(board: Board) -> Sequence[builders.QueryVariable]:
    if board.of_one:
        known = metrics.GATE_VERDICT
        deployment = f'label_values({known}{{namespace="$namespace"}}, deployment)'
        return [_variable("namespace", f"label_values({known}, namespace)"), _variable("deployment", deployment)]
    if board.of_tenant:
        requests = f'{metrics.GATEWAY_REQUESTS_TOTAL}{{namespace="$namespace"}}'
        several = [_several(name, f"label_values({requests}, {name})") for name in ("model", "key")]
        return [_variable("namespace", f"label_values({metrics.GATEWAY_DATA_STATE}, namespace)"), *several]
    return []


def _variable(name: str, query: str) -> builders.QueryVariable:
    made = builders.QueryVariable(name).query(query).datasource(SOURCE)
    return made.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)


def _several(name: str, query: str) -> builders.QueryVariable:
    """A variable with several values, at first all: also series without this label, of requests that were refused."""
    every = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return _variable(name, query).multi(True).include_all(True).all_value(".*").current(every)


def _annotation(event: GraphEvent) -> builders.AnnotationQuery:
    made = builders.AnnotationQuery().name(event.name).datasource(SOURCE).enable(True).icon_color(event.color)
    return made.expr(event.expr)


def _panel(panel: Panel) -> AnyPanel:
    made = _bare(panel).title(panel.title).description(panel.meaning).datasource(SOURCE).unit(panel.unit)
    made = made.span(panel.width).height(STAT_HEIGHT if panel.kind is PanelKind.STAT else HEIGHT)
    if panel.highest is not None:
        made = made.max(panel.highest)
    for place, query in enumerate(panel.queries):
        made = made.with_target(_target(chr(ord("A") + place), query, panel.kind))
    return made


def _bare(panel: Panel) -> AnyPanel:
    match panel.kind:
        case PanelKind.STAT:
            return stat.Panel()
        case PanelKind.TABLE:
            return _table(panel.queries)
        case PanelKind.STATES:
            return statetimeline.Panel().merge_values(True)
        case PanelKind.GRID:
            return statushistory.Panel()
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
    graph = timeseries.Panel().legend(legend.placement(common.LegendPlacement.BOTTOM))
    graph = graph.override_by_regexp("/ bound$/", [_DASHED]).override_by_name("threshold", [_RED])
    graph = graph.override_by_name("alarm", [_RED])
    if panel.kind is PanelKind.LOG:
        return graph.scale_distribution(
            common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        )
    if panel.kind is PanelKind.STACKED:
        return graph.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(40)
    return graph


def _table(queries: Sequence[Query]) -> table.Panel:
    """A row per deployment, a column per query."""
    named = {f"Value #{chr(ord('A') + place)}": query.legend for place, query in enumerate(queries)}
    merge = dashboard.DataTransformerConfig(id_val="merge", options={})
    shown = {"excludeByName": {"Time": True}, "renameByName": named}
    arrange = dashboard.DataTransformerConfig(id_val="organize", options=shown)
    return table.Panel().with_transformation(merge).with_transformation(arrange)


def _target(ref: str, query: Query, kind: PanelKind) -> prometheus.Dataquery:
    made = prometheus.Dataquery().ref_id(ref).expr(query.expr).datasource(SOURCE)
    if query.legend and kind is not PanelKind.TABLE:
        made = made.legend_format(query.legend)
    if kind is PanelKind.TABLE:
        return made.instant().format(PromQueryFormat.TABLE)
    return made.instant() if kind is PanelKind.STAT else made.range()
