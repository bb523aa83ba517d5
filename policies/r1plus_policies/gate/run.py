"""The gate as a state machine: fed with scores, it says which probes come next and, in the end, what it decided.

Called by the monitor's prober, which owns time and the network; nothing here waits or asks. The order of every sweep
comes from a seed, so a prober that restarts rebuilds the run from its `GateRecord` and asks only what is missing.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from r1plus_policies.gate.verdict import (
    FAILS_TO_LOSE,
    SINGLE_ASKS,
    GateItem,
    ItemScores,
    Judgement,
    Rules,
    Score,
    Stage,
    judge,
)

SINGLE: Final = -1
"""Number of the sweep at batch 1."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to ask now. `sweep` counts from 0; -1 is the sweep at batch 1."""

    item: str
    sweep: int
    attempt: int = 0
    """How often this very probe came back without a score."""


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A run as it is stored: per item a string of `Score` characters, `.` where a full sweep has not scored it."""

    seed: int
    full: dict[str, str] = field(default_factory=dict)
    single: dict[str, str] = field(default_factory=dict)


class GateRun:
    """One gate, from the first probe to the decision."""

    def __init__(self, items: Sequence[GateItem], rules: Rules, record: GateRecord) -> None:
        """Start, or go on where `record` stands. Scores of items that the suite does not hold are refused."""
        if not items:
            raise ValueError("items: a gate needs at least one")
        self.rules = rules
        self._seed = record.seed
        self._items = {item.id: item for item in items}
        if strangers := (record.full.keys() | record.single.keys()) - self._items.keys():
            raise ValueError(f"record: item {min(strangers)} is not in the suite")
        self._full: dict[str, list[Score | None]] = {i: self._row(record.full.get(i, "")) for i in self._items}
        self._single: dict[str, list[Score]] = {i: [Score(c) for c in record.single.get(i, "")] for i in self._items}
        self._flying: set[Probe] = set()
        self._again: deque[Probe] = deque()
        self._queue = deque(self._planned())
        # Counted along, so that a probe costs the same whether the suite has 200 items or 2,000.
        self._missing = [sum(row[s] is None for row in self._full.values()) for s in range(rules.full_sweeps)]
        self._unsettled = sum(not _settled(row) for row in self._single.values()) if rules.single_sweep else 0
        self.decision: Judgement | None = judge(self.scores, rules, self.stage)

    def next_probes(self, limit: int) -> tuple[Probe, ...]:
        """Up to `limit` probes to send now; they are in flight until `record` hears of them.

        At batch 1 nothing else may be in flight: that sweep starts when the full ones are done, one probe at a time.
        """
        chosen: list[Probe] = []
        while self.decision is None and len(chosen) < limit:
            probe = self._again[0] if self._again else self._queue[0] if self._queue else None
            if probe is None or (probe.sweep == SINGLE and self._flying):
                break
            (self._again or self._queue).popleft()
            self._flying.add(probe)
            chosen.append(probe)
        return tuple(chosen)

    def record(self, probe: Probe, score: Score) -> None:
        """Hear what a probe gave. Without a score it is asked again, `unscored_retries` times at most."""
        if probe not in self._flying:
            raise ValueError(f"probe: {probe} is not in flight")
        self._flying.discard(probe)
        if score is Score.UNSCORED and probe.attempt < self.rules.unscored_retries:
            self._again.append(Probe(probe.item, probe.sweep, probe.attempt + 1))
            return
        if probe.sweep == SINGLE:
            due = self._record_single(probe.item, score)
        else:
            due = self._record_full(probe.item, probe.sweep, score)
        if due and self.decision is None:
            self.decision = judge(self.scores, self.rules, self.stage)

    @property
    def stage(self) -> Stage:
        """Whole sweeps done."""
        whole = next((s for s, missing in enumerate(self._missing) if missing), self.rules.full_sweeps)
        return Stage(full_sweeps=whole, single=self._unsettled == 0)

    @property
    def scores(self) -> tuple[ItemScores, ...]:
        """What is known of every item, in id order of the suite."""
        return tuple(
            ItemScores(item, tuple(self._full[item.id]), tuple(self._single[item.id])) for item in self._items.values()
        )

    def sweep_scores(self, sweep: int) -> dict[str, Score | None]:
        """One full sweep's scores by item."""
        return {item: row[sweep] for item, row in self._full.items()}

    @property
    def done(self) -> int:
        """Probes scored, of `total`."""
        return sum(len(row) - row.count(None) for row in self._full.values()) + sum(map(len, self._single.values()))

    @property
    def total(self) -> int:
        """Probes in all, as far as is known: every failure at batch 1 adds some."""
        repeats = sum(max(0, len(row) - 1) + (not _settled(row) and bool(row)) for row in self._single.values())
        return len(self._items) * (self.rules.full_sweeps + self.rules.single_sweep) + repeats

    @property
    def text(self) -> str:
        """`sweep 2 of 3 at batch 16: 131 of 210`."""
        stage, items = self.stage, len(self._items)
        if stage.full_sweeps < self.rules.full_sweeps:
            scored = items - [row[stage.full_sweeps] for row in self._full.values()].count(None)
            name = f"sweep {stage.full_sweeps + 1} of {self.rules.full_sweeps} at batch {self.rules.batch}"
            return f"{name}: {scored} of {items}"
        return f"sweep at batch 1: {sum(map(_settled, self._single.values()))} of {items}"

    def snapshot(self) -> GateRecord:
        """What to store; probes in flight are not in it and will be asked again."""
        return GateRecord(
            seed=self._seed,
            full={i: "".join(s.value if s else "." for s in row) for i, row in self._full.items() if any(row)},
            single={i: "".join(s.value for s in row) for i, row in self._single.items() if row},
        )

    def _planned(self) -> list[Probe]:
        plan: list[Probe] = []
        for sweep in range(self.rules.full_sweeps):
            plan += [Probe(i, sweep) for i in self._order(sweep) if self._full[i][sweep] is None]
        if not self.rules.single_sweep:
            return plan
        return plan + [Probe(i, SINGLE) for i in self._order(SINGLE) if not _settled(self._single[i])]

    def _order(self, sweep: int) -> list[str]:
        order = sorted(self._items)
        random.Random(f"{self._seed}/{sweep}").shuffle(order)  # noqa: S311 - an order, not a secret
        return order

    def _row(self, text: str) -> list[Score | None]:
        row = [None if c == "." else Score(c) for c in text[: self.rules.full_sweeps]]
        return row + [None] * (self.rules.full_sweeps - len(row))

    def _record_full(self, item: str, sweep: int, score: Score) -> bool:
        """Whether it is time to judge: at the end of a sweep, so that a Fail has whole figures."""
        before = self.stage
        self._full[item][sweep] = score
        self._missing[sweep] -= 1
        return self.stage != before

    def _record_single(self, item: str, score: Score) -> bool:
        """Whether it is time to judge: at each item lost, since asking one by one is slow, and at the end."""
        row = self._single[item]
        row.append(score)
        if not _settled(row):
            self._queue.append(Probe(item, SINGLE))
            return False
        self._unsettled -= 1
        return self._unsettled == 0 or row.count(Score.FAILED) >= FAILS_TO_LOSE


def _settled(row: Sequence[Score]) -> bool:
    """At batch 1: one right answer, two failures, the majority of three, or no score."""
    if not row:
        return False
    failed = row.count(Score.FAILED)
    return row[0] is Score.CORRECT or Score.UNSCORED in row or failed >= FAILS_TO_LOSE or len(row) >= SINGLE_ASKS
