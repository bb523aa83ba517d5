"""Choosing an engine: what is taken, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.choice import Offer, Wish, choose, version_key

F16 = Offer("full-f16", "smollm2", "full", "1.0.0", "FP16", measured=True)
Q41 = Offer("full-q4-1", "smollm2", "full", "1.0.0", "Q4_1", measured=False)
NEWER = Offer("full-f16-b", "smollm2", "full", "1.10.0", "FP16", measured=True)
OLDER = Offer("full-f16-a", "smollm2", "full", "1.9.0", "FP16", measured=True)
LITE = Offer("lite-q8", "smollm2", "lite", "1.0.0", "Q8_0", measured=True)
OTHER = Offer("r1-full", "r1plus", "full", "9.0.0", "FP16", measured=True)


@pytest.mark.parametrize(
    ("offers", "wish", "taken"),
    [
        pytest.param([F16, LITE], Wish("full", "smollm2"), "full-f16", id="the tier decides"),
        pytest.param([F16, OTHER], Wish("full", "smollm2"), "full-f16", id="another family is not taken, however new"),
        pytest.param(
            [Q41, F16], Wish("full", "smollm2"), "full-f16", id="a measured reference comes before an inherited one"
        ),
        pytest.param(
            [Offer("z", "smollm2", "full", "2.0.0", "Q4_1", measured=False), F16],
            Wish("full", "smollm2"),
            "full-f16",
            id="measured comes first even if older",
        ),
        pytest.param([OLDER, NEWER], Wish("full", "smollm2"), "full-f16-b", id="1.10.0 is newer than 1.9.0"),
        pytest.param(
            [OLDER, NEWER], Wish("full", "smollm2", version="1.9.0"), "full-f16-a", id="a version asked for is taken"
        ),
        pytest.param(
            [F16, Q41], Wish("full", "smollm2", precision="Q4_1"), "full-q4-1", id="a precision asked for is taken"
        ),
        pytest.param([F16, Q41], Wish("edge", "smollm2"), None, id="no engine of the tier: none is taken"),
        pytest.param([], Wish("full", "smollm2"), None, id="an empty catalog offers none"),
    ],
)
def test_choice(offers: list[Offer], wish: Wish, taken: str | None) -> None:
    choice = choose(offers, wish)
    assert choice.engine == taken
    assert {passed.name for passed in choice.others} == {o.name for o in offers} - {taken}


def test_refusal_names_the_field_what_was_asked_and_what_there_is() -> None:
    why = choose([F16, Q41, LITE], Wish("full", "smollm2", precision="INT3")).why
    assert "spec.engine" in why
    assert "precision INT3" in why
    assert "full-f16 (smollm2 1.0.0 FP16)" in why
    assert "lite-q8" not in why


def test_each_engine_passed_over_has_its_own_reason() -> None:
    whys = {
        p.name: p.why
        for p in choose(
            [F16, Q41, LITE, OTHER, Offer("old", "smollm2", "full", "0.9.0", "FP16", True)], Wish("full", "smollm2")
        ).others
    }
    assert whys["lite-q8"] == "tier is lite, not full"
    assert whys["r1-full"] == "family is r1plus, not smollm2"
    assert "inherited" in whys["full-q4-1"]
    assert "spec.engine.precision: Q4_1" in whys["full-q4-1"]
    assert whys["old"] == "version 0.9.0 is older than 1.0.0"


@given(st.permutations([F16, Q41, LITE, OTHER, OLDER, NEWER]))
def test_the_order_of_the_catalog_does_not_matter(offers: list[Offer]) -> None:
    assert choose(offers, Wish("full", "smollm2")) == choose(
        sorted(offers, key=lambda o: o.name), Wish("full", "smollm2")
    )


def test_versions_compare_as_numbers() -> None:
    assert version_key("1.10.0") > version_key("1.9.9")
