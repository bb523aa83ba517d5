"""What the plan tells a cluster's users to do, as the owner of one machine reads it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.gateway import DataReason, DataState
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.remedies import CLUSTER, LARGEST_NODE, Remedy, append_remedy, use_wording, word
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.progress import describe_rollback
from r1plus_edge.report import describe_data, list_conditions
from r1plus_edge.wording import build_wording
from r1plus_gateway.store.database.database import DATABASE_FILE, lock_folder
from r1plus_gateway.store.database.opening import StoreConfig, open_data
from r1plus_gateway.store.errors import CorruptError, FullError, SchemaNewerError, StoreError
from r1plus_gateway.store.keys.adopted_root import open_roots
from r1plus_gateway.store.keys.tenant_keys import create_ring, decode_ring, make_half, open_ring, read_halves
from r1plus_gateway.store.upkeep.retention_clock import RetentionTime
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from support.plan.builders import SHIPPED, on_cpu
from support.plan.falls import controlled, fallen, rolled_back
from support.plan.world import CONFIG, FULL, NODE, World

FOLDER = DataFolder(Path("/srv/data"))
WORDING = build_wording(FOLDER)
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


def lack_runtime() -> World:
    vllm = on_cpu(SHIPPED["r1plus-full-fp16-vllm"])
    return World({"tier": "full", "engine": {"family": "r1plus"}}, engines=(vllm,))


def ask_for_training() -> World:
    edge = SHIPPED["smollm2-edge-q4-1"]
    document = edge.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["build"] = {"distill": {"memory": "4Gi", "storage": "4Gi"}}
    engine = Engine(edge.name, EngineSpec.model_validate(document))
    return World({"tier": "edge", "engine": {"family": "smollm2"}}, engines=(engine,))


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
    "its engine is for vLLM on CPU": (lack_runtime, "serves openvino: choose an engine of one of these backends"),
    "its engine is to be trained": (
        ask_for_training,
        "train it here with `r1plus engine distill`, then make them with",
    ),
    "its engine errs": (err, "check /srv/data/logs/triton.log, lower the batch"),
}


@pytest.mark.parametrize(("state", "remedy"), STATES.values(), ids=STATES)
def test_every_remedy_is_one_of_this_machine(state: Callable[[], World], remedy: str) -> None:
    world = state()
    world.settle()
    plain = describe_rollback(world.status) + str(world.status["conditions"])
    assert OF_A_CLUSTER.search(plain), "a cluster's plan names remedies of a cluster"
    world.config = replace(world.config, wording=WORDING)
    world.settle()
    shown = [*list_conditions(world.status["conditions"]), describe_rollback(world.status)]
    assert not [text for text in shown if OF_A_CLUSTER.search(text)]
    assert any(remedy in text for text in shown), shown


def test_an_outage_is_among_the_conditions_that_are_shown() -> None:
    """Its QualityVerified is Unknown: nothing says that answers are wrong."""
    world = err()
    world.settle()
    shown = list_conditions(world.status["conditions"])
    assert any(text.startswith("QualityVerified: ServerErrors: ") for text in shown)


def test_every_front_has_words_for_every_remedy() -> None:
    assert set(WORDING) == set(CLUSTER) == {*Remedy, LARGEST_NODE}


VALUES = {
    "name": "credit",
    "namespace": "team",
    "pod": "edge-1-x",
    "container": "triton",
    "target": "edge-1",
    "url": "https://example.com/A.md",
    "backend": "vllm",
    "setting": "images.gpu",
    "label": "r1plus.ai/suite",
    "problem": "It is damaged",
    "halves": "half-1",
    "hours": "24",
}


@pytest.mark.parametrize("remedy", CLUSTER)
def test_the_words_of_a_machine_name_nothing_of_a_cluster(remedy: str) -> None:
    with use_wording(WORDING):
        assert not OF_A_CLUSTER.search(word(remedy, **VALUES))
    assert word(remedy, **VALUES) == CLUSTER[remedy].format(**VALUES), "and those of a cluster are for others"


WORDS = {
    "a container's log": (Remedy.READ_LOG_BEFORE, "it exits; /srv/data/logs/triton.log"),
    "a runbook": (Remedy.READ_RUNBOOK, "it exits"),
    "no room for an engine": (Remedy.ADD_NODE, "it exits"),
    "a request": (Remedy.ACKNOWLEDGE, f"it exits; {NEW_GATE}"),
}


@pytest.mark.parametrize(("remedy", "text"), WORDS.values(), ids=WORDS)
def test_a_text_has_a_remedy_only_if_its_front_has_words_for_it(remedy: Remedy, text: str) -> None:
    with use_wording(WORDING):
        assert append_remedy("it exits", remedy, **VALUES) == text


def test_a_folder_with_braces_in_its_name_is_named_as_it_is() -> None:
    with use_wording(build_wording(DataFolder(Path("/srv/{data}")))):
        assert word(Remedy.READ_LOG, container="triton") == "/srv/{data}/logs/triton.log"


def test_too_little_memory_is_that_of_this_machine() -> None:
    world = World(FULL, nodes=(replace(NODE, memory_bytes=2**20),), config=replace(CONFIG, wording=WORDING))
    world.settle()
    (text,) = [one for one in list_conditions(world.status["conditions"]) if one.startswith("CapacityFits")]
    assert "; this machine, without" in text and "node" not in text


DATA: dict[str, tuple[StoreError, str]] = {
    "a full disk": (
        FullError("tenant.db: disk full", Remedy.ENLARGE_VOLUME),
        "tenant.db: disk full. Make room on the disk of /srv/data/store",
    ),
    "newer data": (
        SchemaNewerError("they are newer", Remedy.RUN_NEWER_GATEWAY),
        "Serve with the newer r1plus, or put back /srv/data from a copy that is older than its first start",
    ),
    "a damaged file": (
        CorruptError("It is damaged", Remedy.RESTORE_FILE_AND_RING),
        "It is damaged. Stop it, and put back /srv/data from",
    ),
}


@pytest.mark.parametrize(("error", "remedy"), DATA.values(), ids=DATA)
def test_a_problem_of_the_data_names_a_remedy_of_this_machine(error: StoreError, remedy: str) -> None:
    (shown,) = describe_data(error.describe(), FOLDER)
    assert remedy in shown and not OF_A_CLUSTER.search(shown)


def test_a_clock_that_is_far_ahead_is_confirmed_on_this_machine() -> None:
    hold = RetentionTime(0.0, 0.0).find_hold(9e8)
    assert hold is not None
    state = DataState(DataReason.CLOCK_AHEAD, str(hold), True, hold.remedy, hold.values)
    (shown,) = describe_data(state, FOLDER)
    assert "Then, or if it is right, run `r1plus serve confirm-time --data /srv/data`. Without that" in shown
    assert not OF_A_CLUSTER.search(shown) and "`r1plus tenant confirm-time`. Without that" in state.message


def test_a_state_that_crossed_a_socket_is_worded_as_before_with_what_follows() -> None:
    state = CorruptError("It is damaged", Remedy.RESTORE_BACKUP).describe("The gateway runs on", can_serve=True)
    assert loads(DataState, dumps(state)) == state
    assert state.message == "It is damaged. Restore the tenant's last backup. The gateway runs on"
    (shown,) = describe_data(loads(DataState, dumps(state)), FOLDER)
    assert shown.endswith("and begin with new data. The gateway runs on")


def test_a_state_without_a_remedy_or_with_one_of_a_later_release_is_shown_as_it_is() -> None:
    for remedy in ("", "FromALaterRelease"):
        (shown,) = describe_data(DataState(DataReason.UNAVAILABLE, "It is away; wait", remedy=remedy), FOLDER)
        assert shown == "DataReady: DatabaseUnavailable: It is away; wait"


def test_an_error_that_is_raised_again_keeps_its_remedy() -> None:
    error = CorruptError("It is damaged", Remedy.RESTORE_BACKUP)
    assert error.renew().describe() == error.describe()


@pytest.mark.parametrize("halves", [(), ("half-1",), ("other",)], ids=["lost", "no half", "another"])
def test_a_half_that_is_lost_or_wrong_is_put_back_from_a_copy(tmp_path: Path, halves: tuple[str, ...]) -> None:
    for name in halves:
        (tmp_path / "half-1").write_text(make_half() if name == "other" else "x")
    with pytest.raises(StoreError) as raised:
        open_ring(create_ring("uid", {"half-1": b"h" * 32}), "uid", read_halves(tmp_path))
    (shown,) = describe_data(raised.value.describe(), FOLDER)
    assert "Put back /srv/data/secret from a copy of the data folder" in shown
    assert not OF_A_CLUSTER.search(shown) and "Secret r1plus" not in shown


def lose_the_ring(store: Path) -> None:
    (store / "half-1").write_text(make_half())
    (store / DATABASE_FILE).touch()
    open_data(StoreConfig("uid", store, store))


def use_twice(store: Path) -> None:
    with lock_folder(store), lock_folder(store):
        pass


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a ring that is lost": (lose_the_ring, "Put it back from a copy of the data folder"),
    "a ring that is damaged": (lambda store: decode_ring("{", f"{store}/ring"), "Put it back from a copy of the"),
    "another tenant's ring": (
        lambda store: open_ring(create_ring("uid", {"half-1": b"h" * 32}), "other", {"half-1": b"h" * 32}),
        "Put back /srv/data/tenant.json, /srv/data/secret and /srv/data/store from one copy",
    ),
    "an adopted root that does not open": (
        lambda store: open_roots([b"r" * 32], "x", "uid", "table meta"),
        "Stop it, and put back /srv/data from a copy",
    ),
    "a second gateway": (use_twice, "look for another process that uses /srv/data/store, and end it"),
    "a store that is gone": (lambda store: lock_folder(store / "gone"), "Stop it, and put back /srv/data from a copy"),
}


@pytest.mark.parametrize(("cause", "remedy"), FAULTS.values(), ids=FAULTS)
def test_data_that_cannot_be_opened_name_a_remedy_of_this_machine(
    tmp_path: Path, cause: Callable[[Path], object], remedy: str
) -> None:
    with pytest.raises(StoreError) as raised:
        cause(tmp_path)
    (shown,) = describe_data(raised.value.describe(), FOLDER)
    assert remedy in shown
    assert not re.search(r"volume|database of|\bpod\b|PostgreSQL|operator", shown), shown


def test_data_that_can_be_used_or_are_being_opened_are_no_problem() -> None:
    for state in (None, DataState(DataReason.READY, "can be read"), DataState(DataReason.STARTING, "wait")):
        assert describe_data(state, FOLDER) == ()
