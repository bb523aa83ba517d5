"""What the plan tells a cluster's users to do, as the owner of one machine reads it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from r1plus_contract.requests import Verb, format_command
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.progress import describe_rollback
from r1plus_edge.remedies import localize
from r1plus_edge.report import list_conditions
from support.plan.falls import controlled, fallen, rolled_back
from support.plan.world import World

FOLDER = DataFolder(Path("/srv/data"))
NEW_GATE = "`r1plus serve stop --data /srv/data; rm /srv/data/objects.json` and a new start"
OF_A_CLUSTER = re.compile(
    r"kubectl|https?://|NAMESPACE|`r1plus (?!serve|suite|engine)|replicas|chart|ConfigMap|namespace"
)


def alert_only() -> World:
    return fallen(accuracy={"onBreach": "Alert"})[0]


def roll_back() -> World:
    return rolled_back()[0]


def fail_control() -> World:
    world, _, _ = controlled()
    return world.control(Verdict.FAIL, lost=2)


def pause() -> World:
    world, _, _ = fallen()
    return world.change(rollout={"paused": True})


def pin() -> World:
    return fallen(rollout={"pinned": True})[0]


def change_answers() -> World:
    world, _, _ = fallen()
    return world.stand_all(WatchStanding.CHANGED, lost=("i0",))


def err() -> World:
    world, _, _ = fallen()
    return world.stand_all(WatchStanding.ERRORS)


STATES: dict[str, tuple[Callable[[], World], str]] = {
    "the accuracy dropped, and the spec wants alerts only": (
        alert_only,
        "`r1plus serve update` with the engine or file of credit-",
    ),
    "it was rolled back": (roll_back, f"Change the spec, or use {NEW_GATE} to gate"),
    "the rollback target fails as well": (fail_control, f"then {NEW_GATE} to try again"),
    "it is paused": (pause, "run `r1plus serve update -f FILE` without spec.rollout.paused to let the operator act"),
    "it is pinned": (pin, "run `r1plus serve update -f FILE` without spec.rollout.pinned to release it"),
    "it answers otherwise": (change_answers, f"see which items were lost, then {NEW_GATE} to accept"),
    "its engine errs": (err, "check /srv/data/logs/triton.log, lower the batch"),
}


@pytest.mark.parametrize(("state", "remedy"), STATES.values(), ids=STATES)
def test_every_remedy_is_one_of_this_machine(state: Callable[[], World], remedy: str) -> None:
    world = state()
    world.settle()
    plain = describe_rollback(world.status)
    shown = [*list_conditions(world.status["conditions"], FOLDER), localize(plain, FOLDER)]
    assert OF_A_CLUSTER.search(plain + str(world.status["conditions"])), "the plan names remedies of a cluster"
    assert not [text for text in shown if OF_A_CLUSTER.search(text)]
    assert any(remedy in text for text in shown), shown


TEXTS = {
    "a container's log": (
        "exits repeatedly; see `kubectl logs edge-1-x -c triton --previous`",
        "exits repeatedly; see /srv/data/logs/triton.log",
    ),
    "a runbook at the end": ("it fell; runbook: https://example.com/A.md", "it fell"),
    "nothing of a cluster": ("1 of 1 pods of revision edge-1 are ready", "1 of 1 pods of revision edge-1 are ready"),
    "a request": (f"run {format_command(Verb.ACK)} to allow it", f"run {NEW_GATE} to allow it"),
}


@pytest.mark.parametrize(("text", "localized"), TEXTS.values(), ids=TEXTS)
def test_a_message_keeps_all_but_its_remedy(text: str, localized: str) -> None:
    assert localize(text, FOLDER) == localized
