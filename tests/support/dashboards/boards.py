"""The dashboards as Grafana reads them, down to their queries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from support.paths import ROOT

FOLDER = ROOT / "monitoring" / "dashboards"


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard, a row's heading aside."""

    board: str
    raw: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What stands above it."""
        return str(self.raw["title"])

    @property
    def queries(self) -> tuple[str, ...]:
        """PromQL, with Grafana's variables."""
        return tuple(target["expr"] for target in self.raw["targets"])

    @property
    def by_legend(self) -> dict[str, str]:
        """Its queries by what their series are called."""
        return {target.get("legendFormat", ""): target["expr"] for target in self.raw["targets"]}


@dataclass(frozen=True)
class Board:
    """One file of `FOLDER`."""

    file: Path

    @property
    def name(self) -> str:
        """That of the file."""
        return self.file.stem

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The whole document."""
        document: dict[str, Any] = json.loads(self.file.read_text("utf-8"))
        return document

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Of all rows, in their order."""
        return tuple(Panel(self.name, panel) for panel in self.raw["panels"] if panel["type"] != "row")

    @property
    def events(self) -> tuple[str, ...]:
        """PromQL of what is marked on every graph."""
        return tuple(one["expr"] for one in self.raw["annotations"].get("list", []))

    @property
    def variables(self) -> tuple[str, ...]:
        """What a person chooses above the panels."""
        return tuple(variable["name"] for variable in self.raw["templating"]["list"])


BOARDS = {file.stem: Board(file) for file in sorted(FOLDER.glob("*.json"))}


def find_panel(board: str, title: str) -> Panel:
    """Return a panel by its title; ValueError names what there is."""
    panels = {panel.title: panel for panel in BOARDS[board].panels}
    if title not in panels:
        raise ValueError(f"{board} has no panel {title!r}, but {', '.join(panels)}")
    return panels[title]
