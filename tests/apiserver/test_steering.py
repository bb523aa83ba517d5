"""`r1plus pin` and its like on a real API server: who asks is who the API server says, and what is written is taken."""

from datetime import UTC, datetime

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.errors import CliError
from r1plus_cli.rollout.actions import request_action
from r1plus_contract.requests import Verb, read_requests
from r1plus_operator.api import kinds
from support.apiserver.manifests import manifest
from support.apiserver.tenant import Tenant

pytestmark = pytest.mark.apiserver
NOW = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)


async def test_a_pin_is_a_change_of_the_spec_with_a_name_and_a_reason(apiserver: ApiServer, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", accuracy={"threshold": 0.9})
    status = {"revision": "credit-0123456789", "observedGeneration": 1}
    body = manifest(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, status=status)
    await tenant.client.apply(kinds.R1PLUS_DEPLOYMENT, body, field_manager="test", subresource="status")
    cluster = KubernetesCluster(str(apiserver.kubeconfig))
    request_action(cluster, tenant.namespace, "credit", Verb.PIN, "quarter-end", NOW)
    cr = await tenant.cr("credit")
    assert (cr["spec"]["rollout"]["pinned"], cr["spec"]["accuracy"]["threshold"]) == (True, 0.9)
    request = read_requests(cr["metadata"])[Verb.PIN]
    assert (request.why, request.revision) == ("quarter-end", "credit-0123456789")
    assert request.by == cluster.get_username() != "somebody"
    with pytest.raises(CliError, match="already pinned"):
        request_action(cluster, tenant.namespace, "credit", Verb.PIN, "again", NOW)
    with pytest.raises(CliError, match="no such R1PlusDeployment"):
        request_action(cluster, tenant.namespace, "nobody", Verb.PIN, "a typo", NOW)
