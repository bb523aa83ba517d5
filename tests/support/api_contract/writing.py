"""Behaviours of creates, patches, generations and the status subresource."""

from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import JSON_PATCH
from r1plus_operator.runtime.errors import ConflictError, InvalidError, NotFoundError
from r1plus_operator.runtime.lease import LEASE
from support.api_contract.cluster import (
    CONFIG_MAP,
    DEPLOYMENT,
    NOT_CHECKED,
    POD,
    POLICY,
    R1P,
    REVISION,
    SERVICE,
    Cluster,
    Object,
    refusal,
)
from support.apiserver import manifests

STALE = "1"


async def a_create_gives_identity(cluster: Cluster) -> None:
    meta = (await cluster.create(CONFIG_MAP, cluster.config_map(), uid="mine"))["metadata"]
    assert len(meta["uid"]) == 36
    assert meta["creationTimestamp"].endswith("Z")
    assert meta["resourceVersion"].isdigit()


async def a_create_of_what_is_there_is_a_conflict(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    found = await refusal(cluster.client.create(CONFIG_MAP, cluster.config_map()))
    assert found == (ConflictError, "AlreadyExists", [])


async def a_create_in_an_absent_namespace_is_not_found(cluster: Cluster) -> None:
    obj = manifests.config_map("a", "no-such-namespace")
    assert await refusal(cluster.client.create(CONFIG_MAP, obj)) == (NotFoundError, "NotFound", [])


async def a_generated_name_has_a_random_end(cluster: Cluster) -> None:
    obj = cluster.config_map()
    del obj["metadata"]["name"]
    obj["metadata"]["generateName"] = "part-"
    names = {(await cluster.client.create(CONFIG_MAP, obj))["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("part-") and len(name) == 10 for name in names)


async def a_name_that_is_none_is_invalid(cluster: Cluster) -> None:
    found = await refusal(cluster.client.create(CONFIG_MAP, cluster.config_map("a/")))
    assert found == (InvalidError, "Invalid", ["metadata.name"])


async def a_name_with_capitals_is_invalid(cluster: Cluster) -> None:
    found = await refusal(cluster.client.create(R1P, cluster.r1plus_deployment("Credit")))
    assert found[:2] == (InvalidError, "Invalid")


async def a_create_drops_the_status(cluster: Cluster) -> None:
    obj = {**cluster.r1plus_deployment(), "status": {"reason": "Mine"}}
    assert (await cluster.client.create(R1P, obj))["status"] == {"observedGeneration": -1}


async def generations_count_from_one_where_a_kind_has_them(cluster: Cluster) -> None:
    policy = manifests.manifest(POLICY, "p", cluster.namespace, spec={"podSelector": {}})
    made = [
        await cluster.client.create(R1P, cluster.r1plus_deployment()),
        await cluster.client.create(DEPLOYMENT, cluster.deployment()),
        await cluster.client.create(POLICY, policy),
        await cluster.client.create(CONFIG_MAP, cluster.config_map()),
        await cluster.client.create(SERVICE, cluster.service(app="x")),
    ]
    assert [obj["metadata"].get("generation") for obj in made] == [1, 1, 1, None, None]


async def a_merge_patch_sets_and_removes(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1", y="1"))
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": None, "z": "2"}})
    assert seen["data"] == {"y": "1", "z": "2"}


async def a_merge_patch_of_an_old_version_is_a_conflict(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    body = {"metadata": {"resourceVersion": STALE}, "data": {"x": "2"}}
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, body))
    assert found == (ConflictError, "Conflict", [])
    assert (await cluster.read(CONFIG_MAP, "a"))["data"] == {"x": "1"}


async def a_merge_patch_of_the_present_version_is_taken(cluster: Cluster) -> None:
    made = await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    body = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "2"}}
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, body)
    assert int(seen["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def a_patch_that_changes_nothing_keeps_the_version(cluster: Cluster) -> None:
    made = await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "1"}})
    assert seen["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def a_patch_of_an_absent_object_is_not_found(cluster: Cluster) -> None:
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "1"}}))
    assert found == (NotFoundError, "NotFound", [])


async def a_patch_cannot_change_the_uid(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"metadata": {"uid": "mine"}}))
    assert found == (InvalidError, "Invalid", ["metadata.uid"])


async def a_failed_test_of_a_json_patch_changes_nothing(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    patch = [
        {"op": "replace", "path": "/data/x", "value": "2"},
        {"op": "test", "path": "/metadata/uid", "value": "another"},
    ]
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, patch, content_type=JSON_PATCH))
    assert found == (InvalidError, "Invalid", [])
    assert (await cluster.read(CONFIG_MAP, "a"))["data"] == {"x": "1"}


async def a_json_patch_tests_and_changes(cluster: Cluster) -> None:
    made = await cluster.create(CONFIG_MAP, cluster.config_map(x="1"), annotations={"a/b": "1", "c": "2"})
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": made["metadata"]["uid"]},
        {"op": "remove", "path": "/metadata/annotations/a~1b"},
        {"op": "add", "path": "/data/y", "value": "2"},
        {"op": "replace", "path": "/data/x", "value": "3"},
    ]
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, patch, content_type=JSON_PATCH)
    assert seen["data"] == {"x": "3", "y": "2"}
    assert seen["metadata"]["annotations"] == {"c": "2"}


async def a_json_patch_removes_nothing_that_is_absent(cluster: Cluster) -> None:
    await _refuse_json_patch(cluster, {"op": "remove", "path": "/data/no"})


async def a_json_patch_replaces_what_is_absent(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    patch = [{"op": "replace", "path": "/data/y", "value": "2"}]
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, patch, content_type=JSON_PATCH)
    assert seen["data"] == {"x": "1", "y": "2"}


async def a_json_patch_tests_nothing_that_is_absent(cluster: Cluster) -> None:
    await _refuse_json_patch(cluster, {"op": "test", "path": "/metadata/annotations/no", "value": "1"})


async def a_json_patch_adds_nothing_below_what_is_absent(cluster: Cluster) -> None:
    await _refuse_json_patch(cluster, {"op": "add", "path": "/metadata/labels/a", "value": "1"})


async def _refuse_json_patch(cluster: Cluster, operation: Object) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    request = cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, [operation], content_type=JSON_PATCH)
    assert await refusal(request) == (InvalidError, "Invalid", [])


async def a_json_patch_removes_an_item_by_its_place(cluster: Cluster) -> None:
    obj = cluster.deployment()
    obj["spec"]["template"]["spec"]["containers"].append({"name": "foreign", "image": "i"})
    await cluster.client.create(DEPLOYMENT, obj)
    path = "/spec/template/spec/containers/1"
    patch = [{"op": "test", "path": f"{path}/name", "value": "foreign"}, {"op": "remove", "path": path}]
    seen = await cluster.client.patch(DEPLOYMENT, "d", cluster.namespace, patch, content_type=JSON_PATCH)
    assert [one["name"] for one in seen["spec"]["template"]["spec"]["containers"]] == ["c"]


async def a_change_of_the_spec_is_a_generation_and_one_of_labels_is_not(cluster: Cluster) -> None:
    await cluster.client.create(R1P, cluster.r1plus_deployment())
    spec = await cluster.client.patch(R1P, "credit", cluster.namespace, {"spec": {"tier": "lite"}})
    labels = await cluster.client.patch(
        R1P, "credit", cluster.namespace, {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}}
    )
    assert (spec["metadata"]["generation"], labels["metadata"]["generation"]) == (2, 2)


async def a_deployments_annotations_are_part_of_its_generation(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENT, cluster.deployment())
    body = {"metadata": {"annotations": {"a": "b"}}}
    seen = await cluster.client.patch(DEPLOYMENT, "d", cluster.namespace, body)
    again = await cluster.client.patch(DEPLOYMENT, "d", cluster.namespace, {"metadata": {"labels": {"a": "b"}}})
    assert (seen["metadata"]["generation"], again["metadata"]["generation"]) == (2, 2)


async def the_main_endpoint_writes_no_status(cluster: Cluster) -> None:
    await cluster.client.create(R1P, cluster.r1plus_deployment())
    await cluster.client.patch(R1P, "credit", cluster.namespace, {"status": {"reason": "A"}}, subresource="status")
    seen = await cluster.client.patch(R1P, "credit", cluster.namespace, {"status": {"reason": "B"}})
    assert seen["status"]["reason"] == "A"


async def the_status_endpoint_writes_the_status_only(cluster: Cluster) -> None:
    await cluster.client.create(R1P, cluster.r1plus_deployment())
    body = {"metadata": {"labels": {"a": "b"}}, "spec": {"tier": "lite"}, "status": {"reason": "A"}}
    seen = await cluster.client.patch(R1P, "credit", cluster.namespace, body, subresource="status")
    assert (seen["spec"]["tier"], seen["status"]["reason"], seen["metadata"]["generation"]) == ("full", "A", 1)
    assert "labels" not in seen["metadata"]


async def a_status_of_an_absent_object_is_not_found(cluster: Cluster) -> None:
    body = {"status": {"reason": "A"}}
    found = await refusal(cluster.client.patch(R1P, "credit", cluster.namespace, body, subresource="status"))
    assert found == (NotFoundError, "NotFound", [])


async def a_pods_status_endpoint_takes_labels_as_well(cluster: Cluster) -> None:
    await cluster.create_pod()
    body = {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running", "podIP": "10.0.0.1"}}
    seen = await cluster.client.patch(POD, "p", cluster.namespace, body, subresource="status")
    assert (seen["status"]["phase"], seen["metadata"]["labels"]) == ("Running", {"a": "b"})


async def a_revisions_data_cannot_change(cluster: Cluster) -> None:
    obj = manifests.manifest(REVISION, "r", cluster.namespace, revision=1, data={"a": {"b": ["1", ""]}})
    made = await cluster.client.create(REVISION, obj)
    assert made["data"] == {"a": {"b": ["1", ""]}}
    found = await refusal(cluster.client.patch(REVISION, "r", cluster.namespace, {"data": {"a": {"b": []}}}))
    assert found == (InvalidError, "Invalid", ["data"])


async def a_revisions_metadata_and_number_can_change(cluster: Cluster) -> None:
    obj = manifests.manifest(REVISION, "r", cluster.namespace, revision=1, data={"a": 1})
    await cluster.client.create(REVISION, obj)
    body = {"revision": 2, "metadata": {"annotations": {"a": "b"}}}
    seen = await cluster.client.patch(REVISION, "r", cluster.namespace, body)
    assert (seen["revision"], seen["metadata"]["annotations"]) == (2, {"a": "b"})


async def an_immutable_config_map_stays_as_it_is(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, {**cluster.config_map(x="1"), "immutable": True})
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "2"}}))
    assert found == (InvalidError, "Invalid", ["data"])
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"immutable": False}))
    assert found == (InvalidError, "Invalid", ["immutable"])


async def a_deployments_selector_cannot_change(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENT, cluster.deployment())
    body = {"spec": {"selector": {"matchLabels": {"app": "y"}}, "template": {"metadata": {"labels": {"app": "y"}}}}}
    found = await refusal(cluster.client.patch(DEPLOYMENT, "d", cluster.namespace, body))
    assert found == (InvalidError, "Invalid", ["spec.selector"])


async def a_role_bindings_role_cannot_change(cluster: Cluster) -> None:
    obj = manifests.role_binding(cluster.namespace, "b", "view", manifests.user("anna"))
    await cluster.client.create(manifests.ROLE_BINDING, obj)
    body = {"roleRef": {"name": "edit"}}
    found = await refusal(cluster.client.patch(manifests.ROLE_BINDING, "b", cluster.namespace, body))
    assert found == (InvalidError, "Invalid", ["roleRef"])


async def a_value_out_of_range_is_invalid(cluster: Cluster) -> None:
    found = await refusal(cluster.client.create(DEPLOYMENT, cluster.deployment(replicas=-1)))
    assert found == (InvalidError, "Invalid", ["spec.replicas"])


async def a_custom_resource_gets_its_definitions_defaults(cluster: Cluster) -> None:
    made = await cluster.client.create(R1P, cluster.r1plus_deployment(accuracy={"threshold": 0.97}))
    assert (made["spec"]["replicas"], made["spec"]["accuracy"]["gate"]) == (1, "Enforce")
    assert made["spec"]["accuracy"]["threshold"] == 0.97


async def a_custom_resource_without_a_required_field_is_invalid(cluster: Cluster) -> None:
    obj = cluster.r1plus_deployment()
    del obj["spec"]["tier"]
    assert await refusal(cluster.client.create(R1P, obj)) == (InvalidError, "Invalid", [NOT_CHECKED, "spec.tier"])


async def a_custom_resources_values_are_checked(cluster: Cluster) -> None:
    found = await refusal(cluster.client.create(R1P, cluster.r1plus_deployment(tier="huge")))
    assert found == (InvalidError, "Invalid", [NOT_CHECKED, "spec.tier"])
    found = await refusal(cluster.client.create(R1P, cluster.r1plus_deployment(replicas="two")))
    assert found == (InvalidError, "Invalid", [NOT_CHECKED, "spec.replicas"])
    found = await refusal(cluster.client.create(R1P, cluster.r1plus_deployment(accuracy={"threshold": 2})))
    assert found == (InvalidError, "Invalid", ["spec.accuracy.threshold"])


async def a_custom_resource_loses_fields_that_it_does_not_have(cluster: Cluster) -> None:
    made = await cluster.client.create(R1P, cluster.r1plus_deployment(nonsense=1))
    assert "nonsense" not in made["spec"]


async def a_lease_is_taken_by_its_version_once(cluster: Cluster) -> None:
    made = await cluster.client.create(
        LEASE, manifests.manifest(LEASE, "l", cluster.namespace, spec={"holderIdentity": "a", "leaseTransitions": 1})
    )
    body = {
        "metadata": {"resourceVersion": made["metadata"]["resourceVersion"]},
        "spec": {"holderIdentity": "b", "leaseTransitions": 2, "renewTime": "2026-12-02T14:00:00.000000Z"},
    }
    taken = await cluster.client.patch(LEASE, "l", cluster.namespace, body)
    assert taken["spec"]["holderIdentity"] == "b"
    found = await refusal(cluster.client.patch(LEASE, "l", cluster.namespace, body))
    assert found == (ConflictError, "Conflict", [])


async def empty_and_null_fields_are_dropped_of_built_in_kinds(cluster: Cluster) -> None:
    obj = {**cluster.config_map(), "data": None, "binaryData": {}}
    obj["metadata"]["labels"] = {}
    made = await cluster.client.create(CONFIG_MAP, obj)
    assert made.keys() == {"apiVersion", "kind", "metadata"}
    assert "labels" not in made["metadata"]


async def empty_texts_of_maps_stay(cluster: Cluster) -> None:
    made = await cluster.create(CONFIG_MAP, cluster.config_map(x=""), annotations={"a": ""})
    assert (made["data"], made["metadata"]["annotations"]) == ({"x": ""}, {"a": ""})


async def a_namespaces_labels_can_change(cluster: Cluster) -> None:
    body = {"metadata": {"labels": {"team": "a"}}}
    seen = await cluster.client.patch(kinds.NAMESPACE, cluster.namespace, None, body)
    assert seen["metadata"]["labels"]["team"] == "a"
