"""A 409 has two meanings, that the owner is gone and that two writes collided; only the first ends the work."""

import pytest

from r1plus_operator.controllers.applier import OwnerGoneError
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.runtime.errors import ApiError, ConflictError, NotFoundError
from support.operator.writes import Server

COLLISION = ConflictError(409, "Conflict", "the object has been modified")
ABSENT = NotFoundError(404, "NotFound", "no such object")


@pytest.mark.parametrize(
    ("refusal", "live", "raised"),
    [
        pytest.param(COLLISION, "u", ConflictError, id="a collision is tried again"),
        pytest.param(COLLISION, "another", OwnerGoneError, id="a namesake has taken its place"),
        pytest.param(COLLISION, "", OwnerGoneError, id="it is gone, which is a 409 where a uid is given"),
        pytest.param(ABSENT, "u", NotFoundError, id="a 404 from a server that does not know it yet is tried again"),
        pytest.param(ABSENT, "", OwnerGoneError, id="it is gone"),
    ],
)
async def test_the_owner_is_gone_only_if_the_server_says_so(
    refusal: ApiError, live: str, raised: type[Exception]
) -> None:
    server = Server(live=live, R1PlusDeployment_status=refusal)
    with pytest.raises(raised):
        await server.run(Plan(status={"observedGeneration": 1}))
    # So that the next pass plans from it.
    assert server.learned == ([] if raised is OwnerGoneError else ["status of u: {}"])


async def test_a_deletion_that_collided_is_tried_again_and_one_that_was_done_is_forgotten() -> None:
    server = Server(live="u", delete_Deployment=COLLISION)
    with pytest.raises(ConflictError):
        await server.run(Plan(delete=(("Deployment", "credit-a", "u-9"),)))
    assert server.learned == []
