"""Owned fields, as managedFields records them, and the edits that touch each."""

from typing import Any

import pytest

from bench.reconcile.fields import ABSENT, Edit, edits, owned_fields, owned_values

PORT = 'k:{"containerPort":80,"protocol":"TCP"}'
FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {".": {}, "f:a/b": {}}, "f:finalizers": {'v:"x"': {}}},
    "f:spec": {"f:args": {}, "f:selector": {}, "f:ports": {PORT: {".": {}, "f:containerPort": {}}}, "f:gone": {}},
}
OBJ: dict[str, Any] = {
    "metadata": {"labels": {"a/b": "1", "foreign": "2"}, "finalizers": ["y", "x"], "managedFields": [
        {"manager": "other", "operation": "Apply", "fieldsV1": {}},
        {"manager": "us", "operation": "Update", "fieldsV1": {}},
        {"manager": "us", "operation": "Apply", "subresource": "status", "fieldsV1": {}},
        {"manager": "us", "operation": "Apply", "fieldsV1": FIELDS},
    ]},
    "spec": {
        "args": ["-v", 3],
        "selector": {"app": "x"},
        "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "protocol": "TCP"}],
    },
}  # fmt: skip


def test_what_was_applied_to_the_object_itself_is_owned() -> None:
    assert owned_fields(OBJ, "us") == FIELDS
    assert owned_fields(OBJ, "nobody") == {}


def test_every_owned_field_has_its_value_and_no_other_field_is_looked_at() -> None:
    spec = ("f:spec",)
    assert dict(owned_values(FIELDS, OBJ)) == {
        ("f:metadata", "f:labels", "f:a/b"): "1",
        ("f:metadata", "f:finalizers", 'v:"x"'): "x",
        (*spec, "f:args"): ["-v", 3],
        (*spec, "f:selector"): {"app": "x"},
        (*spec, "f:ports", PORT, "f:containerPort"): 80,
        (*spec, "f:gone"): ABSENT,
    }


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        ({"metadata": {}}, ("f:metadata", "f:labels", "f:a/b")),
        ({"metadata": {"finalizers": ["y"]}}, ("f:metadata", "f:finalizers", 'v:"x"')),
        ({"spec": {"ports": [{"containerPort": 80}]}}, ("f:spec", "f:ports", PORT, "f:containerPort")),
        ({"spec": {"ports": "none"}}, ("f:spec", "f:ports", PORT, "f:containerPort")),
    ],
    ids=["its map is gone", "the member is gone", "no item has all of its keys", "there is no list"],
)
def test_a_field_without_its_place_is_absent(broken: dict[str, Any], path: tuple[str, ...]) -> None:
    assert dict(owned_values(FIELDS, broken))[path] == ABSENT


def test_everything_owned_is_changed_and_removed_and_what_is_atomic_added_to() -> None:
    found = [str(ways[0]).replace(PORT, "PORT") for ways in edits(FIELDS, OBJ)]
    assert found == [
        "remove f:metadata/f:labels",
        "remove f:metadata/f:labels/f:a/b",
        "replace f:metadata/f:labels/f:a/b",
        'remove f:metadata/f:finalizers/v:"x"',
        'replace f:metadata/f:finalizers/v:"x"',
        "remove f:spec/f:args",
        "add f:spec/f:args/-:",
        "remove f:spec/f:args/i:0",
        "replace f:spec/f:args/i:0",
        "remove f:spec/f:args/i:1",
        "replace f:spec/f:args/i:1",
        "remove f:spec/f:selector",
        "add f:spec/f:selector/f:intruder",
        "remove f:spec/f:selector/f:app",
        "replace f:spec/f:selector/f:app",
        "remove f:spec/f:ports/PORT",
        "remove f:spec/f:ports/PORT/f:containerPort",
        "replace f:spec/f:ports/PORT/f:containerPort",
    ]


def test_an_atomic_item_is_changed_but_for_its_keys() -> None:
    owner = {"f:owners": {'k:{"uid":"u"}': {}}}
    found = [str(ways[0]).rpartition("/")[2] for ways in edits(owner, {"owners": [{"uid": "u", "name": "x"}]})]
    assert found == ['k:{"uid":"u"}', "f:intruder", "f:name", "f:name"]


@pytest.mark.parametrize(
    ("value", "first"), [(True, False), (80, 81), (0.5, 1.5), ("x", "xx")], ids=["bool", "int", "float", "text"]
)
def test_no_way_to_change_a_value_leaves_it_as_it_is(value: Any, first: Any) -> None:
    ways = next(ways for ways in edits({"f:a": {}}, {"a": value}) if ways[0].op == "replace")
    assert ways[0].value == first
    assert value not in [way.value for way in ways]


@pytest.mark.parametrize(
    ("edit", "operation"),
    [
        (Edit("replace", ("f:metadata", "f:labels", "f:a/b"), "2"), {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"}),
        (Edit("remove", ("f:spec", "f:ports", PORT)), {"op": "remove", "path": "/spec/ports/1"}),
        (Edit("remove", ("f:metadata", "f:finalizers", 'v:"x"')), {"op": "remove", "path": "/metadata/finalizers/1"}),
        (Edit("add", ("f:spec", "f:args", "-:"), 3), {"op": "add", "path": "/spec/args/-", "value": 3}),
        (Edit("remove", ("f:spec", "f:args", "i:1")), {"op": "remove", "path": "/spec/args/1"}),
    ],
    ids=["a field with a slash", "an item by its keys", "a member by its value", "one more", "a place"],
)  # fmt: skip
def test_an_edit_finds_its_place_in_the_object_as_it_is(edit: Edit, operation: dict[str, Any]) -> None:
    assert edit.patch(OBJ) == operation


def test_an_edit_whose_place_is_gone_is_no_edit() -> None:
    with pytest.raises(LookupError, match="not there"):
        Edit("remove", ("f:spec", "f:ports", PORT)).patch({"spec": {"ports": []}})
