"""A tenant's namespace is deleted, with the operator down, and made again under its name for somebody else.

The last file, since B is gone afterwards.
"""

import time
from dataclasses import dataclass, replace

import jwt
import pytest

from e2e import chart, gateways, objects, story
from e2e.command_line import run_r1plus
from e2e.gateways import ApiKey
from e2e.isolation.cases import core, of, ours
from e2e.isolation.gateway_calls import call, copy_volume, open_copy
from e2e.isolation.matrix import Trial
from e2e.isolation.people import Answer, Ask, Person
from e2e.isolation.registry import Registry, history
from e2e.isolation.stage import (
    INTRUDER,
    Side,
    World,
    account,
    binding,
    gateway_of,
    make_namespace,
    person,
    user,
)
from e2e.waiting import StoryError, wait_for
from r1plus_contract.gateway import GATEWAY_ADMIN
from r1plus_contract.history import AUDIENCE, Histories
from r1plus_contract.jsonable import loads
from r1plus_contract.names import FINALIZER_TENANT, TENANT

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

READER = f"{chart.RELEASE}-registry-reader"
"""Who may read all that the registry has, of what has ended too."""
KINDS = (
    *(lambda ns, plural=plural: core(ns, plural) for plural in ("secrets", "configmaps", "persistentvolumeclaims", "pods")),
    *(lambda ns, plural=plural: of("apps", ns, plural) for plural in ("controllerrevisions", "deployments")),
    lambda ns: ours(ns, "r1plusdeployments"),
)  # fmt: skip


def volumes(world: World, namespace: str) -> list[str]:
    """PersistentVolumes that were a namespace's."""
    answer = world.platform.ask(Ask("GET", "/api/v1/persistentvolumes"))
    return [
        v["metadata"]["name"]
        for v in answer.json["items"]
        if v["spec"].get("claimRef", {}).get("namespace") == namespace
    ]


def inventory(who: Person, namespace: str) -> dict[str, str]:
    """Everything that somebody may read there: uid to text."""
    found = {}
    for path in KINDS:
        answer = who.ask(Ask("GET", path(namespace)))
        assert answer.done, answer
        for item in answer.json["items"]:
            if item["metadata"]["name"] not in ("kube-root-ca.crt", "default"):
                found[item["metadata"]["uid"]] = str(item)
    return found


@dataclass(frozen=True, slots=True)
class FormerGateway:
    """What the old tenant's people keep of their gateway: a key, a token of its administrator, a copy of its data."""

    key: ApiKey
    token: str
    """Valid for ten minutes, also after its account has gone."""
    copy: str
    url: str

    @classmethod
    def of(cls, world: World, side: Side) -> "FormerGateway":
        with gateways.reach(world.target, side.namespace) as url:
            key = gateways.create_key(world.kube, side.namespace, "kept")
            return cls(key, create_admin_token(world, side), copy_volume(side), url)

    def get(self) -> tuple[Answer, Answer]:
        """Call the gateway of that name with both, as it is now."""
        return _call(self.url, "/v1/key", self.key.secret), _call(self.url, "/v1/admin/keys", self.token)


def create_admin_token(world: World, side: Side) -> str:
    """As `r1plus key` makes one."""
    return gateways.create_token(world.kube, side.namespace, GATEWAY_ADMIN)


def _call(url: str, path: str, credential: str) -> Answer:
    answer = call(url, path, credential)
    return Answer(answer.status_code, answer.text)


@pytest.mark.vector(36)
def test_a_name_that_is_made_again_inherits_nothing(world: World, trial: Trial) -> None:
    old, neighbour = world.b, story.serving_revision(world.kube, world.a.name)
    export = gateways.export_path(world.kube, old.namespace)
    former = FormerGateway.of(world, old)
    before = inventory(old.admin, old.namespace)
    told = Registry.of(world, old).get(gates(old))
    trial.by("bob", old.admin.name())
    trial.open("its administrator reads what it has", any(old.canary in text for text in before.values()), list(before))
    trial.open("and what the registry has kept of it", told.done and old.canary in told.text, told)
    trial.open("its gateway takes its key and its administrator's token", all(one.done for one in former.get()))
    seen = open_copy(old.gateway(), former.copy)
    trial.open("it opens a copy of its data", former.key.id in seen.said, seen)
    assert volumes(world, old.namespace)

    with chart.operator_down(world.kube):
        world.kube.kubectl("delete", "namespace", old.namespace, "--wait=false")
        wait_for(lambda: held_by_its_tenant(world, old.namespace), "what is left waits for the operator")
    wait_for(lambda: world.kube.get("namespaces", None, old.namespace) is None, "it is gone")

    carol = again(world, old)
    asked = readings(world, carol)
    found = inventory(carol.admin, old.namespace)
    trial.shut("objects of the old one's", not set(found) & set(before), set(found) & set(before))
    trial.shut("words of the old one's", not any(old.canary in text for text in found.values()), list(found))
    shown = [answer for answer in asked if old.canary in answer.text or '"verdict"' in answer.text]
    trial.shut("what the registry has kept of the old one", asked and not shown, shown[:1])
    wait_for(lambda: len(volumes(world, old.namespace)) == 1, "its volumes are gone, and the new gateway has one")
    gateways.until_ready(world.kube, old.namespace, print)
    with gateways.reach(world.target, old.namespace) as url:
        former = replace(former, url=url)
        assert wait_for(lambda: _call(url, "/v1/admin/keys", create_admin_token(world, carol)).done, "carol is let in")
        refused = former.get()
    assert time.time() < read_expiry(former.token), "it took longer than the old token lives"
    trial.shut("a key and a token of the old gateway", {one.status for one in refused} == {401}, refused)
    opened = open_copy(carol.gateway(), former.copy)
    trial.shut("a copy of the old data", opened.said == "ForeignTenant", opened)
    words = ("tenant", "init", "-n", old.namespace, "--from", str(export))
    with pytest.raises(StoryError, match="of a namespace that was deleted, do not open here"):
        run_r1plus(world.kube, *words)
    stale = Registry(world, old.token)
    answer = stale.get(history(old))
    trial.shut("a token of the old one's account", answer.status == 401, answer)
    assert story.serving_revision(world.kube, world.a.name) == neighbour
    assert story.ready_pod(world.kube, world.a.name), "the other tenant serves"


def read_expiry(token: str) -> float:
    """When a token ends, in seconds since the epoch."""
    return float(jwt.decode(token, options={"verify_signature": False})["exp"])


def held_by_its_tenant(world: World, namespace: str) -> bool:
    """Whether nothing of the tenant's runs any more, and its R1PlusTenant waits for the operator to take off its finalizer."""
    found = world.kube.get("r1plustenants", namespace, TENANT)
    waits = found is not None and found["metadata"].get("deletionTimestamp")
    held = waits and FINALIZER_TENANT in found["metadata"]["finalizers"] if found is not None else False
    return held and not world.kube.all("pods", namespace)


def again(world: World, old: Side) -> Side:
    """The same name, made by the platform team for carol."""
    kube, namespace = world.kube, old.namespace
    make_namespace(kube, namespace)
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": INTRUDER, "namespace": namespace}})
    own = [{"kind": "User", "name": "carol"}, {"kind": "ServiceAccount", "name": INTRUDER}]
    kube.apply(binding("administers", namespace, "admin", [user("carol"), account(INTRUDER, namespace)]))
    kube.apply(objects.tenant(namespace, admins=own, quota={"pods": 12}, gateway=gateway_of(namespace)))
    gateways.init_tenant(kube, namespace, print)
    new = Side(kube, namespace, "carol", person(world.target, "carol"), "canary-of-carol", old.suite)
    wait_for(
        lambda: new.admin.ask(Ask("GET", ours(namespace, "r1plusdeployments"))).done,
        "carol administers",
    )
    return new


def gates(side: Side) -> str:
    """Where all gates of a namespace are told, item by item."""
    return f"/v1/evaluations?namespace={side.namespace}&items=1"


def readings(world: World, new: Side) -> list[Answer]:
    """What the registry tells the new tenant, from the first moment until it knows that the old one has ended, and then."""
    words = ("create", "token", READER, f"--namespace={chart.NAMESPACE}", f"--audience={AUDIENCE}")
    theirs, all_seeing = Registry.of(world, new), Registry(world, world.kube.kubectl(*words).strip())
    paths = (history(new), gates(new))
    told: list[Answer] = []

    def ended() -> bool:
        told.extend(theirs.get(path) for path in paths)
        known = loads(Histories, all_seeing.get(paths[0]).text).items
        return bool(known) and all(one.ended for one in known)

    wait_for(ended, "the registry knows that the old one has ended", period_s=0.2)
    told.extend(theirs.get(path) for path in paths)
    return [answer for answer in told if answer.done]
