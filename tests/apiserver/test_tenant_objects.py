"""What the operator makes, written to a real API server and read back: no pass must see a drift in it.

The API server normalises what it keeps (quantities, empty lists, defaults). A builder that says the same otherwise
would be applied again by every pass, and the next pass comes at once.
"""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.observe import projections
from r1plus_operator.plan.manifests.drift import is_in_sync, with_spec_hash
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import DnsTerms, IsolationTerms, OperatorConfig
from r1plus_operator.plan.tenancy import decoy, isolation_test_jobs, network_policies
from r1plus_operator.runtime.client import ApiClient
from support.plan.world import NODE, World

pytestmark = pytest.mark.apiserver
NODES = ("10.0.0.9", "10.1.0.4", "10.1.0.5", "fd00::1", "fd00::2:1")


def config(namespace: str, **terms: Any) -> OperatorConfig:
    isolation = IsolationTerms(decoy_namespace=namespace, **terms)
    return OperatorConfig("monitor:1", "triton:1", "smollm2", "r1plus-system", "monitoring", isolation=isolation)


async def unlike(client: ApiClient, objects: list[Json]) -> list[str]:
    """Those that read otherwise once they are written."""
    found = []
    for desired in map(with_spec_hash, objects):
        resource = kinds.BY_KIND[desired["kind"]]
        answer = await client.apply(resource, desired, field_manager=names.FIELD_MANAGER)
        if not is_in_sync(desired, projections.project_child(resource, answer).live):
            found.append(f"{desired['kind']}: {desired.get('spec')} became {answer.get('spec')}")
    return found


@pytest.mark.parametrize(
    "quota",
    [
        pytest.param({"pods": 0, "deployments": 0, "gpus": 0}, id="nothing at all"),
        pytest.param({"pods": 1000, "deployments": 20_000, "gpus": 3_000_000}, id="thousands, which have a unit"),
        pytest.param({"pods": 1001, "deployments": 2_000_000_000, "gpus": 999}, id="and what has none"),
        pytest.param({"pods": 2**31 - 1, "gpus": 2**53 - 1}, id="numbers without end"),
        *(
            pytest.param({"cpu": cpu}, id=f"{cpu} cores")
            for cpu in ("0.5", "2000m", "1.5", "1.500", "0.001", "1000", "9000", "1000000m", "1234567m", "9999.999", "1.0")
        ),
        *(
            pytest.param({"memory": size, "storage": size}, id=size)
            for size in (
                "0", "0.0", "1", "1k", "100M", "1.5G", "1.5Gi", "1024Mi", "1048576Ki", "1024Ti", "1048576Ti",
                "2000000Ti", "99999999999999999999Ti", "0.000001Mi", "1500Mi",
            )
        ),
    ],
)  # fmt: skip
async def test_a_quota_reads_as_it_was_written(client: ApiClient, namespace: str, quota: Json) -> None:
    spec = R1PlusTenantSpec.model_validate({"quota": quota})
    assert await unlike(client, network_policies.build_limits(namespace, spec.quota)) == []


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="nothing allowed"),
        pytest.param({"egress": [{"cidr": "0.0.0.0/0", "ports": [443, 80, 443]}]}, id="the whole internet"),
        pytest.param({"egress": [{"cidr": "::/0", "ports": [443]}]}, id="the whole internet of IPv6"),
        pytest.param({"egress": [{"cidr": "169.0.0.0/8", "ports": [1]}, {"cidr": "fc00::/7", "ports": [1]}]}, id="around what is never opened"),
        pytest.param({"egress": [{"cidr": "10.20.30.40/16", "ports": [65535]}]}, id="a network with bits of a host"),
        pytest.param({"egress": [{"cidr": "2001:0db8:0000::1/64", "ports": [1]}]}, id="an address in long form"),
        pytest.param({"egress": [{"namespace": "postgres", "ports": [5432]}]}, id="a namespace"),
        pytest.param(
            {
                "admins": [{"kind": "Group", "name": "ml"}, {"kind": "ServiceAccount", "name": "ci"}],
                "viewers": [{"kind": "User", "name": "a@b.c"}],
            },
            id="who administers and who reads",
        ),
    ],
)  # fmt: skip
async def test_policies_and_access_read_as_they_were_written(client: ApiClient, namespace: str, spec: Json) -> None:
    read = R1PlusTenantSpec.model_validate(spec)
    made = [
        network_policies.build_default_deny(namespace),
        network_policies.build_callers_policy(namespace, read.egress, DnsTerms()),
        *network_policies.build_role_bindings(namespace, read),
    ]
    assert await unlike(client, made) == []


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param({}, id="an API server anywhere"),
        pytest.param({"api_cidrs": ("10.0.0.1/32", "fd00::1/128"), "api_ports": (6443,)}, id="an API server at these addresses"),
    ],
)  # fmt: skip
async def test_what_the_prober_needs_reads_as_it_was_written(client: ApiClient, namespace: str, terms: Json) -> None:
    chosen = config(namespace, **terms)
    made = [
        isolation_test_jobs.build_service_account(namespace),
        isolation_test_jobs.build_network_policy(namespace, chosen),
    ]
    assert await unlike(client, [*made, *decoy.build_network_policies(chosen), *decoy.build_objects(chosen)]) == []


EDITS: list[Any] = [
    pytest.param({"podSelector": {"matchLabels": {"app": "web"}}}, id="a network policy that selects some pods only"),
    pytest.param({"policyTypes": ["Ingress"]}, id="a network policy for one direction only"),
    pytest.param({"ingress": [{}]}, id="a network policy that allows all ingress"),
    pytest.param({"egress": [{"to": [{"podSelector": {}}]}]}, id="a network policy that allows some egress"),
]


@pytest.mark.parametrize("edit", EDITS)
async def test_a_policy_that_somebody_edited_is_put_back_by_one_write(
    client: ApiClient, namespace: str, edit: Json
) -> None:
    deny = with_spec_hash(network_policies.build_default_deny(namespace))
    resource = kinds.BY_KIND["NetworkPolicy"]
    await client.apply(resource, deny, field_manager=names.FIELD_MANAGER)
    edited = await client.patch(resource, network_policies.DEFAULT_DENY, namespace, {"spec": edit})
    assert not is_in_sync(deny, projections.project_child(resource, edited).live)
    assert await unlike(client, [network_policies.build_default_deny(namespace)]) == []


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.4/30", "::/0", "fd00::/16"])
async def test_a_network_without_its_nodes_reads_as_it_was_written(
    client: ApiClient, namespace: str, cidr: str
) -> None:
    egress = R1PlusTenantSpec.model_validate({"egress": [{"cidr": cidr, "ports": [443]}]}).egress
    policy = network_policies.build_callers_policy(namespace, egress, DnsTerms(), NODES)
    (peer,) = policy["spec"]["egress"][2]["to"]
    assert set(peer["ipBlock"]["except"]) & {"10.1.0.4/31", "fd00::1/128"}
    assert await unlike(client, [policy]) == []


@pytest.mark.parametrize("disk", ["4Gi", "100Gi"])
async def test_a_pod_template_with_its_disk_reads_as_it_was_written(
    client: ApiClient, namespace: str, disk: str
) -> None:
    world = World({"tier": "full"}, nodes=(replace(NODE, storage_bytes=int(disk[:-2]) * 2**30),))
    world.settle()
    deployment = world.one("Deployment", world.candidate())
    asked = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert "ephemeral-storage" in asked
    meta = {key: deployment["metadata"][key] for key in ("name", "labels")} | {"namespace": namespace}
    assert await unlike(client, [{**deployment, "metadata": meta}]) == []


@pytest.mark.parametrize("size", ["0", "1", "1.5Gi", "1024Mi", "1024Ti"])
async def test_a_quota_of_disk_reads_as_it_was_written(client: ApiClient, namespace: str, size: str) -> None:
    spec = R1PlusTenantSpec.model_validate({"quota": {"ephemeralStorage": size}})
    assert await unlike(client, network_policies.build_limits(namespace, spec.quota)) == []
