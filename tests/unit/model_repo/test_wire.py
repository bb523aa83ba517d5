"""The API's models read what the API server admits, and nothing else: numbers, nulls, names of fields."""

from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from r1plus_model_repo.catalog.wire import WHOLE, ApiModel, JsonInteger, Number


class Shape(ApiModel):
    """A model with one of each."""

    max_size: Annotated[int, Field(ge=1, le=1024), WHOLE] = 8
    count: JsonInteger = 1
    share: Number = 0.5


READ: dict[str, tuple[dict[str, Any], Shape]] = {
    "an integer": ({"maxSize": 4}, Shape(maxSize=4)),
    "a float that is whole": ({"maxSize": 4.0}, Shape(maxSize=4)),
    "a float that is whole to go-openapi": ({"maxSize": 1000.0000001}, Shape(maxSize=1000)),
    "the largest": ({"maxSize": 1024.0}, Shape(maxSize=1024)),
    "null where there is a default": ({"maxSize": None, "share": None}, Shape()),
    "an integer for a number": ({"share": 1}, Shape(share=1.0)),
}


@pytest.mark.parametrize(("given", "read"), READ.values(), ids=READ)
def test_is_read(given: dict[str, Any], read: Shape) -> None:
    assert Shape.model_validate(given) == read


REFUSED: dict[str, dict[str, Any]] = {
    "a fraction": {"maxSize": 4.5},
    "a fraction that is not small enough": {"maxSize": 1000.00001},
    "a little more than the largest": {"maxSize": 1024.0000001},
    "a little less than the smallest": {"maxSize": 1 - 2**-53},
    "a word": {"maxSize": "4"},
    "a boolean": {"maxSize": True},
    "more than 64 bits": {"maxSize": 2**64},
    "a float beyond all integers": {"maxSize": 1e300},
    "no number at all": {"maxSize": float("nan")},
    "a float where a rule reads it": {"count": 4.0},
    "a boolean for a number": {"share": True},
    "a word for a number": {"share": "0.5"},
    "a field by its Python name": {"max_size": 4},
    "an unknown field that is null": {"colour": None},
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
def test_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Shape.model_validate(given)
