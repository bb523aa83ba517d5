"""Today's operator takes over what an operator of an earlier version left: docs/upgrades.md says what that guarantees.

The stored clusters lie in tests/golden/cluster-COMMIT (`support.upgrade.record` makes them). The new operator has other
images than the stored one had. Pods, their reports and the moment are those that were stored.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from devcluster import binaries
from devcluster.parts import API_SERVER_BINARIES
from devcluster.steps import Steps
from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.revision import read
from support.upgrade.comparison import lost_values
from support.upgrade.fixture import DECOY_NAMESPACE, TENANT_NAMESPACE, stored_clusters
from support.upgrade.monitors import OUTCOMES
from support.upgrade.restore import TOUCHED, Key, RestoredCluster, prepare, restore
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
Json = dict[str, Any]
Objects = Mapping[Key, Json]
RENAMED_REASONS: Mapping[str, str] = MappingProxyType({})
"""Reason of a stored condition -> what the same is called today."""
RENAMED_FIELDS: Mapping[str, str] = MappingProxyType({})
"""Likewise fields of `status`."""
KEPT_STATUS = ("revision", "candidate", "lastGood", "noLastGood", "lastRequest", "replicas", "readyReplicas", "suite")
STARTS = 3
"""A monitor that answers later than three seconds after a start is not heard before the first pass, which then writes
that nothing is known of its pod. On a busy machine that happens once, not in every start."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", stored_clusters(), ids=lambda folder: folder.name)
async def test_todays_operator_takes_over_what_an_earlier_one_left(folder: Path, tmp_path: Path) -> None:
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    async with restore(folder, tmp_path) as cluster:
        restored = await cluster.read()
        assert_is_restored(cluster.objects, restored)
        await prepare(cluster)
        found = await cluster.read()
        before = {key: found[key] for key in map(key_of, cluster.objects)}
        await cluster.start()
        assert_is_taken_over(before, await cluster.read())
        assert_outcomes_are_heard_once(cluster)
        await assert_another_pass_writes_nothing(cluster)
        await assert_another_start_writes_nothing(cluster)
        assert_is_taken_over(before, await cluster.read())
        await assert_what_was_under_way_ends(cluster)
        assert cluster.operator.forbidden(TENANT_NAMESPACE) == []
        assert "ERROR" not in cluster.operator.log


def assert_is_restored(stored: list[Json], found: Objects) -> None:
    """The API server shows what was stored: uid, generation, creationTimestamp, managedFields and all."""
    for obj in stored:
        shown = dict(found[key_of(obj)])
        shown["metadata"] = {key: value for key, value in shown["metadata"].items() if key != "resourceVersion"}
        assert shown == obj, key_of(obj)


def assert_is_taken_over(before: Objects, after: Objects) -> None:
    """All that serves, and all that is remembered, is as it was."""
    assert sorted(set(before) - set(after)) == [], "nothing is deleted"
    # The decoy serves nobody: it is what the isolation test of the new version attacks, so it has its image.
    kept = {key: obj for key, obj in before.items() if key[:2] != ("Deployment", DECOY_NAMESPACE)}
    assert differences(KEPT, kept, after) == []
    assert [key for key in after if key[0] == "ControllerRevision" and key not in before] == [], "nothing is rolled out"
    assert differences({"ConfigMap": files_of}, before, after) == [], "monitors of the old version read these files"
    for kind in ("R1PlusDeployment", "R1PlusTenant"):
        assert lost_values(conditions_of(kind, before, RENAMED_REASONS), conditions_of(kind, after)) == []
    today = {field: RENAMED_FIELDS.get(field, field) for field in KEPT_STATUS}
    same = dict(zip(today.values(), today.values(), strict=True))
    assert lost_values(statuses_of(before, today), statuses_of(after, same)) == []


async def assert_another_pass_writes_nothing(cluster: RestoredCluster) -> None:
    """Neither by its own count nor by the objects' versions."""
    writes, versions = await cluster.operator.writes(), versions_of(await cluster.read())
    await cluster.look_at_everything()
    await cluster.look_at_everything()
    assert await cluster.operator.writes() == writes
    assert versions_of(await cluster.read()) == versions


async def assert_another_start_writes_nothing(cluster: RestoredCluster) -> None:
    """A start of the operator over what it has taken over itself."""
    versions = versions_of(await cluster.read())
    for _ in range(STARTS):
        assert cluster.operator.stop() == 0
        await cluster.start()
        await cluster.look_at_everything()
        if await cluster.operator.writes() == 0:
            assert versions_of(await cluster.read()) == versions
            return
        versions = versions_of(await cluster.read())
    raise AssertionError(f"each of {STARTS} starts wrote. {cluster.describe_writes()}")


async def assert_what_was_under_way_ends(cluster: RestoredCluster) -> None:
    """The control of the first revision passes, and traffic goes back; a candidate passes its gate, and serves."""
    tenant = cluster.tenant
    control, candidate = (cluster.stored.get("R1PlusDeployment", name)["status"] for name in ("dropping", "gating"))
    await cluster.go_on([one["pod"] for one in cluster.stored.monitors if "next" in one])

    async def select() -> list[str]:
        services = [await tenant.present("Service", name) for name in ("dropping", "gating")]
        return [service["spec"]["selector"][names.LABEL_REVISION] for service in services]

    async def have_moved() -> bool:
        return await select() == [control["candidate"], candidate["candidate"]]

    await eventually(have_moved, "traffic goes to the control and to the candidate")
    await tenant.until("dropping", "QualityVerified", "False", "RolledBack")
    await tenant.until("gating", "QualityVerified", "True", "GatePassed")
    for name in ("dropping", "gating"):
        await tenant.until(name, "Ready", "True", "Serving")
    record = read(await tenant.present("ControllerRevision", control["revision"])).rollback
    assert record is not None
    assert (record.to, record.control) == (control["candidate"], Verdict.PASS)
    assert record.switched_at is not None


def assert_outcomes_are_heard_once(cluster: RestoredCluster) -> None:
    """The pooled detector goes on where the stored checkpoint ends."""
    heard = {
        one["pod"]: one["answers"][OUTCOMES]["newest"]
        for one in cluster.stored.monitors
        if one["answers"].get(OUTCOMES, {}).get("newest")
    }
    assert heard
    assert {pod: set(cluster.monitors[pod].asked_since) for pod in heard} == {pod: {n} for pod, n in heard.items()}


def key_of(obj: Json) -> Key:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def annotations_of(obj: Json) -> Json:
    """Key -> value, read where it is JSON; all but the one that says what this version's own rendering is."""
    found = obj["metadata"].get("annotations") or {}
    return {key: _parsed(value) for key, value in found.items() if key != names.ANNOTATION_DESIRED_HASH}


def files_of(obj: Json) -> Json:
    """Files of a ConfigMap; a later version may add fields to those that are JSON, and takes none away."""
    return {name: _parsed(text) for name, text in obj["data"].items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


KEPT: Mapping[str, Callable[[Json], Any]] = MappingProxyType(
    {
        "ControllerRevision": lambda obj: [obj["data"], obj["revision"], annotations_of(obj)],
        "Pod": lambda obj: obj["metadata"]["resourceVersion"],
        "Deployment": lambda obj: [obj["metadata"]["generation"], obj["spec"]],
        "Service": lambda obj: [obj["spec"]["selector"], obj["spec"]["clusterIP"]],
        "PersistentVolumeClaim": lambda obj: [obj["spec"], annotations_of(obj)],
        "Job": lambda obj: [obj["spec"], annotations_of(obj)],
        "R1PlusDeployment": lambda obj: [obj["spec"], annotations_of(obj), obj["metadata"]["generation"]],
        "R1PlusTenant": lambda obj: [obj["spec"], annotations_of(obj), obj["metadata"]["finalizers"]],
    }
)
"""What of each kind is as it was. A generation counts every change of a spec."""


def differences(look: Mapping[str, Callable[[Json], Any]], before: Objects, after: Objects) -> list[str]:
    """What of these kinds is not as it was, and every object that is another one now."""
    return [
        f"{'/'.join(key)}: {line}"
        for key, obj in before.items()
        for one in (look.get(key[0], lambda _: None),)
        for line in lost_values([obj["metadata"]["uid"], one(obj)], [after[key]["metadata"]["uid"], one(after[key])])
    ]


def versions_of(objects: Objects) -> dict[Key, str]:
    """Of everything that the operator alone writes here."""
    return {key: obj["metadata"]["resourceVersion"] for key, obj in objects.items() if key[0] not in TOUCHED}


def conditions_of(kind: str, objects: Objects, renamed: Mapping[str, str] = MappingProxyType({})) -> Json:
    """Object -> type of condition -> status and reason."""
    return {
        key[2]: {
            one["type"]: f"{one['status']} {renamed.get(one['reason'], one['reason'])}"
            for one in obj["status"]["conditions"]
        }
        for key, obj in objects.items()
        if key[0] == kind
    }


def statuses_of(objects: Objects, fields: Mapping[str, str]) -> Json:
    """Deployment -> what its status says beside conditions and figures; `fields`: name in this status -> today's."""
    found = {key[2]: obj["status"] for key, obj in objects.items() if key[0] == "R1PlusDeployment"}
    return {
        name: {new: status[old] for old, new in fields.items() if old in status}
        | {"incident": (status.get("incident") or {}).get("since")}
        for name, status in found.items()
    }
