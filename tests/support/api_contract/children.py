"""What the operator writes for a deployment and for a tenant, as the plan makes it: the server stores it as it is wanted."""

import asyncio
from typing import Any

from r1plus_operator.api import kinds
from r1plus_operator.plan.manifests.drift import is_in_sync
from support.api_contract.cluster import Cluster, Object
from support.apiserver.child_bodies import build_child
from support.plan.tenant_world import GIVES, TenantWorld
from support.plan.world import FULL, World

FIELD_MANAGER = "op"


def build_children(namespace: str) -> dict[str, Object]:
    """Return one object of each kind that a deployment, a volume or a tenant has, by kind."""
    of_deployment = World(dict(FULL)).plan().apply
    of_tenant = TenantWorld(spec=GIVES).plan().apply
    of_volumes = [build_child(resource.kind, "volume") for resource in kinds.VOLUME_PARTS]
    objects = [*of_volumes, *(obj for stage in (*of_deployment, *of_tenant) for obj in stage)]
    return {obj["kind"]: {**obj, "metadata": {**obj["metadata"], "namespace": namespace}} for obj in objects}


async def _write(cluster: Cluster) -> list[tuple[Object, Object]]:
    """Apply all of them; return what was wanted, with what is stored."""
    optional = {resource.kind for resource in kinds.OPTIONAL_CHILDREN}
    objects = [obj for kind, obj in build_children(cluster.namespace).items() if kind not in optional]
    return list(zip(objects, await asyncio.gather(*(_apply(cluster, obj) for obj in objects)), strict=True))


async def _apply(cluster: Cluster, obj: Object) -> Object:
    return await cluster.client.apply(kinds.BY_KIND[obj["kind"]], obj, field_manager=FIELD_MANAGER)


async def what_the_operator_writes_is_in_sync(cluster: Cluster) -> None:
    drifted = [wanted["kind"] for wanted, stored in await _write(cluster) if not is_in_sync(wanted, stored)]
    assert drifted == []


async def what_the_operator_writes_again_changes_nothing_but_known_versions(cluster: Cluster) -> None:
    changed: list[str] = []
    for wanted, _ in await _write(cluster):
        # Read again: a quota's status follows what was created after it.
        stored = await cluster.read(kinds.BY_KIND[wanted["kind"]], wanted["metadata"]["name"])
        again = await _apply(cluster, wanted)
        changed += [wanted["kind"]] * (again["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"])
    # `applying` has the reasons: a claim is written once more, a policy with an empty list of rules each time.
    assert changed == ["PersistentVolumeClaim", "NetworkPolicy"]


async def what_the_operator_writes_is_owned_as_it_was_written(cluster: Cluster) -> None:
    managers: Any = [
        (wanted["kind"], entry["manager"], entry["operation"])
        for wanted, stored in await _write(cluster)
        for entry in stored["metadata"]["managedFields"]
    ]
    assert managers == [(kind, FIELD_MANAGER, "Apply") for kind, _, _ in managers]
