"""A pass whose write is refused: what its status then says is read from the same observation as the pass."""

from typing import Any

import pytest

from r1plus_operator.plan.inputs import Observed, TenantView
from r1plus_operator.plan.plan import Plan
from r1plus_operator.reconciler import Reconciler
from r1plus_operator.runtime.errors import ForbiddenError
from r1plus_operator.waves import Waves
from support.plan.world import CONFIG, World

KEY = ("team", "credit")
ISOLATED = TenantView("True", "WallsHeld", "25 of 25 forbidden connections were blocked")


class Parts:
    """The reconciler's neighbours: one deployment in a tenant that is isolated, and a server that refuses children."""

    def __init__(self) -> None:
        self.world = World({"tier": "full"})
        self.told: list[Plan] = []
        self.waves = Waves(1)

    async def load_suites(self, key: object) -> dict[str, Any]:
        return {}

    def observed(self, key: object, suites: object) -> Observed:
        return self.world.observed()

    def release_slot(self, key: object) -> None:
        pass

    def view(self, namespace: str) -> TenantView:
        return ISOLATED

    async def run(self, cr: object, plan: Plan, now: float) -> frozenset[str]:
        self.world.status = plan.status
        raise ForbiddenError(403, "Forbidden", "Service credit belongs to another R1PlusDeployment")

    async def tell(self, cr: object, plan: Plan, now: float) -> None:
        self.told.append(plan)


async def test_a_refused_write_changes_nothing_of_what_is_said_about_isolation() -> None:
    parts: Any = Parts()
    reconciler = Reconciler(parts, parts, parts, CONFIG, (), parts, parts, parts, clock=lambda: 1000.0)
    with pytest.raises(ForbiddenError):
        await reconciler.reconcile(KEY)
    (plan,) = parts.told
    conditions = {c["type"]: (c["status"], c["reason"]) for c in plan.status["conditions"]}
    assert conditions["IsolationVerified"] == ("True", "WallsHeld")
    assert conditions["Progressing"] == ("False", "WriteRefused")
    assert not [note for note in plan.notes if "Isolation" in note.message]
