"""When an object must be applied: anything of ours that reads otherwise, and nothing else."""

from typing import Any

import pytest

from r1plus_operator.plan.drift import covers, in_sync, stamped


@pytest.mark.parametrize(
    ("live", "desired", "covered"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, True, id="a field that others added does not count"),
        pytest.param({"a": 2}, {"a": 1}, False, id="another value is drift"),
        pytest.param({}, {"a": 1}, False, id="a missing field is drift"),
        pytest.param({"a": "1"}, {"a": 1}, False, id="a string is not a number"),
        pytest.param({}, {"a": "", "b": None, "c": {}, "d": [], "e": False, "f": 0}, True, id="what the server drops as empty is no drift"),
        pytest.param({"a": True}, {"a": False}, False, id="but a set value where we want none is"),
        pytest.param({"l": [{"x": 1, "y": 2}]}, {"l": [{"x": 1}]}, True, id="lists without names match by position"),
        pytest.param({"l": [{"x": 1}, {"x": 2}]}, {"l": [{"x": 1}]}, False, id="one entry more in such a list is drift"),
        pytest.param({"l": []}, {"l": [{"x": 1}]}, False, id="one entry less is drift"),
        pytest.param({"l": [{"name": "b"}, {"name": "a", "v": 1}]}, {"l": [{"name": "a", "v": 1}, {"name": "b"}]}, True, id="named entries match by name"),
        pytest.param({"l": [{"name": "b"}, {"name": "a"}]}, {"l": [{"name": "a"}]}, False, id="a container that somebody added is drift"),
        pytest.param({"ownerReferences": [{"name": "b"}, {"name": "a"}]}, {"ownerReferences": [{"name": "a"}]}, True, id="a second owner is not ours to remove"),
        pytest.param({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, False, id="one more label in a selector is drift"),
        pytest.param({"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]}, {"ingress": [{"from": [{"podSelector": {}}]}]}, False, id="a peer that was widened is drift"),
        pytest.param({"l": [{"name": "a", "v": 2}]}, {"l": [{"name": "a", "v": 1}]}, False, id="a named entry with another value is drift"),
        pytest.param({"l": [{"name": "b"}]}, {"l": [{"name": "a"}]}, False, id="a named entry that is gone is drift"),
        pytest.param(["x", "y"], ["y", "x"], False, id="the order of scalars counts"),
        pytest.param("text", {"a": 1}, False, id="a scalar covers no object"),
    ],
)  # fmt: skip
def test_covers(live: Any, desired: Any, covered: bool) -> None:
    assert covers(live, desired) is covered


WANTED = stamped({"kind": "Service", "metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"ports": [1]}})


def test_what_we_applied_is_in_sync() -> None:
    assert in_sync(WANTED, WANTED)


def test_what_is_absent_is_not() -> None:
    assert not in_sync(WANTED, None)


def test_a_field_that_we_no_longer_want_shows_by_the_hash() -> None:
    without = stamped({"kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [1]}})
    assert not in_sync(without, WANTED)


def test_the_stamp_depends_on_nothing_but_the_object() -> None:
    assert stamped({"metadata": {"name": "a"}, "spec": {}}) == stamped({"spec": {}, "metadata": {"name": "a"}})
