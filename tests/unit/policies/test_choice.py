"""Choosing an engine: what is taken, and what is said of the others."""

from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.engine.selection import (
    LOWER,
    EngineCandidate,
    EngineRequest,
    Obstacle,
    ReferenceSource,
    SuiteScore,
    choose_engine,
    version_key,
)
from support.tables import for_each

F16 = EngineCandidate("full-f16", "smollm2", "full", "1.0.0", "FP16", ReferenceSource.MEASURED)
Q41 = EngineCandidate("full-q4-1", "smollm2", "full", "1.0.0", "Q4_1", ReferenceSource.INHERITED)
NEWER = EngineCandidate("full-f16-b", "smollm2", "full", "1.10.0", "FP16", ReferenceSource.MEASURED)
OLDER = EngineCandidate("full-f16-a", "smollm2", "full", "1.9.0", "FP16", ReferenceSource.MEASURED)
LITE = EngineCandidate("lite-q8", "smollm2", "lite", "1.0.0", "Q8_0", ReferenceSource.MEASURED)
SPARSE = EngineCandidate(
    "full-f16-sparse", "smollm2", "full", "1.0.0", "FP16", ReferenceSource.MEASURED, is_sparse=True
)
OTHER = EngineCandidate("r1-full", "r1plus", "full", "9.0.0", "FP16", ReferenceSource.MEASURED)


@for_each("offers, wish, taken", {
    "the tier decides": ([F16, LITE], EngineRequest("full", "smollm2"), "full-f16"),
    "another family is not taken, however new": ([F16, OTHER], EngineRequest("full", "smollm2"), "full-f16"),
    "a measured reference comes before an inherited one": ([Q41, F16], EngineRequest("full", "smollm2"), "full-f16"),
    "measured comes first even if older": (
        [EngineCandidate("z", "smollm2", "full", "2.0.0", "Q4_1", ReferenceSource.INHERITED), F16],
        EngineRequest("full", "smollm2"),
        "full-f16",
    ),
    "1.10.0 is newer than 1.9.0": ([OLDER, NEWER], EngineRequest("full", "smollm2"), "full-f16-b"),
    "a version asked for is taken": ([OLDER, NEWER], EngineRequest("full", "smollm2", version="1.9.0"), "full-f16-a"),
    "a precision asked for is taken": ([F16, Q41], EngineRequest("full", "smollm2", precision="Q4_1"), "full-q4-1"),
    "a sparse engine does not replace its dense twin, though it comes first by name": (
        [F16, SPARSE],
        EngineRequest("full", "smollm2"),
        "full-f16",
    ),
    "nor where version and precision are asked for": (
        [SPARSE, F16],
        EngineRequest("full", "smollm2", version="1.0.0", precision="FP16"),
        "full-f16",
    ),
    "a sparse engine without a twin is taken": ([SPARSE, Q41], EngineRequest("full", "smollm2"), "full-f16-sparse"),
    "no engine of the tier: none is taken": ([F16, Q41], EngineRequest("edge", "smollm2"), None),
    "an empty catalog offers none": ([], EngineRequest("full", "smollm2"), None),
})  # fmt: skip
def test_choice(offers: list[EngineCandidate], wish: EngineRequest, taken: str | None) -> None:
    choice = choose_engine(offers, wish)
    assert choice.engine == taken
    assert {passed.name for passed in choice.others} == {o.name for o in offers} - {taken}


def test_a_sparse_engine_does_not_stand_in_for_a_dense_twin_that_does_not_fit() -> None:
    choice = choose_engine(
        [F16, SPARSE],
        EngineRequest("full", "smollm2"),
        lambda offer: Obstacle("NoNodeFits", "too large") if offer is F16 else None,
    )
    assert (choice.engine, choice.why) == (None, "too large")
    (why,) = (one.why for one in choice.others if one.name == "full-f16-sparse")
    assert "full-f16 of the same family" in why and "select that by spec.engine.family" in why


def test_refusal_names_the_field_what_was_asked_and_what_there_is() -> None:
    why = choose_engine([F16, Q41, LITE], EngineRequest("full", "smollm2", precision="INT3")).why
    assert "spec.engine" in why
    assert "precision INT3" in why
    assert "full-f16 (smollm2 1.0.0 FP16)" in why
    assert "lite-q8" not in why


def test_each_engine_passed_over_has_its_own_reason() -> None:
    whys = {
        p.name: p.why
        for p in choose_engine(
            [
                F16,
                Q41,
                LITE,
                OTHER,
                EngineCandidate("old", "smollm2", "full", "0.9.0", "FP16", ReferenceSource.MEASURED),
            ],
            EngineRequest("full", "smollm2"),
        ).others
    }
    assert whys["lite-q8"] == "tier is lite, not full"
    assert whys["r1-full"] == "family is r1plus, not smollm2"
    assert "inherited" in whys["full-q4-1"]
    assert "spec.engine.precision: Q4_1" in whys["full-q4-1"]
    assert whys["old"] == "version 0.9.0 is older than 1.0.0"


@given(st.permutations([F16, Q41, LITE, OTHER, OLDER, NEWER]))
def test_the_order_of_the_catalog_does_not_matter(offers: list[EngineCandidate]) -> None:
    assert choose_engine(offers, EngineRequest("full", "smollm2")) == choose_engine(
        sorted(offers, key=lambda o: o.name), EngineRequest("full", "smollm2")
    )


def test_versions_compare_as_numbers() -> None:
    assert version_key("1.10.0") > version_key("1.9.9")


def scored(name: str, version: str, correct: int, suite: str = "full-v1") -> EngineCandidate:
    return EngineCandidate(
        name, "smollm2", "full", version, "FP16", ReferenceSource.MEASURED, SuiteScore(suite, correct, 200)
    )


SERVING = SuiteScore("full-v1", 198, 200)
GOOD, EQUAL, WORSE = scored("a-good", "1.0.0", 198), scored("b-equal", "1.1.0", 198), scored("c-worse", "1.2.0", 197)
ELSEWHERE = scored("d-elsewhere", "1.3.0", 100, "lite-v1")
CLAIMED = EngineCandidate("e-claimed", "smollm2", "full", "9.0.0", "FP16", ReferenceSource.CLAIMED)


@for_each("offers, wish, taken", {
    "a newer engine that was measured lower is passed over": ([GOOD, WORSE], {}, "a-good"),
    "one that reaches as much is taken": ([GOOD, EQUAL], {}, "b-equal"),
    "lower is taken where that is allowed": ([GOOD, WORSE], {"allow_lower": True}, "c-worse"),
    "what another suite measured cannot be compared": ([GOOD, ELSEWHERE], {}, "d-elsewhere"),
    "where nothing serves there is nothing to lower": ([GOOD, WORSE], {"serving_score": None}, "c-worse"),
    "alone it is refused": ([WORSE], {}, None),
    "asked for by its version it is refused": ([GOOD, WORSE], {"version": "1.2.0"}, None),
    "nothing unmeasured takes the place of a refused one": ([WORSE, CLAIMED], {}, None),
    "measured comes before claimed, however new": ([CLAIMED, GOOD], {}, "a-good"),
    "inherited comes before claimed": ([CLAIMED, Q41], {}, "full-q4-1"),
    "a claim is taken where there is nothing else": ([CLAIMED], {}, "e-claimed"),
})  # fmt: skip
def test_a_measured_reference_is_not_lowered(
    offers: list[EngineCandidate], wish: dict[str, object], taken: str | None
) -> None:
    asked = EngineRequest("full", "smollm2", **{"serving_score": SERVING, **wish})  # type: ignore[arg-type]
    choice = choose_engine(offers, asked)
    assert choice.engine == taken
    assert (choice.obstacle is not None) == (taken is None)


def test_a_refused_lowering_names_both_figures_the_difference_and_the_way_round() -> None:
    choice = choose_engine([WORSE], EngineRequest("full", "smollm2", serving_score=SERVING))
    assert choice.obstacle.reason == LOWER
    for word in ("spec.accuracy.allowLower", "197 of 200", "198 of 200", "0.50 points below", "full-v1"):
        assert word in choice.why


def barring(*names: str):
    """Hardware that these engines find no place on."""
    return lambda offer: Obstacle("NoNodeFits", f"no room for {offer.name}") if offer.name in names else None


@for_each("offers, barred, taken", {
    "the newest that fits, where the newest does not": ([OLDER, NEWER], ["full-f16-b"], "full-f16-a"),
    "none fits": ([OLDER, NEWER], ["full-f16-b", "full-f16-a"], None),
    "an inherited one does not take the place of a measured one": ([F16, Q41], ["full-f16"], None),
    "among unmeasured ones the next is taken": ([Q41, CLAIMED], ["full-q4-1"], "e-claimed"),
})  # fmt: skip
def test_what_has_no_place_is_passed_over(offers: list[EngineCandidate], barred: list[str], taken: str | None) -> None:
    choice = choose_engine(offers, EngineRequest("full", "smollm2"), barring(*barred))
    assert choice.engine == taken
    whys = {passed.name: passed.why for passed in choice.others}
    assert set(whys) == {o.name for o in offers} - {taken}
    for name in barred:
        assert whys[name] == f"no room for {name}"
    if taken is None:
        assert choice.obstacle == Obstacle("NoNodeFits", f"no room for {barred[0]}")


def test_hardware_is_asked_about_nothing_that_the_wish_does_not_admit() -> None:
    asked: list[str] = []

    def note(offer: EngineCandidate) -> None:
        asked.append(offer.name)

    choose_engine([F16, LITE, OTHER], EngineRequest("full", "smollm2"), note)
    assert asked == ["full-f16"]
