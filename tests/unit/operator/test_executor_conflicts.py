"""A 409 has two meanings, that the owner is gone and that two writes collided; only the first ends the work."""

from typing import Any

import pytest

from r1plus_operator.executor import Executor, OwnerGoneError
from r1plus_operator.plan.plan import Plan
from r1plus_operator.runtime.errors import ApiError, ConflictError, NotFoundError
from r1plus_operator.runtime.resources import Resource

CR = {"metadata": {"name": "credit", "namespace": "team", "uid": "u-1", "resourceVersion": "7"}, "status": {}}
COLLISION = ConflictError(409, "Conflict", "the object has been modified")
ABSENT = NotFoundError(404, "NotFound", "no such object")


class Refusing:
    """An API server that refuses every write; `live` is the uid of the CR that it has."""

    def __init__(self, refusal: ApiError, live: str | None) -> None:
        self._refusal = refusal
        self._live = live

    async def list(
        self, res: Resource, namespace: str | None = None, *, name: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        assert name == "credit", "a namespace may have a thousand"
        return ([] if self._live is None else [{"metadata": {"name": name, "uid": self._live}}]), "9"

    async def apply(self, res: Resource, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        raise self._refusal

    async def delete(self, res: Resource, name: str, namespace: str | None = None, **_: Any) -> dict[str, Any]:
        raise self._refusal


class Forgetful:
    """Remembers what it was told to learn and to forget."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []
        self.learnt: list[str] = []

    def learn(self, written: dict[str, Any]) -> None:
        self.learnt.append(written["metadata"]["uid"])

    def unlearn(self, kind: str, namespace: str, name: str) -> None:
        self.forgotten.append(name)


@pytest.mark.parametrize(
    ("refusal", "live", "raised"),
    [
        pytest.param(COLLISION, "u-1", ConflictError, id="a collision is tried again"),
        pytest.param(COLLISION, "u-2", OwnerGoneError, id="a namesake has taken its place"),
        pytest.param(COLLISION, None, OwnerGoneError, id="it is gone, which is a 409 where a uid is given"),
        pytest.param(ABSENT, "u-1", NotFoundError, id="a 404 from a server that does not know it yet is tried again"),
        pytest.param(ABSENT, None, OwnerGoneError, id="it is gone"),
    ],
)
async def test_the_owner_is_gone_only_if_the_server_says_so(
    refusal: ApiError, live: str | None, raised: type[Exception]
) -> None:
    learner = Forgetful()
    with pytest.raises(raised):
        await Executor(Refusing(refusal, live), learner).run(CR, Plan(status={"observedGeneration": 1}), 0.0)
    assert learner.learnt == ([] if raised is OwnerGoneError else ["u-1"])  # so that the next pass plans from it


async def test_a_deletion_that_collided_is_tried_again_and_one_that_was_done_is_forgotten() -> None:
    plan, learner = Plan(delete=(("Deployment", "credit-a", "u-9"),)), Forgetful()
    with pytest.raises(ConflictError):
        await Executor(Refusing(COLLISION, "u-1"), learner).run({**CR, "status": {}}, plan, 0.0)
    assert learner.forgotten == []
