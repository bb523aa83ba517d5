"""Today's operator takes over what an operator of an earlier version left: docs/upgrades.md says what that guarantees.

The stored clusters lie in tests/golden/cluster-COMMIT (`support.upgrade.record` makes them). The new operator has other
images than the stored one had. Pods, their reports and the moment are those that were stored.
"""

import copy
import dataclasses
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
from r1plus_operator.plan.revision.record import NOTHING_PROMOTED
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_policies.detector.detector import log_mean
from support.kstatus import compute_kstatus
from support.upgrade.comparison import RENAMED_REASONS, RENAMED_STATUS_FIELDS, lost_values
from support.upgrade.fixture import DECOY_NAMESPACE, TENANT_NAMESPACE, read_cluster, stored_clusters
from support.upgrade.monitors import OUTCOMES
from support.upgrade.restore import TOUCHED, Key, RestoredCluster, prepare, restore
from support.upgrade.rig import Monitors, Tenant
from support.upgrade.statuses import KSTATUS

pytestmark = pytest.mark.apiserver
Json = dict[str, Any]
Objects = Mapping[Key, Json]
Look = Callable[[Json], Any]
KEPT_STATUS = ("revision", "candidate", "lastGood", "noLastGood", "lastRequest", "replicas", "readyReplicas", "suite")
MAY_ADD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ConfigMap": ("files.",),
        "ControllerRevision": (f"annotations.{names.ANNOTATION_LAST_VALID}",),
        "ResourceQuota": tuple(
            f"spec.hard.count/{of}" for of in ("configmaps", "networkpolicies", "secrets", "services")
        ),
        "R1PlusTenant": ("spec.quota.configMaps", "spec.quota.secrets"),
    }
)
"""Kind -> beginnings of the paths at which a later version may add a value. Monitors pass over fields that they do not
know. Elsewhere in `KEPT` a value that is added is a difference: a label of a selector, a rule, a rollback record."""
NEW_OBJECTS: frozenset[Key] = frozenset()
"""Objects that a later version may make for what is there already."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", stored_clusters(), ids=lambda folder: folder.name)
async def test_todays_operator_takes_over_what_an_earlier_one_left(folder: Path, tmp_path: Path) -> None:
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    async with restore(folder, tmp_path) as cluster:
        restored = await cluster.read()
        assert_is_restored(cluster.objects, restored)
        await prepare(cluster)
        prepared = await cluster.read()
        before = {key: prepared[key] for key in map(key_of, cluster.objects)}
        await cluster.start()
        assert_is_taken_over(before, await cluster.read())
        assert_outcomes_are_heard_once(cluster)
        await assert_another_pass_writes_nothing(cluster)
        await assert_another_start_writes_nothing(cluster)
        assert_is_taken_over(before, await cluster.read())
        await assert_what_was_under_way_ends(cluster)
        assert cluster.operator.forbidden(TENANT_NAMESPACE) == []
        assert "ERROR" not in cluster.operator.log


@pytest.mark.parametrize("folder", stored_clusters(), ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("kind", "name", "place", "value", "difference"),
    [
        ("Service", "served", "spec.selector", {"more": "x"}, "added selector.more: 'x', not None"),
        ("NetworkPolicy", "served", "spec", {"ingress": []}, "spec.ingress: "),
        ("NetworkPolicy", "served", "spec.podSelector", {"matchExpressions": []}, "added spec.podSelector.matchExpr"),
        ("ControllerRevision", "served", "metadata.annotations", {names.ANNOTATION_ROLLBACK: "{}"}, "added annotation"),
        ("PodDisruptionBudget", "served", "spec", {"minAvailable": 0}, "added spec.minAvailable: 0, not None"),
        ("RoleBinding", "r1plus-tenant-admins", "", {"subjects": []}, "subjects: "),
        ("ResourceQuota", "r1plus-tenant", "spec.hard", {"services": "0"}, "added spec.hard.services: '0', not None"),
        ("LimitRange", "r1plus-tenant", "spec", {"limits": []}, "spec.limits: "),
        ("ConfigMap", "served-accuracy", "data", {"more.json": "{}"}, None),
    ],
    ids=[
        "a Service selects by one more label",
        "a NetworkPolicy lets nobody in",
        "a NetworkPolicy chooses its pods otherwise",
        "a revision has a rollback record",
        "a budget has another bound",
        "a RoleBinding has no subjects",
        "a quota limits one more resource",
        "a LimitRange has no limits",
        "a monitor gets one more file",
    ],
)
def test_a_value_that_is_added_is_noticed_unless_it_may_be(
    folder: Path, kind: str, name: str, place: str, value: Json, difference: str | None
) -> None:
    before = stored_objects(folder)
    after = copy.deepcopy(before)
    key, obj = next((key, obj) for key, obj in after.items() if key[0] == kind and key[2].startswith(name))
    for part in filter(None, place.split(".")):
        obj = obj[part]
    obj |= value
    lines = differences(before, after)
    assert len(lines) == (difference is not None)
    assert all(line.startswith(f"{'/'.join(key)}: {difference}") for line in lines)


@pytest.mark.parametrize("folder", stored_clusters(), ids=lambda folder: folder.name)
def test_only_a_service_without_a_promoted_revision_may_select_nothing(folder: Path) -> None:
    before = stored_objects(folder)
    assert without_candidates_in_services(before) == before, "each stored deployment serves"
    del before["R1PlusDeployment", TENANT_NAMESPACE, "gating"]["status"]["revision"]
    service = ("Service", TENANT_NAMESPACE, "gating")
    after = without_candidates_in_services(before)
    assert [key for key in before if before[key] != after[key]] == [service]
    assert after[service]["spec"]["selector"][names.LABEL_REVISION] == NOTHING_PROMOTED


def stored_objects(folder: Path) -> dict[Key, Json]:
    """Return the objects of a stored cluster, each in a version that the API server might give it."""
    objects = {key_of(obj): obj for obj in read_cluster(folder).objects}
    for obj in objects.values():
        obj["metadata"]["resourceVersion"] = "1"
    return objects


def assert_is_restored(stored: list[Json], restored: Objects) -> None:
    """The API server shows what was stored: uid, generation, creationTimestamp, managedFields and all."""
    for obj in stored:
        shown = dict(restored[key_of(obj)])
        shown["metadata"] = {key: value for key, value in shown["metadata"].items() if key != "resourceVersion"}
        assert shown == obj, key_of(obj)


def assert_is_taken_over(before: Objects, after: Objects) -> None:
    """All that serves, and all that is remembered, is as it was."""
    assert sorted(set(before) - set(after)) == [], "nothing is deleted"
    # The decoy serves nobody: it is what the isolation test of the new version attacks, so it has its image.
    unchanged = {key: obj for key, obj in before.items() if key[:2] != ("Deployment", DECOY_NAMESPACE)}
    assert differences(without_candidates_in_services(unchanged), after) == []
    ours = {key for key in after if key[1] in (TENANT_NAMESPACE, DECOY_NAMESPACE)}
    assert sorted(ours - set(before) - NEW_OBJECTS) == [], "nothing is rolled out, and no policy or right is added"
    for kind in ("R1PlusDeployment", "R1PlusTenant"):
        assert lost_values(conditions_of(kind, before, RENAMED_REASONS), conditions_of(kind, after)) == []
    crs = [obj for key, obj in after.items() if key[:2] == ("R1PlusDeployment", TENANT_NAMESPACE)]
    assert {cr["metadata"]["name"]: compute_kstatus(cr) for cr in crs}.items() <= KSTATUS.items()
    today = {field: RENAMED_STATUS_FIELDS.get(field, field) for field in KEPT_STATUS}
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
    assert cluster.operator.stop() == 0
    await cluster.start()
    await cluster.look_at_everything()
    assert await cluster.operator.writes() == 0, cluster.describe_writes()
    assert versions_of(await cluster.read()) == versions


async def assert_what_was_under_way_ends(cluster: RestoredCluster) -> None:
    """The control of the first revision passes, and traffic goes back; a candidate passes its gate, and serves.

    The control's older monitor repeats a Pass that is stored. A candidate's monitor that is too old cannot prove a new
    one: the candidate is rendered again, with today's monitor.
    """
    tenant = cluster.tenant
    control, candidate = (cluster.stored.get("R1PlusDeployment", name)["status"] for name in ("dropping", "gating"))
    await cluster.go_on([one["pod"] for one in cluster.stored.monitors if "next" in one])
    await tenant.switched(control["candidate"], "dropping")
    if read_revision(await tenant.present("ControllerRevision", candidate["candidate"])).can_prove_gates:
        await tenant.switched(candidate["candidate"], "gating")
    else:
        await assert_candidate_is_gated_again(tenant, candidate)
    await tenant.until("dropping", "QualityVerified", "False", "RolledBack")
    await tenant.until("gating", "QualityVerified", "True", "GatePassed")
    for name in ("dropping", "gating"):
        await tenant.until(name, "Ready", "True", "Serving")

    def is_recorded(revision: Json) -> bool:
        record = read_revision(revision).rollback
        if record is None or record.switched_at is None:
            return False
        return (record.to, record.control) == (control["candidate"], Verdict.PASS)

    await tenant.child_that("ControllerRevision", control["revision"], is_recorded, "the switch is recorded")


async def assert_candidate_is_gated_again(tenant: Tenant, before: Json) -> None:
    """What the older monitor of a candidate passed takes no traffic.

    The same with today's monitor does, once it passes.
    """
    again = await tenant.candidate("gating", other_than=before["candidate"])
    assert await tenant.selected("gating") == before["revision"]
    old, new = [
        read_revision(await tenant.present("ControllerRevision", name)) for name in (before["candidate"], again)
    ]
    assert (old.verdicts, new.can_prove_gates, new.identity.engine) == ((), True, old.identity.engine)
    monitors = Monitors()
    await monitors.start()
    tenant = dataclasses.replace(tenant, monitors=monitors)
    try:
        pod = await tenant.run_pod(again, ready=False)
        await tenant.decide(again, Verdict.PASS)
        await tenant.set_ready(pod, ready=True)
        await tenant.switched(again, "gating")
    finally:
        await monitors.stop()


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
    """Key -> value, read where it is JSON; all but the one that says what this version's own rendering is.

    Of the pooled detector's bets the mean: versions differ in what they bet on, and carry evidence over at its mean.
    """
    annotations = obj["metadata"].get("annotations") or {}
    values = {key: _parsed(value) for key, value in annotations.items() if key != names.ANNOTATION_DESIRED_HASH}
    if pool := values.get(names.ANNOTATION_POOL):
        values[names.ANNOTATION_POOL] = _average_bets(pool)
    return values


def _average_bets(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: round(log_mean(tuple(part)), 6) if key == "logs" and part else _average_bets(part)
        for key, part in value.items()
    }


def files_of(obj: Json) -> Json:
    """Files of a ConfigMap, read where they are JSON."""
    return {name: _parsed(text) for name, text in obj["data"].items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def parts_of(*names_of_parts: str, generation: bool = False, **looks: Look) -> Look:
    """Return what reads these parts of an object, its generation and what `looks` read, by name."""

    def look(obj: Json) -> Json:
        parts = {name: obj.get(name) for name in names_of_parts} | {name: one(obj) for name, one in looks.items()}
        return parts | ({"generation": obj["metadata"]["generation"]} if generation else {})

    return look


def bounds_of(budget: Json) -> Json:
    """Return the spec of a PodDisruptionBudget; of its selector the deployment, since later versions ask for more."""
    spec = dict(budget["spec"])
    return spec | {"selector": spec["selector"]["matchLabels"][names.LABEL_DEPLOYMENT]}


KEPT: Mapping[str, Look] = MappingProxyType(
    {
        "ControllerRevision": parts_of("data", "revision", annotations=annotations_of),
        "ConfigMap": parts_of(files=files_of),
        "Pod": parts_of(version=lambda obj: obj["metadata"]["resourceVersion"]),
        "Deployment": parts_of("spec", generation=True),
        "Service": parts_of(selector=lambda obj: obj["spec"]["selector"], address=lambda obj: obj["spec"]["clusterIP"]),
        "PersistentVolumeClaim": parts_of("spec", annotations=annotations_of),
        "Job": parts_of("spec", annotations=annotations_of),
        "NetworkPolicy": parts_of("spec"),
        "PodDisruptionBudget": parts_of(spec=bounds_of),
        "RoleBinding": parts_of("roleRef", "subjects"),
        "ResourceQuota": parts_of("spec"),
        "LimitRange": parts_of("spec"),
        "R1PlusDeployment": parts_of("spec", annotations=annotations_of, generation=True),
        "R1PlusTenant": parts_of("spec", annotations=annotations_of, finalizers=lambda o: o["metadata"]["finalizers"]),
    }
)
"""What of each kind is as it was. A generation counts every change of a spec."""


def differences(before: Objects, after: Objects) -> list[str]:
    """Return what of these kinds is not as it was, what is added and may not be, and objects that were replaced."""
    lines = []
    for key, obj in before.items():
        look, today = KEPT.get(key[0], parts_of()), after[key]
        pair = [{"uid": one["metadata"]["uid"], **look(one)} for one in (obj, today)]
        lost, added = lost_values(*pair), lost_values(*reversed(pair))
        # A changed value is in both, at the same path; a path that is in `added` alone was not there before.
        paths = {line.split(": ")[0] for line in lost}
        added = [line for line in added if line.split(": ")[0] not in paths]
        refused = [line for line in added if not line.startswith(MAY_ADD.get(key[0], ()))]
        lines += [f"{'/'.join(key)}: {line}" for line in lost]
        lines += [f"{'/'.join(key)}: added {line}" for line in refused]
    return lines


def without_candidates_in_services(before: Objects) -> Objects:
    """Return the objects with the one change on purpose: a Service selects no candidate before the first promotion.

    An earlier version let the Service of a deployment without a promoted revision select the candidate.
    """
    new = {key[1:] for key, obj in before.items() if key[0] == "R1PlusDeployment" and not obj["status"].get("revision")}
    objects = copy.deepcopy(dict(before))
    for key, obj in objects.items():
        if key[0] == "Service" and key[1:] in new:
            obj["spec"]["selector"][names.LABEL_REVISION] = NOTHING_PROMOTED
    return objects


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
    statuses = {key[2]: obj["status"] for key, obj in objects.items() if key[0] == "R1PlusDeployment"}
    return {
        name: {new: status[old] for old, new in fields.items() if old in status}
        | {"incident": (status.get("incident") or {}).get("since")}
        for name, status in statuses.items()
    }
