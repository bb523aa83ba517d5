"""The objects of the plan in one file: what is written stays, and what is half written never shows."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1plus_edge.errors import EdgeError
from r1plus_edge.objects import Objects, load_objects
from r1plus_operator.plan.deployment import Plan

SPEC = {"tier": "edge"}


def config(name: str, text: str = "1") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": text}}


def revision(name: str, image: str) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "triton", "image": image}]}}
    return {"kind": "ControllerRevision", "metadata": {"name": name}, "data": {"template": template}}


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    made = Objects(tmp_path / "objects.json")
    made.ask_for("edge", "local", SPEC, 0.0)
    return made


def test_what_a_plan_writes_is_there_after_a_restart_with_the_same_uid(objects: Objects) -> None:
    assert objects.apply(Plan(apply=((config("a"),), (config("b"),)), status={"revision": "edge-1"}))
    again = load_objects(objects.path)
    assert (again.deployment, again.children) == (objects.deployment, objects.children)
    uid = again.children[("ConfigMap", "a")]["metadata"]["uid"]
    again.apply(Plan(apply=((config("a", "2"),),), status={"revision": "edge-1"}))
    changed = again.children[("ConfigMap", "a")]
    assert (changed["metadata"]["uid"], changed["data"]) == (uid, {"a": "2"})


def test_a_plan_without_changes_writes_nothing(objects: Objects) -> None:
    objects.apply(Plan(status={"revision": "edge-1"}))
    written = objects.path.stat().st_mtime_ns
    assert not objects.apply(Plan(status={"revision": "edge-1"}))
    assert objects.path.stat().st_mtime_ns == written


def test_only_the_object_that_was_observed_is_deleted(objects: Objects) -> None:
    objects.apply(Plan(apply=((config("a"),),)))
    uid = objects.children[("ConfigMap", "a")]["metadata"]["uid"]
    objects.apply(Plan(delete=(("ConfigMap", "a", "another"),)))
    assert ("ConfigMap", "a") in objects.children
    objects.apply(Plan(delete=(("ConfigMap", "a", uid),)))
    assert ("ConfigMap", "a") not in objects.children


def test_another_spec_is_another_generation_and_the_same_one_is_not(objects: Objects) -> None:
    objects.ask_for("edge", "local", SPEC, 1.0)
    assert objects.deployment["metadata"]["generation"] == 1
    objects.ask_for("edge", "local", {"tier": "edge", "batching": {"maxBatchSize": 4}}, 1.0)
    assert objects.deployment["metadata"]["generation"] == 2


def test_a_folder_of_another_deployment_is_refused(objects: Objects) -> None:
    with pytest.raises(EdgeError, match="it is of deployment local/edge, not of local/lite; name another folder"):
        objects.ask_for("lite", "local", {"tier": "lite"}, 0.0)


def test_what_other_software_ran_is_forgotten_with_its_verdicts(objects: Objects) -> None:
    stage = (revision("edge-1", "triton@sha256:old"), revision("edge-2", "triton@sha256:new"), config("edge-1"))
    objects.apply(Plan(apply=(stage,)))
    assert objects.drop_other_images(frozenset({"triton@sha256:new"})) == ["edge-1"]
    assert sorted(objects.children) == [("ControllerRevision", "edge-2")]


def test_a_half_written_file_is_not_read(objects: Objects) -> None:
    objects.apply(Plan(status={"revision": "edge-1"}))
    (objects.path.with_name(".objects.json.part")).write_text('{"version": 7, "depl')
    assert load_objects(objects.path).deployment["status"] == {"revision": "edge-1"}


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"version": 1}), json.dumps({"children": 3})])
def test_a_damaged_file_is_told_with_its_path_and_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "objects.json").write_text(text)
    with pytest.raises(EdgeError, match=r"objects.json: it is damaged \(\w+\); remove it, and the gate runs again"):
        load_objects(tmp_path / "objects.json")


def test_what_a_full_disk_did_not_take_is_written_by_the_next_pass(tmp_path: Path) -> None:
    made = Objects(tmp_path / "gone" / "objects.json")
    made.ask_for("edge", "local", SPEC, 0.0)
    plan = Plan(apply=((config("a"),),), status={"revision": "edge-1"})
    with pytest.raises(OSError, match="No such file"):
        made.apply(plan)
    (tmp_path / "gone").mkdir()
    assert not made.apply(Plan(status={"revision": "edge-1"})), "nothing new"
    assert ("ConfigMap", "a") in load_objects(made.path).children
