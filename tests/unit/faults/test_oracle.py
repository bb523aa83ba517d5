"""What judges the runs must be able to fail: each way in which a run can differ is seen, and what may differ is not."""

from collections import Counter
from typing import Any

import pytest

from faults import oracle
from faults.calls import Call, Event, Fault, Point, parse
from faults.lane import Lane

END = {"Service credit": {"spec": {"selector": {"r1plus.ai/revision": "credit-b"}}}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(END, [], id="the same state"),
        pytest.param({}, ["Service credit", "None"], id="a child that is missing"),
        pytest.param(END | {"Deployment credit-a": {}}, ["Deployment credit-a"], id="a child too many"),
        pytest.param({"Service credit": {"spec": {"selector": {"r1plus.ai/revision": "credit-a"}}}}, ["r1plus.ai/revision: credit-a"], id="another value deep inside"),
    ],
)  # fmt: skip
def test_a_state_that_differs_is_told_with_its_place(found: dict[str, Any], words: list[str]) -> None:
    told = oracle.differences(found, END)
    assert bool(told) is bool(words)
    for word in words:
        assert word in told[0]


LACKS = "credit-a of team-1 carried traffic for only {} of the required 10 min"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(LACKS.format("9 s"), LACKS.format("8 s"), True, id="how long it served"),
        pytest.param(LACKS.format("119 s"), LACKS.format("2 min"), True, id="in another unit"),
        pytest.param(LACKS.format("9 s"), LACKS.format("9 s").replace("10", "20"), False, id="how long it must serve"),
        pytest.param("lost 9 of 210 items", "lost 8 of 210 items", False, id="any other figure"),
        pytest.param({"uid": "1", "spec": 1}, {"uid": "2", "spec": 1}, True, id="a uid"),
        pytest.param({"r1plus.ai/promoted-at": "1.0"}, {"r1plus.ai/promoted-at": "2.0"}, True, id="a time"),
        pytest.param({"r1plus.ai/promoted-at": "1.0"}, {}, False, id="a time that is missing"),
        pytest.param(["team-1"], ["team-2"], False, id="another tenant"),
    ],
)
def test_what_every_run_has_for_itself_is_no_difference(one: Any, other: Any, *, same: bool) -> None:
    ends = [oracle.normal(value, {"team-1": "NAMESPACE"}) for value in (one, other)]
    assert (oracle.differences(*ends) == []) is same


def run(**lane: Any) -> list[str]:
    return oracle.judge(Lane("ns", **lane), END, END, Counter({"services credit": 1}), Counter())


@pytest.mark.parametrize(
    ("lane", "words"),
    [
        pytest.param({"created": Counter({"services credit": 1})}, [], id="as without a fault"),
        pytest.param({"created": Counter({"services credit": 2})}, ["services credit", "created 2 times instead of 1"], id="a child created twice"),
        pytest.param({"created": Counter()}, ["created 0 times instead of 1"], id="a child never created"),
        pytest.param({"created": Counter({"services credit": 1}), "deleted": Counter({"deployments credit-a": 1})}, ["deleted 1 times instead of 0"], id="a child deleted"),
        pytest.param({"created": Counter({"services credit": 1}), "told": Counter({"credit.1": 2})}, ["Event credit.1 was written 2 times"], id="an Event told twice"),
        pytest.param({"created": Counter({"services credit": 1}), "problems": ["wrote after it has settled"]}, ["wrote after"], id="a problem on the way"),
    ],
)  # fmt: skip
def test_a_run_that_differs_is_told(lane: dict[str, Any], words: list[str]) -> None:
    told = run(**lane)
    assert bool(told) is bool(words)
    for word in words:
        assert word in told[0]


async def test_traffic_to_a_revision_without_a_pass_and_pods_without_policies_are_problems() -> None:
    lane = Lane("ns", passed={"credit-a"})
    made = Call("apply", "deployments", "ns", "credit-b")
    switched = Call("apply", "services", "ns", "credit")
    lane.done(made, 201, b"{}")
    lane.done(
        switched, 200, b'{"metadata": {"name": "credit"}, "spec": {"selector": {"r1plus.ai/revision": "credit-b"}}}'
    )
    assert [problem.split(",")[0] for problem in lane.problems] == [
        "deployments credit-b was made before its walls",
        "traffic went to credit-b",
    ]


async def test_a_point_is_hit_once_at_its_phase_and_number() -> None:
    lane = Lane("ns", Point("changed", "apply services credit", 2, Fault.ERROR))
    write = Call("apply", "services", "ns", "credit")
    found = [lane.request(write)]
    lane.phase = "changed"
    found += [lane.request(write) for _ in range(3)]
    assert found == [None, None, Fault.ERROR, None]
    assert not lane.unreached


@pytest.mark.parametrize(
    ("first", "then", "broken_by"),
    [
        pytest.param("write", "event", "apply services credit", id="a write of its own accord"),
        pytest.param("event", "write", "", id="a write after an event"),
    ],
)
async def test_a_silence_is_broken_by_a_write_that_no_event_came_before(first: str, then: str, broken_by: str) -> None:
    lane = Lane("ns")
    lane.request(Call("apply", "deployments", "ns", "credit-b"))
    lane.hush()
    assert (lane.stirred.is_set(), lane.broken_by) == (False, "")
    for sign in (first, then):
        if sign == "write":
            lane.request(Call("apply", "services", "ns", "credit"))
        else:
            lane.event(Event("DELETED", "services", "ns", "credit"))
    assert (lane.stirred.is_set(), lane.broken_by) == (True, broken_by)


@pytest.mark.parametrize(
    ("method", "path", "query", "what"),
    [
        ("PATCH", "/apis/apps/v1/namespaces/ns/deployments/credit-a", {"fieldManager": "x"}, "apply deployments credit-a"),
        ("PATCH", "/apis/r1plus.ai/v1alpha1/namespaces/ns/r1plusdeployments/credit/status", {"fieldManager": "x"}, "apply r1plusdeployments/status credit"),
        ("DELETE", "/api/v1/namespaces/ns/configmaps/credit-a", {}, "delete configmaps credit-a"),
        ("GET", "/api/v1/nodes", {"watch": "true"}, "watch nodes "),
        ("GET", "/api/v1/namespaces/ns", {}, "get namespaces ns"),
    ],
)  # fmt: skip
def test_a_request_has_a_name(method: str, path: str, query: dict[str, str], what: str) -> None:
    call = parse(method, path, query, None, "")
    assert call is not None
    assert call.what == what
