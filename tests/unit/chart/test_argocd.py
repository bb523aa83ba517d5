"""The health checks that the chart has for Argo CD, run by Lua 5.1 with no more of its libraries than Argo CD gives them."""

from collections.abc import Mapping
from typing import Any, Final

import lupa.lua51
import pytest

from r1plus_operator.api.standings import STANDINGS, KstatusStanding
from support.chart import CHART, Render
from support.kstatus import Kstatus
from support.tables import for_each
from support.upgrade.statuses import KSTATUS, list_recorded

Json = dict[str, Any]
FOLDER = CHART / "files" / "argocd" / "r1plus.ai"
KINDS = ("R1PlusDeployment", "R1PlusTenant")
HEALTH: Final[Mapping[Kstatus, str]] = {
    Kstatus.CURRENT: "Healthy",
    Kstatus.IN_PROGRESS: "Progressing",
    Kstatus.FAILED: "Degraded",
}
NOT_IN_ARGO: Final = ("io", "os", "string", "math", "coroutine", "debug", "require", "dofile", "loadfile")
RECORDED = list_recorded()


def compute_health(obj: Json) -> tuple[str, str]:
    """Return status and message that the check of the object's kind returns."""
    lua = lupa.lua51.LuaRuntime(register_eval=False)
    for name in NOT_IN_ARGO:
        lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(obj, recursive=True)
    found = lua.execute((FOLDER / obj["kind"] / "health.lua").read_text())
    return str(found["status"]), str(found["message"])


@pytest.mark.parametrize("key", RECORDED)
def test_an_object_of_a_stored_cluster_has_the_health_of_its_kstatus(key: str) -> None:
    name = key.partition(" ")[2]
    expected = "Suspended" if name == "paused" else HEALTH[KSTATUS[name]]
    status, message = compute_health(RECORDED[key])
    reasons = [f"{one['reason']}: {one['message']}" for one in RECORDED[key]["status"]["conditions"]]
    assert (status, message in reasons) == (expected, True)


def build(kind: str, *conditions: tuple[str, str, str], observed: int | None = 3) -> Json:
    """Return an object of generation 3; a condition is its type, status and reason."""
    listed = [{"type": one[0], "status": one[1], "reason": one[2]} for one in conditions]
    status: Json = {"conditions": listed} if listed else {}
    if observed is not None:
        status["observedGeneration"] = observed
    return {"kind": kind, "metadata": {"generation": 3}, "spec": {}, "status": status}


READY = ("Ready", "True", "Serving")
STALLED = ("Stalled", "True", "WriteRefused")
NEWEST = "The operator has not processed the newest spec yet"
EDGES = {
    "no status": ({"metadata": {"generation": 1}}, "Progressing", NEWEST),
    "the default status of a new object": (build("", observed=-1), "Progressing", NEWEST),
    "no conditions": (build(""), "Progressing", NEWEST),
    "no generation that was observed": (build("", READY, observed=None), "Progressing", NEWEST),
    "a newer spec of what is stalled": (build("", READY, STALLED, observed=2), "Progressing", NEWEST),
    "conditions of another manager alone": (build("", ("Approved", "True", "Yes")), "Progressing", NEWEST),
    "what is ready": (build("", READY), "Healthy", "Serving: "),
    "Stalled that is False": (build("", READY, ("Stalled", "False", "Old")), "Healthy", "Serving: "),
    "what is stalled": (build("", READY, STALLED), "Degraded", "WriteRefused: "),
    "what moves": (build("", READY, ("Reconciling", "True", "Starting")), "Progressing", "Starting: "),
    "what is not ready": (build("", ("Ready", "False", "NotServing")), "Progressing", "NotServing: "),
}


@pytest.mark.parametrize("kind", KINDS)
@for_each("obj, status, message", EDGES)
def test_both_checks_read_a_status_alike(obj: Json, status: str, message: str, kind: str) -> None:
    assert compute_health({**obj, "kind": kind}) == (status, message)


HELD = {
    "a pause": ((READY, ("Progressing", "False", "Paused")), "Suspended", "Paused: "),
    "a pause, and a write that is refused": ((("Progressing", "False", "Paused"), STALLED), "Degraded", "WriteRefused: "),
    "a pin": ((READY, ("Progressing", "False", "Pinned")), "Healthy", "Serving: "),
    "no replicas": ((("Ready", "False", "ScaledToZero"),), "Suspended", "ScaledToZero: "),
}  # fmt: skip


@for_each("conditions, status, message", HELD)
def test_a_deployment_that_a_person_holds(
    conditions: tuple[tuple[str, str, str], ...], status: str, message: str
) -> None:
    assert compute_health(build("R1PlusDeployment", *conditions)) == (status, message)


@pytest.mark.parametrize("kind", KINDS)
def test_each_reason_has_the_health_of_the_table_in_the_docs(kind: str) -> None:
    table = (CHART.parents[1] / "docs" / "conditions.md").read_text()
    conditions = {KstatusStanding.RECONCILING: "Reconciling", KstatusStanding.STALLED: "Stalled"}
    for reason, standing in STANDINGS.items():
        if standing is not KstatusStanding.AT_REST:
            health, _ = compute_health(build(kind, READY, (conditions[standing], "True", reason)))
            assert f"| `{reason}` | `{conditions[standing]}` | " in table
            assert f"| `{health}` |\n" in table.partition(f"| `{reason}` | `{conditions[standing]}` | ")[2]


def test_the_chart_has_them_where_they_are_asked_for(render: Render) -> None:
    def find(values: Json) -> list[Json]:
        return [obj for obj in render(values) if obj["metadata"]["name"].endswith("-argocd-health")]

    assert find({}) == []
    (config,) = find({"gitops": {"argocd": True}})
    assert config["data"] == {
        f"resource.customizations.health.r1plus.ai_{kind}": (FOLDER / kind / "health.lua").read_text() for kind in KINDS
    }
