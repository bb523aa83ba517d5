"""A namespace's volumes over a life: claim, Job, delivered; and from wherever it starts it comes to rest."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Self

from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import Archive, FillOrder
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.observation import JOB_ENDED
from r1plus_operator.plan.settings import OperatorConfig, VolumeTerms
from r1plus_operator.plan.tenancy.volumes import (
    RETRY_FINAL_SECONDS,
    RETRY_SECONDS,
    VolumeNeed,
    VolumesObservation,
    VolumesPlan,
    plan_volumes,
    read_delivered_digest,
)
from support.plan.timed import Timed
from support.plan.world import CONFIG

BY_IMAGE = EngineVolume("r1plus-engine-a", FillOrder("full", "a" * 64, 300 * 2**20), "registry.local/full:1")
BY_ARCHIVE = EngineVolume(
    "r1plus-engine-b",
    FillOrder("lite", "b" * 64, 2**30, Archive("https://models.example:8443/lite.tar", "c" * 64)),
    node_selector={"gpu": "l40s"},
    tolerations=({"key": "gpu", "operator": "Exists"},),
)
CREDIT, TRIAGE = ("credit", "u-1"), ("triage", "u-2")
TERMS = replace(CONFIG, volumes=VolumeTerms(cidrs=("10.1.0.0/16", "10.2.0.0/16"), ca_pem="PEM", trusted_keys=("KEY",)))
Json = dict[str, Any]


@dataclass
class Namespace(Timed):
    """What there is in a namespace."""

    needs: dict[str, tuple[EngineVolume, set[tuple[str, str]]]] = field(default_factory=dict)
    live: dict[tuple[str, str], Json] = field(default_factory=dict)
    going: set[tuple[str, str]] = field(default_factory=set)
    now: float = 1000.0
    made: int = 0
    config: OperatorConfig = TERMS

    def need(self, volume: EngineVolume, *owners: tuple[str, str]) -> Self:
        self.needs[volume.name] = (volume, set(owners or (CREDIT,)))
        return self

    def seen(self) -> VolumesObservation:
        needs = tuple(VolumeNeed(volume, tuple(sorted(owners))) for _, (volume, owners) in sorted(self.needs.items()))
        return VolumesObservation("team", needs, dict(self.live), frozenset(self.going))

    def pass_once(self) -> VolumesPlan:
        planned = plan_volumes(self.seen(), self.config, self.now)
        for stage in (stage for stages in planned.apply.values() for stage in stages):
            for obj in stage:
                key = (obj["kind"], obj["metadata"]["name"])
                assert key not in self.going, "its place is taken"
                self.made += key not in self.live
                uid = self.live.get(key, {"metadata": {"uid": f"n-{self.made}"}})["metadata"]["uid"]
                assert obj["metadata"].get("uid", uid) == uid
                self.live[key] = {**obj, "metadata": {**obj["metadata"], "uid": uid}}
        for kind, name, uid in planned.delete:
            assert self.live.pop((kind, name))["metadata"]["uid"] == uid
        self.now += 1.0
        return planned

    def settle(self, limit: int = 6) -> VolumesPlan:
        for _ in range(limit):
            if not (planned := self.pass_once()).has_changes:
                return planned
        raise AssertionError(f"still writing after {limit} passes")

    def end(self, how: str, name: str = BY_IMAGE.name, *, final: bool = False) -> Self:
        """End the Job of a volume."""
        ended = {"type": how, "at": self.now, "final": final}
        self.live["Job", name] = {**self.live["Job", name], JOB_ENDED: ended}
        return self

    def kinds(self, name: str = BY_IMAGE.name) -> set[str]:
        return {kind for kind, of in self.live if of == name}

    def uid(self, kind: str, name: str = BY_IMAGE.name) -> str:
        return str(self.live[kind, name]["metadata"]["uid"])

    def delivered(self) -> str:
        return read_delivered_digest(self.live["PersistentVolumeClaim", BY_IMAGE.name])


ALL = {"PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "Job"}


def begun(*volumes: EngineVolume, config: OperatorConfig = TERMS) -> Namespace:
    """Return a namespace in which the Jobs of volumes run, by default of the one that is copied out of an image."""
    team = Namespace(config=config)
    for volume in volumes or (BY_IMAGE,):
        team.need(volume)
    team.settle()
    return team


def filled() -> Namespace:
    team = begun()
    team.end("Complete").settle()
    return team


def test_a_claim_then_its_policies_then_the_job_and_in_the_end_the_claim_alone() -> None:
    team = Namespace().need(BY_IMAGE)
    passes = [team.pass_once().apply[BY_IMAGE.name] for _ in range(2)]
    kinds = [[[obj["kind"] for obj in stage] for stage in stages] for stages in passes]
    assert kinds == [[["PersistentVolumeClaim"]], [["NetworkPolicy", "ConfigMap"], ["Job"]]]
    team.settle()
    assert team.delivered() == ""
    team.end("Complete").settle()
    assert team.kinds() == {"PersistentVolumeClaim"}
    assert team.delivered() == "a" * 64


def test_a_claim_that_was_lost_is_filled_again_and_no_old_job_speaks_for_it() -> None:
    team = filled()
    del team.live["PersistentVolumeClaim", BY_IMAGE.name]
    team.settle()
    assert team.kinds() == ALL
    old = team.uid("Job")
    team.end("Complete")
    del team.live["PersistentVolumeClaim", BY_IMAGE.name]
    team.settle()
    assert team.delivered() == ""
    assert team.uid("Job") != old


def test_a_job_that_gave_up_is_followed_by_another_after_a_while() -> None:
    team = begun()
    first = team.uid("Job")
    team.end("Failed")
    ended = team.now
    planned = team.settle()
    assert planned.requeue_after is not None
    assert team.uid("Job") == first
    team.now = ended + RETRY_SECONDS - 0.001
    assert team.pass_once().requeue_after is not None
    assert team.uid("Job") == first
    team.alter(now=ended + RETRY_SECONDS).settle()
    assert team.uid("Job") != first


def test_what_would_fail_again_is_tried_seldom_and_at_once_when_the_order_is_another() -> None:
    team = begun(BY_ARCHIVE)
    first = team.uid("Job", BY_ARCHIVE.name)
    team.end("Failed", BY_ARCHIVE.name, final=True).wait(RETRY_FINAL_SECONDS - 10).settle()
    assert team.uid("Job", BY_ARCHIVE.name) == first
    order = replace(BY_ARCHIVE.order, archive=Archive("https://elsewhere.example/lite.tar", "d" * 64))
    team.need(replace(BY_ARCHIVE, order=order)).settle()
    assert team.uid("Job", BY_ARCHIVE.name) != first
    assert "elsewhere" in team.live["ConfigMap", BY_ARCHIVE.name]["data"]["order.json"]


def test_an_empty_claim_that_is_too_small_makes_room_for_a_larger_one() -> None:
    team = begun()
    before = team.uid("PersistentVolumeClaim")
    larger = replace(BY_IMAGE, order=replace(BY_IMAGE.order, size=2**31))
    team.need(larger).settle()
    claim = team.live["PersistentVolumeClaim", BY_IMAGE.name]
    assert claim["metadata"]["uid"] != before
    assert bytes_of(claim["spec"]["resources"]["requests"]["storage"]) >= 1.1 * 2**31
    team.end("Complete").settle()
    team.need(replace(larger, order=replace(larger.order, size=2**32))).settle()
    assert team.delivered() == "a" * 64, "what is there fits"


def test_without_networks_nothing_is_fetched_and_no_policy_is_open() -> None:
    team = begun(BY_ARCHIVE, config=replace(TERMS, volumes=replace(TERMS.volumes, cidrs=())))
    assert team.kinds(BY_ARCHIVE.name) == {"PersistentVolumeClaim"}
    team.alter(config=TERMS).settle()
    assert team.kinds(BY_ARCHIVE.name) == ALL
    team.alter(config=replace(TERMS, volumes=replace(TERMS.volumes, cidrs=()))).settle()
    assert team.kinds(BY_ARCHIVE.name) == {"PersistentVolumeClaim"}, "a wall without networks would be open to all"


def test_the_job_prefers_where_the_pods_have_room() -> None:
    team = begun(replace(BY_IMAGE, nodes=("n1", "n2")))
    affinity = team.live["Job", BY_IMAGE.name]["spec"]["template"]["spec"]["affinity"]
    (preferred,) = affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchExpressions"][0]["values"] == ["n1", "n2"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity["podAffinity"]


def test_a_job_that_runs_is_not_stopped_by_an_upgrade() -> None:
    team = begun()
    volumes = replace(TERMS.volumes, storage_class="x")
    team.alter(config=replace(team.config, monitor_image="registry.local/monitor:2", volumes=volumes)).settle()
    assert team.made == 4


def test_a_volume_stays_while_any_history_needs_it() -> None:
    team = filled()
    team.need(BY_IMAGE, CREDIT, TRIAGE).settle()
    claim = team.live["PersistentVolumeClaim", BY_IMAGE.name]
    assert [owner["uid"] for owner in claim["metadata"]["ownerReferences"]] == ["u-1", "u-2"]
    assert all("controller" not in owner for owner in claim["metadata"]["ownerReferences"])
    team.need(BY_IMAGE, TRIAGE).settle()
    owners = team.live["PersistentVolumeClaim", BY_IMAGE.name]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["u-2"]
    assert team.delivered() == "a" * 64
    team.needs.clear()
    team.settle()
    assert team.live == {}


def test_what_is_no_longer_needed_goes_in_the_middle_too() -> None:
    team = begun()
    assert team.live
    team.needs.clear()
    team.settle()
    assert team.live == {}


def test_a_place_that_is_taken_by_something_that_goes_is_waited_for() -> None:
    team = Namespace().need(BY_IMAGE)
    team.going = {("PersistentVolumeClaim", BY_IMAGE.name)}
    assert not team.pass_once().has_changes
    team.alter(going={("Job", BY_IMAGE.name)}).settle()
    assert team.kinds() == ALL - {"Job"}
    team.alter(going=set()).settle()
    assert team.kinds() == ALL


def test_two_volumes_are_two_volumes() -> None:
    team = begun(BY_IMAGE, BY_ARCHIVE)
    assert team.kinds() == team.kinds(BY_ARCHIVE.name) == ALL
    team.end("Complete", BY_ARCHIVE.name).settle()
    assert (team.kinds(), team.kinds(BY_ARCHIVE.name)) == (ALL, {"PersistentVolumeClaim"})


def test_the_policies_open_the_archives_port_to_the_listed_networks_and_nothing_more() -> None:
    team = begun(BY_ARCHIVE, BY_IMAGE)
    policies = team.live["NetworkPolicy", BY_ARCHIVE.name]["spec"]
    dns, out = policies["egress"]
    assert [port["port"] for port in dns["ports"]] == [53, 5353, 53, 5353]
    assert out["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert out["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}, {"ipBlock": {"cidr": "10.2.0.0/16"}}]
    assert policies["policyTypes"] == ["Ingress", "Egress"]
    (operator,) = policies["ingress"]
    assert operator["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "r1plus-system"}}}
    ]
    assert operator["ports"] == [{"protocol": "TCP", "port": names.PORT_MONITOR}]
    pod = team.live["Job", BY_ARCHIVE.name]["spec"]["template"]
    selector = policies["podSelector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    assert team.live["NetworkPolicy", BY_IMAGE.name]["spec"]["egress"] == [], "an image comes by the kubelet"


def test_where_no_signature_is_needed_no_key_is_named() -> None:
    team = begun(BY_IMAGE, config=replace(TERMS, volumes=VolumeTerms(require_signature=False, trusted_keys=("KEY",))))
    assert json.loads(team.live["ConfigMap", BY_IMAGE.name]["data"]["order.json"])["keys"] is None


def test_the_job_runs_where_the_pods_may_and_with_nothing_but_the_volume() -> None:
    team = begun(BY_ARCHIVE, BY_IMAGE)
    pod = team.live["Job", BY_ARCHIVE.name]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "l40s"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["automountServiceAccountToken"] is False
    assert "initContainers" not in pod
    assert [c["name"] for c in pod["containers"]] == [names.CONTAINER_FILL]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert team.live["ConfigMap", BY_ARCHIVE.name]["data"]["ca.pem"] == "PEM"
    assert json.loads(team.live["ConfigMap", BY_ARCHIVE.name]["data"]["order.json"])["keys"] == ["KEY"]
    copies = team.live["Job", BY_IMAGE.name]["spec"]["template"]["spec"]["initContainers"]
    assert [c["image"] for c in copies] == ["registry.local/full:1"]


EVENTS = st.lists(
    st.sampled_from(
        ["complete", "fail", "lose claim", "lose job", "lose walls", "later", "pass", "owner", "drop", "need"]
    ),
    max_size=30,
)


@given(events=EVENTS)
def test_from_wherever_it_is_it_comes_to_rest_and_to_the_engine(events: list[str]) -> None:
    team = Namespace().need(BY_IMAGE)
    for event in events:
        _happen(team, event)
    team.need(BY_IMAGE).wait(RETRY_SECONDS).settle()
    if ("Job", BY_IMAGE.name) in team.live:
        team.end("Complete")
    team.settle()
    assert team.kinds() == {"PersistentVolumeClaim"}
    assert team.delivered() == "a" * 64


def _happen(team: Namespace, event: str) -> None:
    name = BY_IMAGE.name
    lost = {"lose claim": "PersistentVolumeClaim", "lose job": "Job", "lose walls": "NetworkPolicy"}
    if event in ("complete", "fail"):
        if ("Job", name) in team.live:
            team.end("Complete" if event == "complete" else "Failed")
    elif event in lost:
        team.live.pop((lost[event], name), None)
    elif event == "later":
        team.now += RETRY_SECONDS / 2
    elif event == "owner":
        team.need(BY_IMAGE, CREDIT, TRIAGE)
    elif event == "drop":
        team.needs.clear()
    elif event == "need":
        team.need(BY_IMAGE, TRIAGE)
    else:
        team.pass_once()
