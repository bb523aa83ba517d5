"""A seed's schedule: what a world begins with, and what happens to it when. Plain data, so that it can be kept and cut.

The schedule decides nothing else: latencies and the order of what happens at once follow from its seed (`world`).
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
ITEMS: Final = 24
"""Of the suite; a threshold of 0.9 lets two be lost."""
THRESHOLDS: Final = (0.9, 0.8999, 0.8999, 0.95, 0.98)
CONTEXTS: Final = (2048, 1536, 1024, 768, 512)
TENANTS: Final = ("team-a", "team-b")
DEPLOYMENTS: Final = ("credit", "fraud")
CALM_SECONDS: Final = 1800.0
"""After the last fault."""
FIRST_SECONDS: Final = 120.0
"""Until the first event: by then most first revisions serve."""
LONGEST_SECONDS: Final = 1200.0
"""Until the last event."""
LEAST_FAULTS: Final = 3
SWARM: Final = 4
"""Kinds of trouble that one deployment has."""


class ScheduleError(ValueError):
    """A schedule that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happens to the world."""

    at: float
    """Seconds from the start."""
    do: str
    """A key of `world.ACTIONS`."""
    namespace: str = ""
    name: str = ""
    """Of an R1PlusDeployment, where it concerns one."""
    value: float | str = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """One R1PlusDeployment as it is at the start."""

    namespace: str
    name: str
    spec: Mapping[str, Any]
    lost: Mapping[str, int] = field(default_factory=dict)
    """`spec.context.maxTokens` -> items that such a revision loses from the start."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole run."""

    seed: int
    starts: tuple[Start, ...]
    happenings: tuple[Happening, ...]
    version: int = VERSION

    @property
    def end(self) -> float:
        """When the run ends, in seconds."""
        return max((one.at + _length(one) for one in self.happenings), default=FIRST_SECONDS) + CALM_SECONDS

    def without(self, indices: set[int]) -> "Schedule":
        """Return the schedule without these happenings."""
        return replace(self, happenings=tuple(one for n, one in enumerate(self.happenings) if n not in indices))


FAULTS: Final[Mapping[str, Sequence[float]]] = {
    "kill_leader": (0.0,),
    "kill_after_writes": (1.0, 2.0, 3.0, 5.0),
    "replace_pod": (0.0,),
    "stall_leader": (4.0, 20.0, 45.0),
    "partition_leader": (8.0, 30.0),
    "skew_leader": (-3600.0, 120.0, 3600.0),
    "skew_node": (-3600.0, 0.0, 3600.0),
    "slow_network": (20.0, 60.0),
    "refuse_requests": (10.0, 40.0),
    "lose_answers": (10.0, 40.0),
    "cut_streams": (10.0, 60.0),
    "stall_events": (20.0, 90.0),
}
"""What happens to the operator, with values to draw from: seconds, or what the name says."""

TROUBLES: Final[Mapping[str, tuple[float, Sequence[float]]]] = {
    # What people and GitOps tools do.
    "set_context": (5.0, tuple(map(float, CONTEXTS))),
    "set_threshold": (4.0, THRESHOLDS),
    "set_replicas": (1.5, (1.0, 2.0, 3.0)),
    "set_on_breach": (0.5, (0.0, 1.0)),
    "ack": (1.5, (0.0,)),
    "pin": (0.5, (0.0,)),
    "unpin": (1.0, (0.0,)),
    "pin_for": (2.0, (20.0, 200.0)),
    "rollback": (0.7, (0.0,)),
    "replace_cr": (2.0, (0.0,)),
    "busy_namespace": (0.7, (60.0, 200.0)),
    "delete_serving_revision": (1.5, (0.0,)),
    "delete_deployment_of_serving": (0.5, (0.0,)),
    "set_back": (0.3, (60.0, 600.0)),
    # What happens to pods and engines.
    "degrade_serving": (5.0, (3.0, 8.0, 12.0)),
    "degrade_pod": (1.5, (8.0,)),
    "recover": (1.0, (0.0,)),
    "crash_pod": (1.5, (5.0, 60.0)),
    "vanish_pod": (1.5, (0.0,)),
    "fill_node": (1.5, (120.0, 1500.0)),
    "mute_monitor": (1.0, (30.0, 200.0)),
}
"""Weight and values of what happens around the operator."""


def _length(one: Happening) -> float:
    """Return for how many seconds a happening lasts."""
    lasts = one.do in ("stall_leader", "partition_leader", "slow_network", "refuse_requests", "lose_answers",
                       "cut_streams", "stall_events", "fill_node", "busy_namespace", "mute_monitor", "crash_pod")  # fmt: skip
    return float(one.value) if lasts else 0.0


def draw_schedule(seed: int) -> Schedule:
    """Draw the schedule of a seed."""
    rand = random.Random(seed)
    starts = tuple(_draw_start(rand, ns, name) for ns in TENANTS for name in DEPLOYMENTS)
    happenings = [one for start in starts for one in _draw_troubles(rand, start)]
    faults = rand.randint(LEAST_FAULTS, LEAST_FAULTS + 3)
    for _ in range(faults):
        do = rand.choice(sorted(FAULTS))
        at = round(rand.uniform(5.0, LONGEST_SECONDS), 1)
        happenings.append(Happening(at, do, value=rand.choice(FAULTS[do])))
    return Schedule(seed, starts, tuple(sorted(happenings, key=lambda one: one.at)))


def _draw_start(rand: random.Random, namespace: str, name: str) -> Start:
    contexts = list(CONTEXTS)
    rand.shuffle(contexts)
    lost = {str(context): rand.choice((0, 0, 0, 1, 1, 2, 3, 3, 8)) for context in contexts}
    lost[str(contexts[0])] = rand.choice((0, 1, 1))
    spec = {
        "tier": "full",
        "replicas": rand.choice((1, 1, 2)),
        "context": {"maxTokens": contexts[0]},
        "accuracy": {
            "threshold": 0.9,
            "gate": "Enforce" if rand.random() < 0.85 else "Observe",
            "onBreach": "Rollback" if rand.random() < 0.85 else "Alert",
            "probesPerMinute": rand.choice((6, 12)),
        },
        "rollout": {"deadline": rand.choice(("10m", "1h")), "drain": "30s"},
    }
    return Start(namespace, name, spec, lost)


def _draw_troubles(rand: random.Random, start: Start) -> list[Happening]:
    """Draw what happens to one deployment: a chain, each link some minutes after the one before."""
    found, at = [], FIRST_SECONDS
    # Few kinds, each several times: what needs three things in a row is rare among all kinds (swarm testing).
    kinds, weights = list(TROUBLES), [weight for weight, _ in TROUBLES.values()]
    swarm: list[str] = []
    while len(swarm) < SWARM:
        kind = rand.choices(kinds, weights)[0]
        swarm += [kind] if kind not in swarm else []
    for _ in range(rand.randint(4, 8)):
        at += rand.choice((5.0, 30.0, 120.0, 200.0, 400.0)) * rand.uniform(0.5, 1.5)
        if at > LONGEST_SECONDS:
            break
        do = rand.choices(swarm, [TROUBLES[kind][0] for kind in swarm])[0]
        found.append(Happening(round(at, 1), do, start.namespace, start.name, rand.choice(TROUBLES[do][1])))
    return found


def write_schedule(schedule: Schedule, path: Path, **notes: Any) -> None:
    """Write a schedule, with notes for people."""
    path.write_text(json.dumps({**notes, **asdict(schedule)}, indent=1) + "\n")


def read_schedule(path: Path) -> tuple[Schedule, dict[str, Any]]:
    """Read a schedule and its notes.

    Raises:
        ScheduleError: the file is none, or of another version of the simulation.
    """
    try:
        document = json.loads(path.read_text())
        version = document.pop("version")
        if version != VERSION:
            raise ScheduleError(
                f"{path.name}: a schedule of version {version}; this simulation reads version {VERSION}."
                " Find its failure again by its seed, or check out the commit that wrote it."
            )
        schedule = Schedule(
            int(document.pop("seed")),
            tuple(Start(**one) for one in document.pop("starts")),
            tuple(Happening(**one) for one in document.pop("happenings")),
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ScheduleError(f"{path.name}: no schedule: {error!r}") from error
    return schedule, document
