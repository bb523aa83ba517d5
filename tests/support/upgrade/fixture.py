"""A stored cluster below tests/golden: how its files are laid out, written and read.

`recorded.json` says when and by which commit; `objects/KIND.jsonl` holds the objects of a kind, one a line;
`monitors.jsonl` what each pod's monitor answers, one pod a line.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
GOLDEN = Path(__file__).parents[2] / "golden"
OPERATOR_NAMESPACE = "r1plus-system"
TENANT_NAMESPACE = "team-credit"
DECOY_NAMESPACE = "r1plus-decoy"
ENVIRONMENT = {
    "R1PLUS_BAKE_SECONDS": "0",
    "R1PLUS_DECOY_NAMESPACE": DECOY_NAMESPACE,
    "R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false",
}
"""Of the recorded operator and of the one that takes over: what has served at all may be gone back to, and no engine
need be signed."""


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """The contents of one folder."""

    folder: Path
    at: float
    """When the operator had stopped, seconds since the epoch."""
    objects: tuple[Json, ...]
    monitors: tuple[Json, ...]
    """`pod`, `answers` (path -> document) and, where the test lets time go on, `next`: the answers after these."""

    def of_kind(self, kind: str) -> list[Json]:
        """Return the objects of a kind, in the order of the file."""
        return [obj for obj in self.objects if obj["kind"] == kind]

    def get(self, kind: str, name: str) -> Json:
        """Return one object of the tenant's namespace, or of none."""
        where = (TENANT_NAMESPACE, None)
        return next(
            obj
            for obj in self.of_kind(kind)
            if obj["metadata"]["name"] == name and obj["metadata"].get("namespace") in where
        )


def read_cluster(folder: Path) -> StoredCluster:
    """Read a stored cluster."""
    recorded = json.loads((folder / "recorded.json").read_text())
    objects = (obj for path in sorted((folder / "objects").glob("*.jsonl")) for obj in _lines(path))
    return StoredCluster(folder, recorded["at"], tuple(objects), tuple(_lines(folder / "monitors.jsonl")))


def stored_clusters() -> list[Path]:
    """Return the folders of all stored clusters, the oldest commit's name first in the alphabet."""
    return sorted(GOLDEN.glob("cluster-*"))


def write_cluster(folder: Path, recorded: Json, objects: Iterable[Json], monitors: Iterable[Json]) -> None:
    """Write a stored cluster into a folder that is not there yet: what a version stored is never edited."""
    (folder / "objects").mkdir(parents=True)
    (folder / "recorded.json").write_text(json.dumps(recorded, indent=2) + "\n")
    by_kind: dict[str, list[Json]] = {}
    for obj in objects:
        by_kind.setdefault(obj["kind"], []).append(obj)
    for kind, members in by_kind.items():
        members.sort(key=lambda obj: (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
        _write_lines(folder / "objects" / f"{kind}.jsonl", members)
    _write_lines(folder / "monitors.jsonl", sorted(monitors, key=lambda one: str(one["pod"])))


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write_lines(path: Path, documents: Iterable[Json]) -> None:
    lines = (json.dumps(one, separators=(",", ":"), ensure_ascii=False) for one in documents)
    path.write_text("".join(f"{line}\n" for line in lines))
