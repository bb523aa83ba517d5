"""What new revisions and egress ask of nodes, written to a real API server: taken, and read back as it was written."""

from dataclasses import replace

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.observe import projections
from r1plus_operator.plan.manifests.drift import is_in_sync, with_spec_hash
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import DnsTerms
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.runtime.client import ApiClient
from support.plan.world import NODE, World

pytestmark = pytest.mark.apiserver
NODES = ("10.0.0.9", "10.1.0.4", "10.1.0.5", "fd00::1", "fd00::2:1")


async def reads_as_written(client: ApiClient, obj: Json) -> bool:
    """Whether no pass would see a drift in this object once it is written."""
    desired, resource = with_spec_hash(obj), kinds.BY_KIND[obj["kind"]]
    answer = await client.apply(resource, desired, field_manager=names.FIELD_MANAGER)
    return is_in_sync(desired, projections.project_child(resource, answer).live)


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.4/30", "::/0", "fd00::/16"])
async def test_finding_14_a_network_without_its_nodes_reads_as_it_was_written(
    client: ApiClient, namespace: str, cidr: str
) -> None:
    egress = R1PlusTenantSpec.model_validate({"egress": [{"cidr": cidr, "ports": [443]}]}).egress
    policy = network_policies.build_callers_policy(namespace, egress, DnsTerms(), NODES)
    (peer,) = policy["spec"]["egress"][2]["to"]
    assert set(peer["ipBlock"]["except"]) & {"10.1.0.4/31", "fd00::1/128"}
    assert await reads_as_written(client, policy)


@pytest.mark.parametrize("disk", ["4Gi", "100Gi"])
async def test_finding_15_a_pod_template_with_its_disk_reads_as_it_was_written(
    client: ApiClient, namespace: str, disk: str
) -> None:
    world = World({"tier": "full"}, nodes=(replace(NODE, storage_bytes=int(disk[:-2]) * 2**30),))
    world.settle()
    deployment = world.one("Deployment", world.candidate())
    asked = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert "ephemeral-storage" in asked
    meta = {key: deployment["metadata"][key] for key in ("name", "labels")} | {"namespace": namespace}
    assert await reads_as_written(client, {**deployment, "metadata": meta})


@pytest.mark.parametrize("size", ["0", "1", "1.5Gi", "1024Mi", "1024Ti"])
async def test_finding_15_a_quota_of_disk_reads_as_it_was_written(client: ApiClient, namespace: str, size: str) -> None:
    spec = R1PlusTenantSpec.model_validate({"quota": {"ephemeralStorage": size}})
    (quota,) = network_policies.build_limits(namespace, spec.quota)
    assert await reads_as_written(client, quota)
