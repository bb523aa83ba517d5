"""An engine that leaves tokens out of its attention: another revision, with a gate of its own, and another size."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.verdict import Verdict
from r1plus_model_repo.catalog.attention import Attention
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.config_pbtxt import parse_config
from support.plan.world import CATALOG, World, serve_world

SPARSE = {"sparse": {"threshold": 0.9}}
SPARSER = {"sparse": {"threshold": 0.8}}
EVICTING = {"eviction": {"startTokens": 32, "recentTokens": 128, "maxTokens": 1024}}


def catalog_with(attention: dict[str, Any] | None) -> tuple[Engine, ...]:
    """The shipped engines, that of the tier `full` with this attention."""
    value = None if attention is None else Attention.model_validate(attention)
    return tuple(
        replace(one, spec=one.spec.model_copy(update={"attention": value})) if one.name == "smollm2-full-f16" else one
        for one in CATALOG
    )


def turn_on(world: World, attention: dict[str, Any] | None) -> str:
    """The R1PlusEngine is edited; return the candidate that begins, if one does."""
    world.engines = catalog_with(attention)
    world.settle()
    return world.candidate()


@pytest.mark.parametrize("attention", [SPARSE, EVICTING, SPARSE | EVICTING], ids=["sparse", "evicting", "both"])
def test_a_revision_that_turns_it_on_has_a_gate_of_its_own(attention: dict[str, Any]) -> None:
    world = serve_world()
    dense = world.selected()
    candidate = turn_on(world, attention)
    assert candidate and candidate != dense
    world.expect(serves=dense, runs={dense: 1, candidate: 1}, Progressing="True RollingOut")
    assert world.revision(candidate).identity.digest() != world.revision(dense).identity.digest()
    world.start_pods(candidate, ready=True).settle()
    assert world.selected() == dense, "it must not serve on the verdict of the dense one"
    world.gate(candidate, Verdict.PASS)
    world.settle()
    assert world.selected() == candidate


def test_a_sparse_copy_in_the_catalog_serves_no_deployment_that_does_not_ask_for_it() -> None:
    world = serve_world()
    dense = world.selected()
    (sparse,) = (one for one in catalog_with(SPARSE) if one.spec.attention)
    world.engines = (*CATALOG, replace(sparse, name=f"{sparse.name}-sparse"))
    world.settle()
    world.expect(serves=dense, runs={dense: 1}, Progressing="False Complete")


def test_a_sparse_copy_with_a_family_of_its_own_serves_who_asks_for_it() -> None:
    world = serve_world()
    (sparse,) = (one for one in catalog_with(SPARSE) if one.spec.attention)
    spec = sparse.spec.model_copy(update={"family": "smollm2-sparse"})
    world.engines = (*CATALOG, Engine(f"{sparse.name}-sparse", spec))
    world.change(engine={"family": "smollm2-sparse"}).settle()
    assert world.revision(world.candidate()).engine == "smollm2-full-f16-sparse"


def test_a_failed_gate_leaves_the_dense_one_serving() -> None:
    world = serve_world()
    dense = world.selected()
    candidate = turn_on(world, SPARSE)
    world.start_pods(candidate, ready=True).gate(candidate, Verdict.FAIL)
    world.settle()
    assert world.selected() == dense


def test_each_setting_is_another_revision_and_without_it_the_name_is_the_former_one() -> None:
    world = serve_world()
    dense = world.selected()
    names = {turn_on(world, attention) for attention in (SPARSE, SPARSER, EVICTING)}
    assert len(names) == 3 and dense not in names
    world.engines = CATALOG
    world.settle()
    world.expect(serves=dense, runs={dense: 1}, Progressing="False Complete")


def test_the_pod_of_an_evicting_engine_is_sized_for_one_whole_prompt() -> None:
    world = serve_world()
    dense = world.revision(world.selected())
    evicting = world.revision(turn_on(world, EVICTING))
    sizes = [int(parse_config(one.config_pbtxt).parameters["kv_cache_bytes"].string_value) for one in (dense, evicting)]
    token = 23040
    assert sizes[0] == dense.identity.batch * dense.identity.context * token
    assert sizes[1] == (evicting.identity.context + (evicting.identity.batch - 1) * (1024 + 32)) * token
