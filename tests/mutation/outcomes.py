"""What a run of mutants found: counts, what lives, and what an earlier run killed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mutation.runner import Outcome, Status

KILLED = (Status.KILLED, Status.TIMEOUT)
ALIVE = (Status.SURVIVED, Status.UNCOVERED)


def summarise(outcomes: Sequence[Outcome], seed: int, seconds: float) -> dict[str, Any]:
    """Return the figures of a run. `killed` includes `timeout`; `score` is the killed share of all mutants."""
    counts = Counter(outcome.status for outcome in outcomes)
    killed = sum(counts[status] for status in KILLED)
    return {
        "mutants": len(outcomes),
        "killed": killed,
        **{status.value: counts[status] for status in Status if status != Status.KILLED},
        "score": round(killed / max(1, len(outcomes)), 4),
        "seed": seed,
        "seconds": round(seconds, 1),
        "processor_seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
    }


def describe(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome of one mutant as it is written."""
    mutant = outcome.mutant
    return {
        "id": mutant.id,
        "file": mutant.file,
        "line": mutant.line,
        "status": outcome.status,
        "killer": outcome.killer,
        "tests": outcome.tests,
        "seconds": round(outcome.seconds, 2),
        "diff": mutant.diff,
    }


def print_survivors(outcomes: Sequence[Outcome]) -> None:
    """Print what no test has noticed, with its diff."""
    for outcome in outcomes:
        if outcome.status not in KILLED:
            mutant = outcome.mutant
            late = f", {outcome.killer} is late without it, too" if outcome.status == Status.UNCLEAR else ""
            print(
                f"{mutant.file}:{mutant.line}: {outcome.status} {mutant.operator}, {outcome.tests} tests cover it{late}"
            )
            print(mutant.diff)


def compare_runs(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Print and return the mutants that the earlier run killed and this one does not."""
    statuses = {outcome["id"]: outcome["status"] for outcome in now["outcomes"]}
    killed = [outcome for outcome in before["outcomes"] if outcome["status"] in KILLED]
    common = [outcome for outcome in killed if outcome["id"] in statuses]
    lost = [outcome for outcome in common if statuses[outcome["id"]] in ALIVE]
    unclear = [outcome["id"] for outcome in common if statuses[outcome["id"]] == Status.UNCLEAR]
    for outcome in lost:
        print(f"Killed before by {outcome['killer'] or 'a timeout'}, {statuses[outcome['id']]} now: {outcome['id']}")
    for one in unclear:
        print(f"Killed before, unclear now, since a test is late without it, too: {one}")
    print(f"{len(common)} of the {len(killed)} mutants killed before were tested again; {len(lost)} of them live now")
    if killed and not common:
        raise SystemExit("Nothing to compare: the other run has another seed or other sources.")
    return [outcome["id"] for outcome in lost]
