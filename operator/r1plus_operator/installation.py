"""`python -m r1plus_operator.installation`, for `helm test`: the operator leads, policies bind and the decoy holds.

It has an account of its own, and looks at three things: the operator's Lease, the API server's answer to a forbidden
write, and whether a port of the decoy is open to it.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, NotFoundError
from r1plus_operator.runtime.lease import LEASE
from r1plus_operator.runtime.resources import Resource

Json = dict[str, Any]
Connect = Callable[[str, int], Awaitable[bool]]
"""Address and port -> whether it takes a connection."""
POLL_SECONDS: Final = 1.0
START_SECONDS: Final = 120.0
"""Longest wait for a leader, and for the decoy's pod."""
CONNECT_SECONDS: Final = 3.0
BLOCKED_PORTS: Final = (names.PORT_HTTP, names.PORT_GRPC)
"""Ports of a serving pod that no other namespace reaches unless the spec lets it."""
ALLOWED_PORT: Final = names.PORT_MONITOR
"""Port that the operator's namespace reaches, and so the test: what is blocked counts only if this one is open."""
FORBIDDEN_NAME: Final = "r1plus-helm-test"
"""Name of the operator's own kind: policy `...-names` lets nobody else make an object of it in a tenant's namespace."""


class InstallationApi(Protocol):
    """The verbs that the test uses; `runtime.client.ApiClient` has them."""

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Json:
        """Read one object."""

    async def list(self, res: Resource, namespace: str | None = None, *, label_selector: str = "") -> Any:
        """Return the objects, and the version that they are from."""

    async def create(self, res: Resource, obj: Json, *, dry_run: bool = False) -> Json:
        """Create an object, or have the API server judge it."""


@dataclass(frozen=True, slots=True)
class InstallationCheck:
    """The result of one check."""

    holds: bool
    text: str
    """What holds; or what is wrong, and what to do."""


async def check_leader(api: InstallationApi, namespace: str) -> InstallationCheck:
    """Check that a replica holds the Lease and renews it. No clock of another machine is compared."""
    first, holder = "", ""
    for _ in range(int(START_SECONDS / POLL_SECONDS)):
        try:
            lease = await api.get(LEASE, names.LEASE, namespace)
        except NotFoundError:
            lease = {"metadata": {"resourceVersion": ""}, "spec": {}}
        version, holder = lease["metadata"]["resourceVersion"], lease["spec"].get("holderIdentity") or ""
        if holder and first not in ("", version):
            return InstallationCheck(True, f"The operator leads: {holder.partition('_')[0]} renews its Lease")
        first = first or version
        await asyncio.sleep(POLL_SECONDS)
    state = f"its holder {holder} does not renew it" if holder else "nobody holds it"
    hint = f"kubectl logs -n {namespace} -l app.kubernetes.io/name=r1plus-operator"
    return InstallationCheck(False, f"The operator does not lead: Lease {names.LEASE}: {state}; see {hint}")


async def check_policies(api: InstallationApi, decoy: str) -> InstallationCheck:
    """Check that the API server refuses a write that a policy of the chart forbids, by a dry run."""
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": FORBIDDEN_NAME, "namespace": decoy}}
    try:
        await api.create(kinds.CONFIG_MAP, obj, dry_run=True)
    except ForbiddenError as error:
        if "ValidatingAdmissionPolicy" in error.message:
            return InstallationCheck(True, "Policies bind: the API server refuses an object under the operator's names")
        return InstallationCheck(False, f"Policies were not tried: {error}")
    text = "the API server admits an object under the operator's names, so anyone may forge a verdict"
    remedy = "see `kubectl get validatingadmissionpolicybindings`, and run helm upgrade again"
    return InstallationCheck(False, f"Policies do not bind: {text}; {remedy}")


async def check_decoy(api: InstallationApi, decoy: str, connect: Connect) -> InstallationCheck:
    """Check that ports of the decoy, which has a tenant's network policies, are blocked for this pod."""
    address = await _find_decoy(api, decoy)
    if not address:
        return InstallationCheck(False, f"The decoy has no Ready pod; see kubectl get pods -n {decoy}")
    if open_ports := [str(port) for port in BLOCKED_PORTS if await connect(address, port)]:
        text = f"The decoy does not hold: port {', '.join(open_ports)} of its pod is open to this one"
        return InstallationCheck(False, f"{text}; the cluster needs a network plugin that enforces NetworkPolicy")
    ports = " and ".join(map(str, BLOCKED_PORTS))
    if await connect(address, ALLOWED_PORT):
        return InstallationCheck(
            True, f"The decoy holds: ports {ports} are blocked, and {ALLOWED_PORT} is open as it should be"
        )
    text = f"The decoy proves nothing: this pod does not reach port {ALLOWED_PORT} either, which is allowed"
    return InstallationCheck(False, f"{text}; see the network policies of this namespace, and the network plugin")


async def _find_decoy(api: InstallationApi, decoy: str) -> str:
    """Return the address of the decoy's Ready pod; empty: none became Ready in time."""
    for _ in range(int(START_SECONDS / POLL_SECONDS)):
        pods, _ = await api.list(kinds.POD, decoy, label_selector=f"{names.LABEL_DEPLOYMENT}={names.DECOY}")
        for pod in pods:
            conditions = pod.get("status", {}).get("conditions") or ()
            if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                return str(pod["status"]["podIP"])
        await asyncio.sleep(POLL_SECONDS)
    return ""


async def try_connection(address: str, port: int) -> bool:
    """Return whether a port takes a connection within CONNECT_SECONDS."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


async def run_checks(
    api: InstallationApi, namespace: str, decoy: str, connect: Connect, *, are_enforced: bool
) -> list[InstallationCheck]:
    """Return a result for each check. `decoy`: its namespace; empty: there is none, so only the leader is checked."""
    checks = [check_leader(api, namespace)]
    if decoy and are_enforced:
        checks.append(check_policies(api, decoy))
    if decoy:
        checks.append(check_decoy(api, decoy, connect))
    return [await _complete(check) for check in checks]


async def _complete(check: Awaitable[InstallationCheck]) -> InstallationCheck:
    try:
        return await check
    except ApiError as error:
        return InstallationCheck(False, f"The API server refused a question of the test: {error}")


async def _test_cluster(options: argparse.Namespace) -> list[InstallationCheck]:
    async with ApiClient.autodetect() as api:
        return await run_checks(
            api, options.namespace, options.decoy, try_connection, are_enforced=options.policies == "enforced"
        )


def main(arguments: Sequence[str]) -> int:
    """Print a line for each check, and return the exit status: 1 if one fails."""
    parser = argparse.ArgumentParser(prog="r1plus_operator.installation", description=__doc__)
    parser.add_argument("--namespace", required=True, help="of the operator")
    parser.add_argument("--decoy", default="", help="namespace of the decoy; empty: there is none")
    parser.add_argument("--policies", choices=("enforced", "other"), required=True, help="whether policies refuse")
    checks = asyncio.run(_test_cluster(parser.parse_args(arguments)))
    for check in checks:
        sys.stdout.write(f"{'ok    ' if check.holds else 'FAILED'}  {check.text}\n")
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
