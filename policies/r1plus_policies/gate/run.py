"""The gate as a state machine: it takes scores, and says which probes come next and what it decided.

Called by the monitor's prober, which owns time and the network; nothing here waits or asks. The order of every sweep
comes from a seed. So a restarted prober rebuilds the run from its `GateRecord` and asks only what is missing.
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
    GateStage,
    ItemScores,
    Judgement,
    Rules,
    Score,
    judge_gate,
)

SINGLE: Final = -1
"""Number of the sweep at batch 1."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One item to ask now. `sweep` counts from 0; -1 is the sweep at batch 1."""

    item: str
    sweep: int
    attempt: int = 0
    """How often this probe returned without a score."""


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A stored run: per item a string of `Score` characters, `.` where a full sweep has not scored it."""

    seed: int
    full: dict[str, str] = field(default_factory=dict)
    single: dict[str, str] = field(default_factory=dict)


class GateRun:
    """One gate, from the first probe to the decision."""

    def __init__(self, items: Sequence[GateItem], rules: Rules, record: GateRecord) -> None:
        """Start, or continue from `record`. ValueError for scores of items that are not in the suite."""
        if not items:
            raise ValueError("items: a gate needs at least one")
        self.rules = rules
        self._seed = record.seed
        self._items = {item.id: item for item in items}
        if unknown_items := (record.full.keys() | record.single.keys()) - self._items.keys():
            raise ValueError(f"record: item {min(unknown_items)} is not in the suite")
        self._full: dict[str, list[Score | None]] = {i: self._parse_row(record.full.get(i, "")) for i in self._items}
        self._single: dict[str, list[Score]] = {i: [Score(c) for c in record.single.get(i, "")] for i in self._items}
        self._in_flight: set[Probe] = set()
        self._retries: deque[Probe] = deque()
        self._queue = deque(self._plan_probes())
        # Updated with each probe, so that its cost does not depend on the size of the suite.
        self._missing = [sum(row[s] is None for row in self._full.values()) for s in range(rules.full_sweeps)]
        self._unsettled_count = sum(not _is_settled(row) for row in self._single.values()) if rules.single_sweep else 0
        self.decision: Judgement | None = judge_gate(self.scores, rules, self.stage)

    def next_probes(self, limit: int) -> tuple[Probe, ...]:
        """Return up to `limit` probes to send now; they are in flight until `record` receives their scores.

        At batch 1 nothing else may be in flight: that sweep starts when the full ones are done, one probe at a time.
        """
        probes: list[Probe] = []
        while self.decision is None and len(probes) < limit:
            probe = self._retries[0] if self._retries else self._queue[0] if self._queue else None
            if probe is None or (probe.sweep == SINGLE and self._in_flight):
                break
            (self._retries or self._queue).popleft()
            self._in_flight.add(probe)
            probes.append(probe)
        return tuple(probes)

    def record(self, probe: Probe, score: Score) -> None:
        """Record the score of a probe. Without a score it is asked again, `unscored_retries` times at most."""
        if probe not in self._in_flight:
            raise ValueError(f"probe: {probe} is not in flight")
        self._in_flight.discard(probe)
        if score is Score.UNSCORED and probe.attempt < self.rules.unscored_retries:
            self._retries.append(Probe(probe.item, probe.sweep, probe.attempt + 1))
            return
        if probe.sweep == SINGLE:
            should_judge = self._record_single(probe.item, score)
        else:
            should_judge = self._record_full(probe.item, probe.sweep, score)
        if should_judge and self.decision is None:
            self.decision = judge_gate(self.scores, self.rules, self.stage)

    @property
    def stage(self) -> GateStage:
        """Whole sweeps done."""
        whole_sweeps = next(
            (s for s, missing_scores in enumerate(self._missing) if missing_scores), self.rules.full_sweeps
        )
        return GateStage(full_sweeps=whole_sweeps, single=self._unsettled_count == 0)

    @property
    def scores(self) -> tuple[ItemScores, ...]:
        """The scores of every item, in the order of the suite."""
        return tuple(
            ItemScores(item, tuple(self._full[item.id]), tuple(self._single[item.id])) for item in self._items.values()
        )

    def sweep_scores(self, sweep: int) -> dict[str, Score | None]:
        """Return one full sweep's scores by item."""
        return {item: row[sweep] for item, row in self._full.items()}

    @property
    def probe_count(self) -> int:
        """Number of probes scored, of `expected_probes`."""
        return sum(len(row) - row.count(None) for row in self._full.values()) + sum(map(len, self._single.values()))

    @property
    def probe_total(self) -> int:
        """Number of probes in all, as far as is known: every failure at batch 1 adds some."""
        repeats = sum(max(0, len(row) - 1) + (not _is_settled(row) and bool(row)) for row in self._single.values())
        return len(self._items) * (self.rules.full_sweeps + self.rules.single_sweep) + repeats

    @property
    def progress_text(self) -> str:
        """`sweep 2 of 3 at batch 16: 131 of 210`."""
        stage, items = self.stage, len(self._items)
        if stage.full_sweeps < self.rules.full_sweeps:
            scored_items = items - [row[stage.full_sweeps] for row in self._full.values()].count(None)
            name = f"sweep {stage.full_sweeps + 1} of {self.rules.full_sweeps} at batch {self.rules.batch}"
            return f"{name}: {scored_items} of {items}"
        return f"sweep at batch 1: {sum(map(_is_settled, self._single.values()))} of {items}"

    def snapshot(self) -> GateRecord:
        """Return what to store; probes in flight are not in it and will be asked again."""
        return GateRecord(
            seed=self._seed,
            full={i: "".join(s.value if s else "." for s in row) for i, row in self._full.items() if any(row)},
            single={i: "".join(s.value for s in row) for i, row in self._single.items() if row},
        )

    def _plan_probes(self) -> list[Probe]:
        plan: list[Probe] = []
        for sweep in range(self.rules.full_sweeps):
            plan += [Probe(i, sweep) for i in self._shuffle_items(sweep) if self._full[i][sweep] is None]
        if not self.rules.single_sweep:
            return plan
        return plan + [Probe(i, SINGLE) for i in self._shuffle_items(SINGLE) if not _is_settled(self._single[i])]

    def _shuffle_items(self, sweep: int) -> list[str]:
        order = sorted(self._items)
        random.Random(f"{self._seed}/{sweep}").shuffle(order)  # noqa: S311 - an order, not a secret
        return order

    def _parse_row(self, text: str) -> list[Score | None]:
        row = [None if c == "." else Score(c) for c in text[: self.rules.full_sweeps]]
        return row + [None] * (self.rules.full_sweeps - len(row))

    def _record_full(self, item: str, sweep: int, score: Score) -> bool:
        """Record a score; return whether to judge: at the end of a sweep, so that a Fail has whole figures."""
        before = self.stage
        self._full[item][sweep] = score
        self._missing[sweep] -= 1
        return self.stage != before

    def _record_single(self, item: str, score: Score) -> bool:
        """Record a score; return whether to judge: at each lost item, since this sweep is slow, and at the end."""
        row = self._single[item]
        row.append(score)
        if not _is_settled(row):
            self._queue.append(Probe(item, SINGLE))
            return False
        self._unsettled_count -= 1
        return self._unsettled_count == 0 or row.count(Score.FAILED) >= FAILS_TO_LOSE


def _is_settled(row: Sequence[Score]) -> bool:
    """Return whether an item is decided at batch 1: one right answer, two failures, two of three, or no score."""
    if not row:
        return False
    failures = row.count(Score.FAILED)
    return row[0] is Score.CORRECT or Score.UNSCORED in row or failures >= FAILS_TO_LOSE or len(row) >= SINGLE_ASKS
