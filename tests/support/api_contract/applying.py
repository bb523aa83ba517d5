"""Behaviours of server-side apply: who owns a field, and what becomes of the others."""

from typing import Any

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ApiServerError, ConflictError, InvalidError, NotFoundError
from support.api_contract.cluster import (
    CONFIG_MAP,
    DEPLOYMENT,
    FINALIZER,
    NOT_CHECKED,
    POLICY,
    R1P,
    REVISION,
    SERVICE,
    Cluster,
    Object,
    refusal,
)
from support.apiserver import manifests
from support.apiserver.child_bodies import CLAIM_SPEC

CLAIM = kinds.BY_KIND["PersistentVolumeClaim"]
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "11111111-1111-4111-8111-111111111111"}
OTHER_OWNER = {**OWNER, "name": "p", "uid": "22222222-2222-4222-8222-222222222222"}


async def _apply(cluster: Cluster, obj: Object, manager: str = "op", **metadata: Any) -> Object:
    resource = kinds.BY_KIND[obj["kind"]]
    sent = {**obj, "metadata": {**obj["metadata"], **metadata}}
    return await cluster.client.apply(resource, sent, field_manager=manager)


async def an_apply_creates(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.config_map(x="1"))
    assert (made["data"], len(made["metadata"]["uid"])) == ({"x": "1"}, 36)


async def an_apply_that_changes_nothing_keeps_the_version(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.config_map(x="1"))
    again = await _apply(cluster, cluster.config_map(x="1"))
    assert again == made


async def a_field_that_is_not_applied_any_more_is_removed(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"), labels={"a": "1"})
    seen = await _apply(cluster, cluster.config_map(x="1"))
    assert seen["data"] == {"x": "1"}
    assert "labels" not in seen["metadata"]


async def a_field_that_another_owns_too_stays(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"))
    await _apply(cluster, cluster.config_map(y="1"), "other")
    seen = await _apply(cluster, cluster.config_map(x="1"))
    assert seen["data"] == {"x": "1", "y": "1"}


async def the_last_owner_removes_a_field(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"))
    await _apply(cluster, cluster.config_map(y="1"), "other")
    await _apply(cluster, cluster.config_map(x="1"))
    seen = await _apply(cluster, cluster.config_map(), "other")
    assert seen["data"] == {"x": "1"}


async def sharing_a_field_changes_the_version_and_not_the_generation(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.deployment())
    seen = await _apply(cluster, cluster.deployment(), "other")
    assert seen["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert seen["metadata"]["generation"] == 1


async def another_owners_value_is_a_conflict_without_force(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"), "other")
    request = cluster.client.apply(CONFIG_MAP, cluster.config_map(x="2", y="1"), field_manager="op", force=False)
    assert await refusal(request) == (ConflictError, "Conflict", [".data.x"])


async def force_takes_a_field_from_its_owner(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"), "other")
    await _apply(cluster, cluster.config_map(x="2"))
    seen = await _apply(cluster, cluster.config_map(y="1"), "other")
    assert seen["data"] == {"x": "2", "y": "1"}, "the former owner no longer removes it"


async def a_patch_takes_a_field_from_who_applied_it(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"))
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "2"}}, field_manager="human")
    request = cluster.client.apply(CONFIG_MAP, cluster.config_map(x="1", y="1"), field_manager="op", force=False)
    assert await refusal(request) == (ConflictError, "Conflict", [".data.x"])
    seen = await _apply(cluster, cluster.config_map(y="1"))
    assert seen["data"] == {"x": "2", "y": "1"}, "what was patched is not removed"
    assert (await _apply(cluster, cluster.config_map(x="1", y="1")))["data"] == {"x": "1", "y": "1"}


async def a_patch_to_the_same_value_takes_nothing(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.config_map(x="1"))
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "1"}}, field_manager="human")
    assert seen["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def a_field_that_was_patched_away_is_applied_again(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1", y="1"))
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": None}})
    assert (await _apply(cluster, cluster.config_map(x="1", y="1")))["data"] == {"x": "1", "y": "1"}


async def what_others_add_stays(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1"), labels={"a": "1"})
    body = {"metadata": {"labels": {"b": "2"}}, "data": {"z": "3"}}
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, body)
    seen = await _apply(cluster, cluster.config_map(x="2"), labels={"a": "2"})
    assert (seen["data"], seen["metadata"]["labels"]) == ({"x": "2", "z": "3"}, {"a": "2", "b": "2"})


async def containers_merge_by_name(cluster: Cluster) -> None:
    obj = cluster.deployment()
    await _apply(cluster, obj)
    patch = {
        "spec": {
            "template": {
                "spec": {"containers": [*obj["spec"]["template"]["spec"]["containers"], {"name": "x", "image": "i"}]}
            }
        }
    }
    await cluster.client.patch(DEPLOYMENT, "d", cluster.namespace, patch)
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.local/c:2"
    seen = await _apply(cluster, obj)
    containers = seen["spec"]["template"]["spec"]["containers"]
    assert [(one["name"], one["image"]) for one in containers] == [("c", "registry.local/c:2"), ("x", "i")]


async def a_container_that_is_not_applied_any_more_goes(cluster: Cluster) -> None:
    obj = cluster.deployment()
    containers = obj["spec"]["template"]["spec"]["containers"]
    containers.append({**containers[0], "name": "second"})
    await _apply(cluster, obj)
    del containers[0]
    seen = await _apply(cluster, obj)
    assert [one["name"] for one in seen["spec"]["template"]["spec"]["containers"]] == ["second"]
    assert seen["metadata"]["generation"] == 2


async def variables_merge_by_name(cluster: Cluster) -> None:
    obj = cluster.deployment()
    container = obj["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]
    await _apply(cluster, obj)
    other = cluster.deployment()
    other["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "C", "value": "1"}]
    await _apply(cluster, other, "other")
    container["env"] = [{"name": "A", "value": "2"}]
    seen = await _apply(cluster, obj)
    env = seen["spec"]["template"]["spec"]["containers"][0]["env"]
    assert sorted((one["name"], one["value"]) for one in env) == [("A", "2"), ("C", "1")]


async def owner_references_merge_by_uid(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(), ownerReferences=[OWNER])
    await _apply(cluster, cluster.config_map(), "other", ownerReferences=[OTHER_OWNER])
    seen = await _apply(cluster, cluster.config_map(), ownerReferences=[{**OWNER, "controller": True}])
    references = {one["uid"]: one.get("controller") for one in seen["metadata"]["ownerReferences"]}
    assert references == {OWNER["uid"]: True, OTHER_OWNER["uid"]: None}


async def an_owner_reference_is_one_value(cluster: Cluster) -> None:
    (entry,) = (await _apply(cluster, cluster.config_map(), ownerReferences=[OWNER]))["metadata"]["managedFields"]
    references: Object = {f'k:{{"uid":"{OWNER["uid"]}"}}': {}}
    assert entry["fieldsV1"] == {"f:metadata": {"f:ownerReferences": references}}


async def a_second_controller_is_invalid(cluster: Cluster) -> None:
    both = [{**OWNER, "controller": True}, {**OTHER_OWNER, "controller": True}]
    found = await refusal(_apply(cluster, cluster.config_map(), ownerReferences=both))
    assert found == (InvalidError, "Invalid", ["metadata.ownerReferences"])


async def finalizers_are_a_set(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(), finalizers=[FINALIZER])
    seen = await _apply(cluster, cluster.config_map(), "other", finalizers=["r1plus.test/other"])
    assert sorted(seen["metadata"]["finalizers"]) == [FINALIZER, "r1plus.test/other"]
    seen = await _apply(cluster, cluster.config_map())
    assert seen["metadata"]["finalizers"] == ["r1plus.test/other"]


async def a_services_selector_is_one_value(cluster: Cluster) -> None:
    await _apply(cluster, cluster.service(app="x"))
    body = {"spec": {"selector": {"more": "y"}}}
    await cluster.client.patch(SERVICE, "s", cluster.namespace, body)
    seen = await _apply(cluster, cluster.service(app="x"))
    assert seen["spec"]["selector"] == {"app": "x"}


async def a_services_ports_merge_by_port(cluster: Cluster) -> None:
    obj = cluster.service(app="x")
    await _apply(cluster, obj)
    obj["spec"]["ports"][0]["targetPort"] = 9000
    seen = await _apply(cluster, obj)
    assert [(port["port"], port["protocol"], port["targetPort"]) for port in seen["spec"]["ports"]] == [
        (80, "TCP", 9000)
    ]


async def a_policys_rules_are_one_value(cluster: Cluster) -> None:
    def policy(*rules: Object) -> Object:
        spec = {"podSelector": {"matchLabels": {"app": "x"}}, "policyTypes": ["Ingress"], "ingress": list(rules)}
        return manifests.manifest(POLICY, "p", cluster.namespace, spec=spec)

    rule: Object = {"from": [{"podSelector": {"matchLabels": {"app": "y"}}}]}
    await _apply(cluster, policy(rule))
    await cluster.client.patch(POLICY, "p", cluster.namespace, {"spec": {"ingress": [rule, {}]}})
    seen = await _apply(cluster, policy(rule))
    assert seen["spec"]["ingress"] == [rule]
    assert "ingress" not in (await _apply(cluster, policy()))["spec"]


async def an_empty_list_of_rules_makes_each_apply_a_write(cluster: Cluster) -> None:
    """The API server drops the list, and compares what was sent with what it stored."""
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []}
    policy = manifests.manifest(POLICY, "p", cluster.namespace, spec=spec)
    seen = [(await _apply(cluster, policy))["metadata"] for _ in range(3)]
    assert [meta["generation"] for meta in seen] == [1, 2, 3]
    assert len({meta["resourceVersion"] for meta in seen}) == 3
    del spec["ingress"]
    seen = [(await _apply(cluster, policy))["metadata"] for _ in range(2)]
    assert seen[0]["resourceVersion"] == seen[1]["resourceVersion"]


async def the_first_write_to_a_claim_is_stored_though_it_changes_nothing(cluster: Cluster) -> None:
    claim = manifests.manifest(CLAIM, "c", cluster.namespace, spec=CLAIM_SPEC)
    versions = [(await _apply(cluster, claim))["metadata"]["resourceVersion"] for _ in range(4)]
    assert len(set(versions[:2])) == 2
    assert len(set(versions[1:])) == 1


async def a_revisions_data_is_one_value(cluster: Cluster) -> None:
    obj = manifests.manifest(REVISION, "r", cluster.namespace, revision=1, data={"a": {"b": 1}})
    made = await _apply(cluster, obj)
    assert made["data"] == {"a": {"b": 1}}
    found = await refusal(_apply(cluster, {**obj, "data": {"a": {"b": 1}, "c": 2}}))
    assert found == (InvalidError, "Invalid", ["data"])


async def a_status_is_applied_apart_from_the_spec(cluster: Cluster) -> None:
    await _apply(cluster, cluster.r1plus_deployment())
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    seen = await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    assert (seen["spec"]["tier"], seen["status"], seen["metadata"]["generation"]) == ("full", {"reason": "A"}, 1)


async def our_status_is_one_value(cluster: Cluster) -> None:
    await _apply(cluster, cluster.r1plus_deployment())
    head = manifests.manifest(R1P, "credit", cluster.namespace)
    await cluster.client.apply(
        R1P, {**head, "status": {"reason": "A", "engine": "e"}}, field_manager="op", subresource="status"
    )
    seen = await cluster.client.apply(
        R1P, {**head, "status": {"engine": "f"}}, field_manager="other", subresource="status"
    )
    assert seen["status"] == {"engine": "f"}


async def a_status_that_is_applied_again_keeps_the_version(cluster: Cluster) -> None:
    await _apply(cluster, cluster.r1plus_deployment())
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    first = await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    again = await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


async def an_apply_of_the_spec_keeps_the_status(cluster: Cluster) -> None:
    await _apply(cluster, cluster.r1plus_deployment())
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    seen = await _apply(cluster, cluster.r1plus_deployment(tier="lite"))
    assert (seen["status"], seen["metadata"]["generation"]) == ({"reason": "A"}, 2)


async def an_apply_with_the_uid_of_another_object_is_invalid(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1"))
    found = await refusal(_apply(cluster, cluster.config_map(x="2"), uid=OWNER["uid"]))
    assert found == (InvalidError, "Invalid", ["metadata.uid"])


async def an_apply_to_another_object_of_another_version_is_a_conflict(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1"))
    found = await refusal(_apply(cluster, cluster.config_map(x="2"), uid=OWNER["uid"], resourceVersion="1"))
    assert found == (ConflictError, "Conflict", [])


async def a_status_with_the_uid_of_another_object_is_written(cluster: Cluster) -> None:
    await _apply(cluster, cluster.r1plus_deployment())
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    body["metadata"]["uid"] = OWNER["uid"]
    seen = await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    assert seen["status"] == {"reason": "A"}


async def an_apply_with_a_uid_creates_nothing(cluster: Cluster) -> None:
    found = await refusal(_apply(cluster, cluster.config_map(x="2"), uid=OWNER["uid"]))
    assert found == (ConflictError, "Conflict", [])
    assert await cluster.is_gone(CONFIG_MAP, "a")


async def an_apply_of_an_old_version_is_a_conflict(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1"))
    found = await refusal(_apply(cluster, cluster.config_map(x="2"), resourceVersion="1"))
    assert found == (ConflictError, "Conflict", [])


async def an_apply_with_a_version_creates_all_the_same(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.config_map(x="2"), resourceVersion="1")
    assert made["data"] == {"x": "2"}


async def a_status_is_not_applied_to_an_absent_object(cluster: Cluster) -> None:
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    found = await refusal(cluster.client.apply(R1P, body, field_manager="op", subresource="status"))
    assert found == (NotFoundError, "NotFound", [])
    body["metadata"]["uid"] = OWNER["uid"]
    found = await refusal(cluster.client.apply(R1P, body, field_manager="op", subresource="status"))
    assert found == (NotFoundError, "NotFound", [])


async def an_apply_of_a_field_that_does_not_exist_is_refused(cluster: Cluster) -> None:
    found = await refusal(_apply(cluster, cluster.r1plus_deployment(nonsense=1)))
    assert found == (ApiServerError, "Unknown", [])


async def an_applied_custom_resource_gets_its_defaults(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.r1plus_deployment())
    assert made["spec"]["replicas"] == 1
    # The second write stores the default of the status, which a create drops.
    made = await _apply(cluster, cluster.r1plus_deployment())
    again = await _apply(cluster, cluster.r1plus_deployment())
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def a_field_that_is_applied_no_more_gets_its_default_again(cluster: Cluster) -> None:
    await _apply(cluster, cluster.r1plus_deployment(replicas=3))
    seen = await _apply(cluster, cluster.r1plus_deployment())
    assert seen["spec"]["replicas"] == 1


async def an_applied_deployment_gets_its_defaults_once(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.deployment())
    spec = made["spec"]
    assert (spec["progressDeadlineSeconds"], spec["strategy"]["type"]) == (600, "RollingUpdate")
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    again = await _apply(cluster, cluster.deployment())
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def an_invalid_apply_changes_nothing(cluster: Cluster) -> None:
    made = await _apply(cluster, cluster.r1plus_deployment())
    found = await refusal(_apply(cluster, cluster.r1plus_deployment(tier="huge")))
    assert found == (InvalidError, "Invalid", [NOT_CHECKED, "spec.tier"])
    assert await cluster.read(R1P, "credit") == made


async def a_managers_fields_are_named(cluster: Cluster) -> None:
    await _apply(cluster, cluster.config_map(x="1"), labels={"a": "1"})
    await _apply(cluster, cluster.config_map(y="1"), "other")
    seen = await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "2"}}, field_manager="human")
    owners = {(entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in seen["metadata"]["managedFields"]}
    assert owners == {
        ("op", "Apply"): {"f:metadata": {"f:labels": {"f:a": {}}}},
        ("other", "Apply"): {"f:data": {"f:y": {}}},
        ("human", "Update"): {"f:data": {"f:x": {}}},
    }


async def a_containers_fields_are_named_by_its_name(cluster: Cluster) -> None:
    obj = cluster.deployment()
    obj["spec"]["template"]["spec"] = {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}
    (entry,) = (await _apply(cluster, obj))["metadata"]["managedFields"]
    assert entry["fieldsV1"]["f:spec"]["f:template"] == {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                }
            }
        },
    }
