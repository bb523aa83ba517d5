"""The recipe of a distillation: limits of its values, and a key that covers all of them."""

import dataclasses
import math
from typing import Any

import pytest

from r1plus_model.errors import DistillationError
from r1plus_model.training.recipe import DistillationRecipe, check_recipe
from support.tables import for_each

GOOD = DistillationRecipe("t" * 64, "d" * 64, 3)
OTHERS: dict[str, Any] = {"precision": "bfloat16", "layers": None, "student": "s" * 64, "teacher": "x", "data": "x"}


def test_the_defaults_are_accepted() -> None:
    check_recipe(GOOD, teacher_layers=4, vocabulary=100)


@for_each("name", {field.name: field.name for field in dataclasses.fields(DistillationRecipe)})
def test_the_key_covers(name: str) -> None:
    value = OTHERS.get(name) if name in OTHERS else getattr(GOOD, name) + 1

    assert dataclasses.replace(GOOD, **{name: value}).key != GOOD.key
    assert dataclasses.replace(GOOD).key == GOOD.key


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "as many layers as the teacher": ({"layers": 4}, "layers: 4 is not from 1 to 3: .* its teacher, which has 4"),
    "no layers": ({"layers": 0}, "layers: 0 is not from 1 to 3"),
    "neither layers nor student": ({"layers": None}, "layers: give layers or student"),
    "layers and student": ({"student": "s"}, "layers: give layers or student"),
    "no steps": ({"steps": 0}, "steps: 0 is not from 1 to 1000000"),
    "no batch": ({"batch": 0}, "batch: 0 is not from 1 to 1024"),
    "one token": ({"length": 1}, "length: 1 is not from 8 to 8192"),
    "more tokens of the teacher than it has": ({"top": 101}, "top: 101 is not from 1 to 100: the vocabulary has 100"),
    "a temperature of 0": ({"temperature": 0.0}, "temperature: 0.0 is not from 0.1 to 100"),
    "a temperature that is no number": ({"temperature": math.nan}, "temperature: nan is not from 0.1 to 100"),
    "an infinite learning rate": ({"learning_rate": math.inf}, "learning_rate: inf is not from 1e-08 to 1"),
    "a share above 1": ({"hard_weight": 1.5}, "hard_weight: 1.5 is not from 0 to 1"),
    "a negative seed": ({"seed": -1}, "seed: -1 is not from 0 to"),
    "another precision": ({"precision": "int8"}, "precision: 'int8' is not one of float32, bfloat16"),
}


@for_each("values, message", BAD)
def test_a_recipe_is_refused_with(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DistillationError, match=message):
        check_recipe(dataclasses.replace(GOOD, **values), teacher_layers=4, vocabulary=100)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(DistillationError) as caught:
        check_recipe(dataclasses.replace(GOOD, steps=0, batch=0, temperature=0.0), teacher_layers=4, vocabulary=100)

    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["steps", "batch", "temperature"]
