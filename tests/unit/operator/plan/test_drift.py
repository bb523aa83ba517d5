"""When an object must be applied: anything of ours that reads otherwise, and nothing else."""

from typing import Any

import pytest

from r1plus_operator.plan.manifests.drift import (
    fold_texts,
    foreign_items_patch,
    is_covered,
    is_in_sync,
    with_preconditions,
    with_spec_hash,
)
from support.tables import for_each

PORT, OTHER_PORT = {"name": "grpc", "port": 1, "protocol": "TCP"}, {"name": "grpc", "port": 2, "protocol": "TCP"}
LONG = "x" * 257


@pytest.mark.parametrize(
    ("live", "desired", "covered"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, True, id="a field that others added does not count"),
        pytest.param({"a": 2}, {"a": 1}, False, id="another value is drift"),
        pytest.param({}, {"a": 1}, False, id="a missing field is drift"),
        pytest.param({"a": "1"}, {"a": 1}, False, id="a string is not a number"),
        pytest.param({}, {"a": "", "b": None, "c": {}, "d": []}, True, id="what the server drops as empty is no drift"),
        pytest.param({}, {"a": False}, False, id="a false that was removed is drift: its absence may mean true"),
        pytest.param({}, {"a": 0}, False, id="and so is a zero"),
        pytest.param({}, {"publishNotReadyAddresses": False}, True, id="this false the server drops"),
        pytest.param({"publishNotReadyAddresses": True}, {"publishNotReadyAddresses": False}, False, id="and a true is drift"),
        pytest.param({"a": True}, {"a": False}, False, id="but a set value where we want none is"),
        pytest.param({"a": [1]}, {"a": []}, False, id="and so is a filled list"),
        pytest.param({"l": [{"x": 1}]}, {"l": [{"x": 1}]}, True, id="a list without keys is equal"),
        pytest.param({"l": [{"x": 1, "y": 2}]}, {"l": [{"x": 1}]}, False, id="one field more in such a list is drift"),
        pytest.param({"l": [{"x": 1}, {"x": 2}]}, {"l": [{"x": 1}]}, False, id="one entry more in such a list is drift"),
        pytest.param({"l": []}, {"l": [{"x": 1}]}, False, id="one entry less is drift"),
        pytest.param({"env": [{"name": "b"}, {"name": "a", "v": 1, "w": 2}]}, {"env": [{"name": "a", "v": 1}, {"name": "b"}]}, True, id="keyed items are found by their keys, wherever they stand"),
        pytest.param({"containers": [{"name": "b"}, {"name": "a"}]}, {"containers": [{"name": "a"}]}, False, id="a container that somebody added is drift"),
        pytest.param({"ports": [OTHER_PORT]}, {"ports": [PORT]}, False, id="a port of the same name is another port"),
        pytest.param({"ports": [{**PORT, "nodePort": 3}]}, {"ports": [PORT]}, True, id="a port is known by its number and protocol"),
        pytest.param({"ports": "none"}, {"ports": [PORT]}, False, id="what is no list holds nothing"),
        pytest.param({"volumeMounts": [{"name": "tmp", "mountPath": "/x"}]}, {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}, False, id="a mount is known by its path"),
        pytest.param({"ownerReferences": [{"uid": "b"}, {"uid": "a"}]}, {"ownerReferences": [{"uid": "a"}]}, True, id="a second owner is not ours to remove"),
        pytest.param({"ownerReferences": [{"uid": "b"}]}, {"ownerReferences": [{"uid": "a"}]}, False, id="but ours must be there"),
        pytest.param({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, False, id="one more label in a selector is drift"),
        pytest.param({"nodeSelector": {"a": "1", "b": "2"}}, {"nodeSelector": {"a": "1"}}, False, id="one more label that nodes must have is drift"),
        pytest.param({}, {"podSelector": {}}, True, id="an empty selector is none"),
        pytest.param({"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]}, {"ingress": [{"from": [{"podSelector": {}}]}]}, False, id="a peer that was widened is drift"),
        pytest.param({"env": [{"name": "a", "v": 2}]}, {"env": [{"name": "a", "v": 1}]}, False, id="a keyed item with another value is drift"),
        pytest.param(["x", "y"], ["y", "x"], False, id="the order of scalars counts"),
        pytest.param("text", {"a": 1}, False, id="a scalar covers no object"),
        pytest.param({"a": 1}, "text", False, id="nor an object a scalar"),
        pytest.param({"a": {"x": 1}}, {"a": {}}, True, id="what is wanted empty the server may fill"),
        pytest.param({"selector": {"a": "1"}, "b": 1}, {"selector": {"a": "1"}}, True, id="the same selector beside a field of others"),
        pytest.param({"podSelector": {}, "b": 1}, {"podSelector": {}}, True, id="an empty selector is an empty selector"),
        pytest.param({"env": "x", "b": 1}, {"env": "x"}, True, id="a text under the name of a list is a text"),
        pytest.param({}, {"ports": [PORT]}, False, id="a keyed list that is missing is drift"),
        pytest.param({"containers": ["x"]}, {"containers": [{"name": "a"}]}, False, id="an item that is no object is not ours"),
    ],
)  # fmt: skip
def test_covers(live: Any, desired: Any, covered: bool) -> None:
    assert is_covered(live, desired) is covered


WANTED = with_spec_hash({"kind": "Service", "metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"ports": [PORT]}})


def test_what_we_applied_is_in_sync() -> None:
    assert is_in_sync(WANTED, WANTED)


def test_what_is_absent_is_not() -> None:
    assert not is_in_sync(WANTED, None)


def test_a_field_that_we_no_longer_want_shows_by_the_hash() -> None:
    without = with_spec_hash({"kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [PORT]}})
    assert not is_in_sync(without, WANTED)


def test_the_stamp_depends_on_nothing_but_the_object() -> None:
    assert with_spec_hash({"metadata": {"name": "a"}, "spec": {}}) == with_spec_hash(
        {"spec": {}, "metadata": {"name": "a"}}
    )


def config_map(**data: Any) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def test_a_long_text_is_kept_as_its_digest_and_a_short_one_as_it_is() -> None:
    once = fold_texts(config_map(long=LONG, short=LONG[:-1]))
    assert once["data"]["short"] == LONG[:-1]
    assert list(once["data"]["long"]) == ["sha256"]
    assert fold_texts(once) == once


def test_only_a_config_map_is_folded() -> None:
    revision = {"kind": "ControllerRevision", "metadata": {"name": "a"}, "data": {"configPbtxt": LONG}}
    assert fold_texts(revision) is revision


@pytest.mark.parametrize("rest", [{}, {"data": None}, {"data": {}}], ids=["no data", "null", "empty data"])
def test_a_config_map_whose_data_somebody_removed_is_not_in_sync(rest: dict[str, Any]) -> None:
    wanted = with_spec_hash(config_map(t=LONG))
    live = {key: value for key, value in wanted.items() if key != "data"} | rest
    assert fold_texts(live) is live
    assert not is_in_sync(wanted, live)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (LONG, True),
        (LONG + "x", False),
        (LONG[:-1], False),
        (fold_texts(config_map(t=LONG))["data"]["t"]["sha256"], False),
    ],
    ids=["the same text", "a longer one", "a shorter one", "its digest, posing as the text"],
)
def test_a_long_text_is_compared_exactly(text: str, same: bool) -> None:
    wanted = with_spec_hash(config_map(t=LONG))
    live = {**wanted, "data": {"t": text}}
    assert is_in_sync(wanted, fold_texts(live)) is same
    assert is_in_sync(wanted, live) is same


def test_the_stamp_covers_a_long_text() -> None:
    assert with_spec_hash(config_map(t=LONG))["metadata"] != with_spec_hash(config_map(t=LONG + "x"))["metadata"]


@for_each("live, meta", {
    "a new object to nothing": (None, {"name": "a"}),
    "one that was seen to its uid": ({"metadata": {"uid": "u"}}, {"name": "a", "uid": "u"}),
    "and to its version where that is kept": (
        {"metadata": {"uid": "u", "resourceVersion": "7", "name": "b"}},
        {"name": "a", "uid": "u", "resourceVersion": "7"},
    ),
})  # fmt: skip
def test_what_is_applied_is_bound(live: Any, meta: Any) -> None:
    assert with_preconditions({"metadata": {"name": "a"}, "spec": 1}, live) == {"metadata": meta, "spec": 1}


def taken_out(desired: Any, live: Any) -> list[str]:
    return [op["path"] for op in foreign_items_patch(desired, live) if op["op"] == "remove"]


@pytest.mark.parametrize(
    ("live", "desired", "paths"),
    [
        pytest.param({"ports": [PORT]}, {"ports": [PORT]}, [], id="nothing where only ours is there"),
        pytest.param({"ports": [{**PORT, "name": "x"}]}, {"ports": [PORT]}, [], id="nothing where ours was edited: an apply does it"),
        pytest.param({"ports": [OTHER_PORT, PORT]}, {"ports": [PORT]}, ["/ports/0"], id="what was added"),
        pytest.param({"ports": [OTHER_PORT]}, {"ports": [PORT]}, ["/ports/0"], id="what took the place of ours"),
        pytest.param({"a": {"env": [{"name": "x"}, {"name": "a"}, {"name": "y"}]}}, {"a": {"env": [{"name": "a"}]}}, ["/a/env/2", "/a/env/0"], id="several, from the end"),
        pytest.param({"containers": [{"name": "x"}, {"name": "a", "env": [{"name": "y"}]}]}, {"containers": [{"name": "a", "env": []}]}, ["/containers/1/env/0", "/containers/0"], id="inside an item of ours"),
        pytest.param({"ownerReferences": [{"uid": "b"}]}, {"ownerReferences": [{"uid": "a"}]}, [], id="a second owner stays"),
        pytest.param({"ownerReferences": [{"uid": "b"}, {"uid": "c", "controller": True}]}, {"ownerReferences": [{"uid": "a"}]}, ["/ownerReferences/1"], id="but no other controller"),
        pytest.param({"args": ["x", "y"]}, {"args": ["x"]}, [], id="nothing of an atomic list: an apply does it"),
        pytest.param({}, {"ports": [PORT]}, [], id="nothing where nothing is"),
        pytest.param({"a": "x"}, {"a": {"ports": [PORT]}}, [], id="nothing where a text is"),
        pytest.param({"a": {"b": 1}}, {"a": "x"}, [], id="nothing where a text is wanted"),
        pytest.param({"env": [{"name": "a"}]}, {"env": "x"}, [], id="nothing where a text of that name is wanted"),
        pytest.param({"env": ["name"]}, {"env": []}, ["/env/0"], id="what is no object"),
    ],
)  # fmt: skip
def test_strays(live: Any, desired: Any, paths: list[str]) -> None:
    assert taken_out(desired, live) == paths


@for_each("wanted, stray, tests", {
    "by every part of its identity":
        ({"ports": [PORT]}, {"ports": [OTHER_PORT]}, [("/ports/0/port", 2), ("/ports/0/protocol", "TCP")]),
    "and by no other text, which the server may write otherwise":
        ({"containers": []}, {"containers": [{"name": "x", "args": ["a && b > c"]}]}, [("/containers/0/name", "x")]),
    "if it has one": ({"env": []}, {"env": [{"value": "1"}]}, []),
})  # fmt: skip
def test_a_stray_is_named_so_that_no_other_is_taken_out(wanted: Any, stray: Any, tests: list[tuple[str, Any]]) -> None:
    *before, last = foreign_items_patch(wanted, stray)
    assert [(op["op"], op["path"], op["value"]) for op in before] == [("test", *test) for test in tests]
    assert last["op"] == "remove"
