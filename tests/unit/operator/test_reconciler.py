"""A pass whose write is refused: what its status then says is read from the same observation as the pass."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_operator.api import fence
from r1plus_operator.controllers.deployment import DeploymentReconciler
from r1plus_operator.controllers.router import PassRouter
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.waves import Waves
from r1plus_operator.plan.deployment import OBJECTION_SECONDS, Plan, plan
from r1plus_operator.plan.observation import Observation, TenantView
from r1plus_operator.plan.revision.refresh import SlotRequest
from r1plus_operator.plan.settings import RuntimeUpdate
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from r1plus_operator.runtime.queue import WorkQueue
from support.plan.world import CONFIG, World, serve_world

KEY, BEHIND = DeploymentKey("team", "credit"), DeploymentKey("team", "support")
ISOLATED = TenantView("True", "IsolationEnforced", "25 of 25 forbidden connections were blocked")


class Parts:
    """The reconciler's neighbours: one deployment in a tenant that is isolated, and a server that refuses children."""

    def __init__(self) -> None:
        self.world = World({"tier": "full"})
        self.told: list[Plan] = []
        self.waves = Waves(1)
        self.deployments = self

    async def gather(self, key: DeploymentKey, read_view: Any, write_error: str) -> Observation:
        wave, view = self.waves.grant_slot(key), read_view(key.namespace)
        return replace(self.world.observed(), tenant=view, wave=wave, write_error=write_error)

    def release_slot(self, key: tuple[str, str]) -> None:
        self.waves.release(key)

    def get_view(self, namespace: str) -> TenantView:
        return ISOLATED

    def follow_deployment(self, key: Any) -> None:
        """There is no gateway."""

    async def apply_plan(self, cr: object, plan: Plan, now: float) -> frozenset[str]:
        self.world.status = plan.status
        raise ForbiddenError(403, "Forbidden", "Service credit belongs to another R1PlusDeployment")

    async def report(self, cr: object, plan: Plan, now: float) -> None:
        self.told.append(plan)


async def test_a_refused_write_changes_nothing_of_what_is_said_about_isolation() -> None:
    parts: Any = Parts()
    reconciler = DeploymentReconciler(parts, parts, parts, CONFIG, parts, parts, parts, clock=lambda: 1000.0)
    with pytest.raises(ForbiddenError):
        await reconciler.reconcile(KEY)
    (report,) = parts.told
    conditions = {c["type"]: (c["status"], c["reason"]) for c in report.status["conditions"]}
    assert conditions["IsolationVerified"] == ("True", "IsolationEnforced")
    assert conditions["Progressing"] == ("False", "WriteRefused")
    assert not [note for note in report.notes if "Isolation" in note.message]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        pytest.param(
            ForbiddenError(403, "Forbidden", "status unknown for quota: r1plus-tenant"),
            [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0],
            id="what admission refuses may be let through a moment later",
        ),
        pytest.param(InvalidError(422, "Invalid", "spec.a: Required value"), [60.0] * 3, id="a schema stays as it is"),
        pytest.param(
            ForbiddenError(403, "Forbidden", f"policy x{fence.SUFFIX} refused it"),
            [None] * 3,
            id="the fence asks who leads",
        ),
        pytest.param(ApiError(500, "InternalError", "etcd: no leader"), [None] * 3, id="the server's own failure"),
    ],
)
async def test_a_refusal_is_tried_again_soon_at_first(error: ApiError, seconds: list[float | None]) -> None:
    queue: WorkQueue[Any] = WorkQueue()
    parts: Any = Parts()
    router = PassRouter(parts, parts, parts, parts, queue)
    delays = []
    for _ in seconds:
        delays.append(router.on_error(KEY, error))
        queue.add_failed(KEY, delays[-1])
    queue.shut_down()
    assert delays == seconds


async def test_a_refusal_that_lasts_for_days_is_still_tried_every_minute() -> None:
    queue: WorkQueue[Any] = WorkQueue()
    parts: Any = Parts()
    router = PassRouter(parts, parts, parts, parts, queue)
    for _ in range(2_000):
        queue.add_failed(KEY, 0.0)
    queue.shut_down()
    assert router.on_error(KEY, ForbiddenError(403, "Forbidden", "no")) == 60.0


async def test_a_candidate_whose_write_is_refused_leaves_the_line() -> None:
    """Else its passes would call each other without a pause, and nobody behind it would begin."""
    parts: Any = Parts()
    parts.world = serve_world()
    config = replace(CONFIG, triton_image="registry.local/triton:2", runtime_update=RuntimeUpdate.AUTOMATIC)
    reconciler = DeploymentReconciler(parts, parts, parts, config, parts, parts, parts, clock=lambda: parts.world.now)
    for turns in ([KEY], []):
        with pytest.raises(ForbiddenError):
            await reconciler.reconcile(KEY)
        assert parts.waves.list_turns() == turns


async def test_a_pass_that_cannot_be_planned_leaves_the_line() -> None:
    """Else it would be called again at once whatever its back-off, and nobody behind it would begin."""
    parts: Any = Parts()
    for key in (KEY, BEHIND):
        parts.waves.set_waiting(key, SlotRequest("w", is_requested=False))
    reconciler = DeploymentReconciler(parts, parts, parts, CONFIG, parts, parts, parts, clock=lambda: 1000.0)
    parts.gather = fail_to_gather
    assert parts.waves.list_turns() == [KEY]
    with pytest.raises(ApiError):
        await reconciler.reconcile(KEY)
    assert parts.waves.list_turns() == [BEHIND]


async def fail_to_gather(*_: object) -> Observation:
    raise ApiError(500, "InternalError", "etcd: no leader")


class Watching(Parts):
    """A deployment serves, and the suite that it is judged by is gone from the chart."""

    def __init__(self) -> None:
        super().__init__()
        self.world = serve_world()
        self.world.suites = {}
        self.plans: list[Plan] = []

    async def apply_plan(self, cr: object, plan: Plan, now: float) -> frozenset[str]:
        self.plans.append(plan)
        return frozenset()

    def set_request(self, key: object, pool: object) -> None: ...

    def record(self, key: object, status: object, facts: object) -> None: ...

    def add(self, key: object) -> None: ...

    def add_after(self, key: object, seconds: float) -> None: ...


async def test_a_pass_reads_the_mounted_suite_where_its_source_is_gone() -> None:
    parts: Any = Watching()
    reconciler = DeploymentReconciler(parts, parts, parts, CONFIG, parts, parts, parts, clock=lambda: 1000.0)
    await reconciler.reconcile(KEY)
    (next_plan,) = parts.plans
    assert next_plan.pool is not None
    assert next_plan.status["suite"] == "smollm2-full-v1"


async def test_a_pass_that_meets_an_objection_reports_it_and_writes_nothing_else() -> None:
    parts: Any = Watching()
    parts.world.children.pop(("Deployment", parts.world.selected()))
    observation = replace(parts.world.observed(), write_objection="ControllerRevision x lost its mark")
    next_plan = plan(observation, CONFIG, 1000.0)
    conditions = {c["type"]: (c["reason"], c["message"]) for c in next_plan.status["conditions"]}
    assert not next_plan.writes
    assert next_plan.requeue_after == OBJECTION_SECONDS
    reason, message = conditions["Progressing"]
    assert reason == "WriteRefused"
    assert "lost its mark" in message
    assert plan(replace(observation, write_objection=""), CONFIG, 1000.0).writes
