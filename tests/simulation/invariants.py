"""Who judges a run: what the promises' checks (`promises`) remember of it, and the first that is broken."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from r1plus_contract import names
from r1plus_contract.requests import ANNOTATION_COUNT
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.api import kinds
from r1plus_operator.runtime.lease import LEASE
from r1plus_policies.gate.verdict import rejudge
from simulation.readings import Json, Key, count_ready, is_checkpoint, is_ready, list_dropped, read_spec, read_switch
from simulation.world import REVISION, World
from support.simulation.server import Change

SPEC_SECONDS: Final = 60.0
"""How long the operator may go on by a spec that was just changed: a pass is under way, or a stream was cut."""
READY_SECONDS: Final = 60.0
"""How long a pod that was Ready may be taken for Ready."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    invariant: str
    sentence: str
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a revision may not take traffic, and what the people had asked for by then."""

    at: float
    decided_at: str
    allowed: int
    """Items that it was allowed to lose."""
    generation: int
    order: int
    """Number of the newest request."""


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit of a spec that the operator has not followed yet."""

    generation: int
    at: float


@dataclass(frozen=True, slots=True)
class Promises:
    """The functions that judge, by when they do."""

    safety: tuple[Callable[["Judge", Change, str], str], ...]
    """After each write."""
    liveness: tuple[Callable[["Judge"], str], ...]
    """Every few seconds."""
    at_end: tuple[Callable[["Judge"], str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The functions' names."""
        return tuple(one.__name__ for one in (*self.safety, *self.liveness, *self.at_end))


@dataclass
class Judge:
    """Calls the invariants, and remembers what they need. The first violation ends the run."""

    world: World
    promises: Promises
    only: frozenset[str] = frozenset()
    """Names of the invariants that count; empty: all."""
    found: Violation | None = None
    tried: dict[str, int] = field(default_factory=dict)
    """Invariant -> how often it was tried: where its condition held."""
    drops: set[tuple[str | Key, ...]] = field(default_factory=set)
    """Invariant, R1PlusDeployment and pods of the drops that were counted."""
    thresholds: dict[Key, list[tuple[float, float]]] = field(default_factory=dict)
    """R1PlusDeployment -> when each of its thresholds was set."""
    orders: dict[Key, int] = field(default_factory=dict)
    """R1PlusDeployment -> number of the newest request that there ever was."""
    uids: dict[str, set[str]] = field(default_factory=dict)
    """Namespace -> uids of the R1PlusDeployments that there ever were in it."""
    ready_at: dict[Key, float] = field(default_factory=dict)
    """Revision -> when a pod of it that was Ready changed last."""
    refusals: dict[Key, Refusal] = field(default_factory=dict)
    """Revision -> its newest Fail, as the operator has recorded it."""
    rollbacks: dict[Key, Refusal] = field(default_factory=dict)
    """Revision -> when it was rolled back from."""
    promotions: dict[Key, frozenset[GateReport]] = field(default_factory=dict)
    """Revision that took traffic under `Enforce` -> its Passes by then, while its record lasts."""
    edits: dict[Key, Edit] = field(default_factory=dict)
    """R1PlusDeployment of the schedule -> its newest edit that waits, made while another namespace was busy."""
    dropped: list[tuple[Key, list[str]]] = field(default_factory=list)
    """What `list_dropped` found at the last look."""
    leader: str = ""
    """Process that led at the last look."""
    sound_since: float = 0.0
    """Since when one leader has run without a fault."""
    holding: dict[tuple[str, Key], tuple[list[str], float]] = field(default_factory=dict)
    """What holds of which R1PlusDeployment -> for which pods, and since when."""
    quarantine_ended_at: float = float("-inf")
    """When a pod in quarantine was deleted last: the next bad pod has its turn then."""
    latched: dict[tuple[str, str], float] = field(default_factory=dict)
    """Pod and suite -> when its monitor last reported the drop that it had counted, for as long as the pod lasts."""
    wrote_at: float = 0.0
    """When the operator wrote something last, its Lease apart."""
    last_write: str = ""
    set_back_at: float = float("-inf")
    """When etcd was set back last: for a while the Lease and the readiness of pods are those of before."""

    def on_change(self, change: Change, sender: str) -> None:
        """Judge a write; `sender` is the operator's process that sent it, or empty."""
        if change.resource == LEASE:
            return  # Half of all writes, and no promise is about one.
        self._learn(change, sender)
        for invariant in self.promises.safety:
            self._try(invariant, change, sender)

    def on_set_back(self) -> None:
        """Learn what etcd has after it was set back, since no event says so. Nobody can know what it has forgotten."""
        self.set_back_at, server = self.now, self.world.server
        pods = {pod["metadata"]["uid"] for pod in server.list_objects(kinds.POD)}
        self.latched = {what: at for what, at in self.latched.items() if what[0] in pods}
        self.orders.clear()
        self.edits.clear()
        for cr in server.list_objects(kinds.R1PLUS_DEPLOYMENT):
            self._learn_cr(cr)
        for key in {*self.refusals, *self.rollbacks, *self.promotions}:
            if (stored := server.read(REVISION, *key)) is None:
                self.refusals.pop(key, None)
                self.rollbacks.pop(key, None)
                self.promotions.pop(key, None)
            else:
                self.world.oracle.record_revision(stored)
                self._learn_revision(key)

    def on_tick(self) -> None:
        """Judge what should have come by now."""
        self.world.oracle.look(self.world.loop.time())
        self._look_at_leader()
        self.dropped = list_dropped(self.world)
        for invariant in self.promises.liveness:
            self._try(invariant)

    def on_end(self) -> None:
        """Judge what the world has come to."""
        for invariant in self.promises.at_end:
            self._try(invariant)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.world.loop.time()

    def count(self, invariant: str) -> None:
        """Count that an invariant's condition has held."""
        self.tried[invariant] = self.tried.get(invariant, 0) + 1

    def count_drop(self, invariant: str, key: Key, pods: list[str]) -> None:
        """Count that an invariant's condition has held of a drop of these pods; the same drop counts once."""
        if pods and (case := (invariant, key, *pods)) not in self.drops:
            self.drops.add(case)
            self.count(invariant)

    def held_for(self, holds: bool, what: str, key: Key, pods: list[str]) -> float:
        """Return for how many seconds something has held of a deployment, for the same pods; 0 if it does not."""
        if not holds:
            self.holding.pop((what, key), None)
            return 0.0
        before = self.holding.get((what, key))
        if before is None or before[0] != pods:
            before = self.holding[what, key] = pods, self.now
        return self.now - before[1]

    def was_ready(self, namespace: str, revision: str) -> bool:
        """Return whether a pod of a revision is Ready, or was a moment ago: the operator may not know better."""
        is_recent = self.now - self.ready_at.get((namespace, revision), float("-inf")) <= READY_SECONDS
        return is_recent or count_ready(self.world, namespace, revision) > 0

    def thresholds_in_force(self, key: Key) -> list[float]:
        """Return the thresholds by which the operator may judge now."""
        history = self.thresholds.get(key, [])
        return [
            threshold
            for n, (_, threshold) in enumerate(history)
            if n + 1 == len(history) or history[n + 1][0] > self.now - SPEC_SECONDS
        ]

    def _try(self, invariant: Callable[..., str], *about: object) -> None:
        name = invariant.__name__
        if self.found is not None or (self.only and name not in self.only):
            return
        if text := invariant(self, *about):
            self.found = Violation(name, " ".join((invariant.__doc__ or "").split()), self.now, text)

    def _learn(self, change: Change, sender: str) -> None:
        obj = change.after or change.before or {}
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        kind = change.resource.kind
        if sender and kind != kinds.EVENT.kind and not is_checkpoint(change):
            self.wrote_at, self.last_write = self.now, f"{change.verb} {kind} {key[0]}/{key[1]}"
        if kind == names.KIND_DEPLOYMENT and change.after is not None:
            self._learn_cr(change.after)
            if not sender:
                self._learn_edit(key, change.before, change.after)
        elif kind == "Pod" and change.before is not None:
            self._learn_pod(change.before, is_deleted=change.after is None)
        elif kind == "ControllerRevision" and change.after is not None:
            self._learn_revision(key)
        elif kind == "ControllerRevision":
            self.promotions.pop(key, None)
        elif (switch := read_switch(change, sender)) is not None:
            self._learn_promotion(switch[0], switch[2])

    def _learn_cr(self, cr: Json) -> None:
        meta = cr["metadata"]
        key = (meta["namespace"], meta["name"])
        self.uids.setdefault(key[0], set()).add(meta["uid"])
        threshold = cr["spec"].get("accuracy", {}).get("threshold", 0.98)
        history = self.thresholds.setdefault(key, [])
        if not history or history[-1][1] != threshold:
            history.append((self.now, threshold))
        count = (meta.get("annotations") or {}).get(ANNOTATION_COUNT, "0")
        self.orders[key] = max(self.orders.get(key, 0), int(count))

    def _learn_edit(self, key: Key, before: Json | None, after: Json) -> None:
        generation = int(after["metadata"].get("generation", 0))
        if before is None or generation == before["metadata"].get("generation"):
            return
        if key in self.world.deployments and self.world.is_busy_beside(key[0]):
            self.count("edits_pass_busy_namespaces")
            self.edits[key] = Edit(generation, self.now)

    def _learn_promotion(self, key: Key, revision: str) -> None:
        self.world.oracle.look(self.now)
        is_enforced = read_spec(self.world, key).get("accuracy", {}).get("gate", "Enforce") == "Enforce"
        terms = self.thresholds_in_force(key)
        passes = (gate.report for gate in self.world.oracle.gates_of(key[0], revision))
        found = frozenset(p for p in passes if any(rejudge(p, t) is Verdict.PASS for t in terms))
        if found and is_enforced:
            self.promotions[key[0], revision] = found
        else:
            self.promotions.pop((key[0], revision), None)

    def _look_at_leader(self) -> None:
        """Note since when the operator has been sound."""
        leader = self.world.find_leader()
        process = leader.process if leader is not None and leader.is_leader else ""
        is_stalled = self.world.loop.is_frozen(process)
        is_fresh = self.now - self.set_back_at < SPEC_SECONDS
        if not process or process != self.leader or is_stalled or is_fresh or not self.world.faults.is_calm:
            self.sound_since = self.now
        self.leader = process

    def _learn_pod(self, before: Json, *, is_deleted: bool) -> None:
        meta = before["metadata"]
        if is_ready(before):
            self.ready_at[meta["namespace"], (meta.get("labels") or {}).get(names.LABEL_REVISION, "")] = self.now
        if is_deleted and (meta.get("labels") or {}).get(names.LABEL_SERVING) == names.QUARANTINED:
            self.quarantine_ended_at = self.now
        if is_deleted:  # With its state folder. A pod that a restore of etcd brings back begins with an empty one.
            self.latched = {what: at for what, at in self.latched.items() if what[0] != meta["uid"]}

    def _learn_revision(self, key: Key) -> None:
        revision = self.world.oracle.revisions.get(key)
        if revision is None:
            return
        owner = (key[0], self.world.oracle.owners.get(key, ""))
        fails = [v for v in revision.verdicts if v.verdict is Verdict.FAIL]
        if fails and revision.verdicts[-1] is fails[-1]:
            known = self.refusals.get(key)
            if known is None or known.decided_at != fails[-1].decided_at:
                self.refusals[key] = self._refuse(owner, fails[-1].decided_at, fails[-1].allowed)
        elif not fails:
            self.refusals.pop(key, None)
        record = revision.rollback
        if record is not None and record.switched_at is not None and key not in self.rollbacks:
            self.rollbacks[key] = self._refuse(owner, str(record.switched_at), 0)
        elif record is None or record.switched_at is None:
            self.rollbacks.pop(key, None)

    def _refuse(self, owner: Key, decided_at: str, allowed: int) -> Refusal:
        cr = self.world.read_cr(*owner)
        generation = int(cr["metadata"].get("generation", 0)) if cr else 0
        return Refusal(self.now, decided_at, allowed, generation, self.orders.get(owner, 0))
