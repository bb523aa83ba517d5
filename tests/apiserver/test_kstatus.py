"""What GitOps tools take our objects for: kstatus itself, over the stored clusters and at the edges of its rules."""

import copy
import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from devcluster import binaries
from devcluster.cache import binary
from devcluster.parts import STATUS_BINARIES
from devcluster.steps import Steps
from support.kstatus import Kstatus, compute_kstatus
from support.upgrade.statuses import KSTATUS, list_recorded

pytestmark = pytest.mark.apiserver
Json = dict[str, Any]
RECORDED = list_recorded()


def ask_kstatus(objects: Sequence[Json]) -> list[str]:
    """Return what the library computes for each object."""
    binaries.build(Steps(len(STATUS_BINARIES)), STATUS_BINARIES)
    lines = "".join(f"{json.dumps(obj)}\n" for obj in objects)
    asked = subprocess.run([binary("kstatus")], input=lines, capture_output=True, text=True, check=True, timeout=60)
    return asked.stdout.splitlines()


def test_each_stored_object_is_what_the_table_says() -> None:
    expected = {key: KSTATUS[key.partition(" ")[2]] for key in RECORDED}
    assert dict(zip(RECORDED, ask_kstatus(list(RECORDED.values())), strict=True)) == expected
    assert {key: compute_kstatus(obj) for key, obj in RECORDED.items()} == expected
    assert len(RECORDED) > 30


def build(*conditions: tuple[str, str], generation: int = 2, observed: int | None = 2, **metadata: str) -> Json:
    obj = copy.deepcopy(next(iter(RECORDED.values())))
    obj["metadata"] |= {"generation": generation, **metadata}
    obj["status"] = {"conditions": [{"type": kind, "status": status} for kind, status in conditions]}
    if observed is not None:
        obj["status"]["observedGeneration"] = observed
    return obj


READY = ("Ready", "True")
EDGES = {
    "a newer spec": (build(READY, generation=3), Kstatus.IN_PROGRESS),
    "a newer spec of what is stalled": (build(READY, ("Stalled", "True"), generation=3), Kstatus.IN_PROGRESS),
    "the default status of a new object": (build(observed=-1), Kstatus.IN_PROGRESS),
    "no status": ({**build(), "status": {}}, Kstatus.CURRENT),
    "no observedGeneration": (build(READY, observed=None), Kstatus.CURRENT),
    "what is not ready": (build(("Ready", "False")), Kstatus.IN_PROGRESS),
    "what may be ready": (build(("Ready", "Unknown")), Kstatus.IN_PROGRESS),
    "Stalled that is False": (build(("Stalled", "False"), READY), Kstatus.CURRENT),
    "Stalled": (build(READY, ("Stalled", "True")), Kstatus.FAILED),
    "Reconciling before Stalled": (build(("Reconciling", "True"), ("Stalled", "True")), Kstatus.IN_PROGRESS),
    "Stalled before Reconciling": (build(("Stalled", "True"), ("Reconciling", "True")), Kstatus.FAILED),
    "what is deleted": (build(("Stalled", "True"), deletionTimestamp="2026-12-07T12:00:00Z"), Kstatus.TERMINATING),
}


def test_the_transcription_agrees_at_the_edges() -> None:
    objects = [obj for obj, _ in EDGES.values()]
    expected = {case: status for case, (_, status) in EDGES.items()}
    assert dict(zip(EDGES, ask_kstatus(objects), strict=True)) == expected
    assert dict(zip(EDGES, map(compute_kstatus, objects), strict=True)) == expected
