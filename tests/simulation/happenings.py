"""What a schedule does to a world: people and GitOps tools, pods and engines, and the operator's processes."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from r1plus_cli.errors import CliError
from r1plus_cli.rollout.actions import request_action
from r1plus_contract.requests import Verb
from r1plus_operator.api import kinds
from simulation.schedule import Happening
from simulation.world import REVISION, World, apply_spec
from support.simulation.faults import FaultKind
from support.simulation.world.access import Access
from support.simulation.world.cluster import DEPLOYMENT

Json = dict[str, Any]
BUSY_DEPLOYMENTS, BUSY_EDIT_SECONDS = 30, 3.0
"""Of a busy namespace: its deployments, and how often each is edited."""
ERROR_RATE: Final = 0.2
"""Share of requests that are refused or whose answers are lost, while that lasts."""


class _CommandLine:
    """What the command line needs of a cluster."""

    def __init__(self, world: World) -> None:
        self._access = Access(world.server, "alice")

    def get_deployment(self, namespace: str, name: str) -> Json:
        """Return one R1PlusDeployment."""
        cr = self._access.read(kinds.R1PLUS_DEPLOYMENT, namespace, name)
        if cr is None:
            raise CliError(f"{namespace}/{name} does not exist")
        return cr

    def get_username(self) -> str:
        """Return the user's name."""
        return "alice"

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        """Merge `patch` into the R1PlusDeployment."""
        self._access.patch(kinds.R1PLUS_DEPLOYMENT, namespace, name, patch)


def _request(verb: Verb) -> Callable[[World, Happening], None]:
    def act(world: World, one: Happening) -> None:
        now = datetime.fromtimestamp(world.read_time(), UTC)
        with suppress(CliError):  # It makes no sense now, and the person is told so.
            request_action(_CommandLine(world), one.namespace, one.name, verb, "for a reason", now)

    return act


def _pin_for(world: World, one: Happening) -> None:
    """Pin, and release the pin after a while."""
    _request(Verb.PIN)(world, one)
    world.loop.call_later(float(one.value), _request(Verb.UNPIN), world, one)


def _change_spec(build: Callable[[Happening], Json]) -> Callable[[World, Happening], None]:
    def act(world: World, one: Happening) -> None:
        patch = {"spec": build(one)}
        Access(world.server, "tenant").patch(kinds.R1PLUS_DEPLOYMENT, one.namespace, one.name, patch)

    return act


def _replace_cr(world: World, one: Happening) -> None:
    """`kubectl replace -f spec.yaml`, by a tool that knows of no annotation."""
    cr = world.read_cr(one.namespace, one.name)
    if cr is not None:
        meta = {key: cr["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        Access(world.server, "gitops").replace(
            kinds.R1PLUS_DEPLOYMENT,
            {"apiVersion": cr["apiVersion"], "kind": cr["kind"], "metadata": meta, "spec": cr["spec"]},
        )


def _busy_namespace(world: World, one: Happening) -> None:
    """Let a tenant edit many deployments without pods for so many seconds, and delete them then."""
    access, until = Access(world.server, "tenant"), world.loop.time() + float(one.value)
    world.busy_until[one.namespace] = until
    found = [f"busy-{n:02}" for n in range(BUSY_DEPLOYMENTS)]
    for name in found:
        if world.read_cr(one.namespace, name) is None:
            apply_spec(world, one.namespace, name, {"tier": "full", "replicas": 0, "context": {"maxTokens": 2048}})

    def edit(turn: int) -> None:
        if world.loop.time() >= until:
            for name in found:
                if (cr := access.read(kinds.R1PLUS_DEPLOYMENT, one.namespace, name)) is not None:
                    access.delete(kinds.R1PLUS_DEPLOYMENT, cr)
            return
        for name in found:
            patch = {"spec": {"rollout": {"drain": f"{30 + turn % 2}s"}}}
            access.patch(kinds.R1PLUS_DEPLOYMENT, one.namespace, name, patch)
        world.loop.call_outside(BUSY_EDIT_SECONDS, lambda: edit(turn + 1))

    edit(1)


def _delete_serving(resource: Any) -> Callable[[World, Happening], None]:
    def act(world: World, one: Happening) -> None:
        access = Access(world.server, "platform")
        obj = access.read(resource, one.namespace, world.find_serving(one.namespace, one.name))
        if obj is not None:
            access.delete(resource, obj)

    return act


def _set_back(world: World, one: Happening) -> None:
    """Restore etcd as it was so many seconds before."""
    kept = [backup for at, backup in world.backups if at <= one.at - float(one.value)]
    if kept:
        world.set_back(kept[-1])


def _degrade_serving(world: World, one: Happening) -> None:
    if serving := world.find_serving(one.namespace, one.name):
        world.quality.revisions[one.namespace, serving] = int(float(one.value))


def _degrade_pod(world: World, one: Happening) -> None:
    for pod in sorted(_serving_pods(world, one), key=lambda pod: str(pod["metadata"]["name"]))[:1]:
        world.quality.pods[pod["metadata"]["uid"]] = int(float(one.value))


def _recover(world: World, one: Happening) -> None:
    for key in [key for key in world.quality.revisions if key[0] == one.namespace]:
        if world.oracle.owners.get(key) == one.name:
            del world.quality.revisions[key]


def _crash_pod(world: World, one: Happening) -> None:
    for pod in _serving_pods(world, one)[:1]:
        if (monitor := world.fleet.of_pod(pod["metadata"]["uid"])) is not None:
            world.cluster.crash(monitor, float(one.value))


def _vanish_pod(world: World, one: Happening) -> None:
    for pod in _serving_pods(world, one)[:1]:
        Access(world.server, "kubelet").delete(kinds.POD, pod, grace_seconds=0)


def _mute_monitor(world: World, one: Happening) -> None:
    for pod in _serving_pods(world, one):
        if (monitor := world.fleet.of_pod(pod["metadata"]["uid"])) is not None:
            monitor.silent_until = world.loop.time() + float(one.value)


def _fill_node(world: World, one: Happening) -> None:
    world.cluster.full_until = world.loop.time() + float(one.value)


def _serving_pods(world: World, one: Happening) -> list[Json]:
    pods = world.list_pods(one.namespace, world.find_serving(one.namespace, one.name))
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


# -- The operator ----------------------------------------------------------------------------------------------------


def _kill_leader(world: World, _: Happening) -> None:
    if (leader := world.find_leader()) is not None:
        leader.kill()


def _kill_after_writes(world: World, one: Happening) -> None:
    world.kill_after = int(float(one.value))


def _replace_pod(world: World, _: Happening) -> None:
    if (leader := world.find_leader()) is not None:
        leader.replace()


def _stall_leader(world: World, one: Happening) -> None:
    if (leader := world.find_leader()) is not None:
        leader.stall(float(one.value))


def _skew_leader(world: World, one: Happening) -> None:
    if (leader := world.find_leader()) is not None:
        leader.skew = float(one.value)


def _skew_node(world: World, one: Happening) -> None:
    world.cluster.skew = float(one.value)


def _partition_leader(world: World, one: Happening) -> None:
    if (leader := world.find_leader()) is not None:
        world.disturb(FaultKind.PARTITION, float(one.value), replicas=frozenset({leader.process}))


def _disturb(*faults: FaultKind, share: float = ERROR_RATE) -> Callable[[World, Happening], None]:
    def act(world: World, one: Happening) -> None:
        for fault in faults:
            world.disturb(fault, float(one.value), share=share / len(faults))

    return act


ACTIONS: Final[Mapping[str, Callable[[World, Happening], None]]] = {
    "set_context": _change_spec(lambda one: {"context": {"maxTokens": int(float(one.value))}}),
    "set_threshold": _change_spec(lambda one: {"accuracy": {"threshold": float(one.value)}}),
    "set_replicas": _change_spec(lambda one: {"replicas": int(float(one.value))}),
    "set_on_breach": _change_spec(lambda one: {"accuracy": {"onBreach": "Rollback" if one.value else "Alert"}}),
    "ack": _request(Verb.ACK),
    "pin": _request(Verb.PIN),
    "unpin": _request(Verb.UNPIN),
    "pin_for": _pin_for,
    "rollback": _request(Verb.ROLLBACK),
    "busy_namespace": _busy_namespace,
    "replace_cr": _replace_cr,
    "delete_serving_revision": _delete_serving(REVISION),
    "delete_deployment_of_serving": _delete_serving(DEPLOYMENT),
    "set_back": _set_back,
    "degrade_serving": _degrade_serving,
    "degrade_pod": _degrade_pod,
    "recover": _recover,
    "crash_pod": _crash_pod,
    "vanish_pod": _vanish_pod,
    "fill_node": _fill_node,
    "mute_monitor": _mute_monitor,
    "kill_leader": _kill_leader,
    "kill_after_writes": _kill_after_writes,
    "replace_pod": _replace_pod,
    "stall_leader": _stall_leader,
    "partition_leader": _partition_leader,
    "skew_leader": _skew_leader,
    "skew_node": _skew_node,
    "slow_network": _disturb(FaultKind.DELAY, FaultKind.EVENTS_LATE, share=2.0),
    "stall_events": _disturb(FaultKind.EVENTS_STALLED, share=1.0),
    "refuse_requests": _disturb(FaultKind.CONFLICT, FaultKind.TOO_MANY, FaultKind.SERVER_ERROR),
    "lose_answers": _disturb(
        FaultKind.TIMEOUT_BEFORE_WRITE,
        FaultKind.TIMEOUT_AFTER_WRITE,
        FaultKind.BROKEN_AFTER_WRITE,
        FaultKind.ERROR_AFTER_WRITE,
    ),
    "cut_streams": _disturb(FaultKind.STREAM_CUT, FaultKind.GONE),
}
"""What may happen, by the name that schedules have."""


def happen(world: World, one: Happening) -> None:
    """Let one thing happen."""
    world.note("schedule", f"{one.do} {one.namespace}/{one.name} {one.value}".replace(" / ", " "))
    ACTIONS[one.do](world, one)
