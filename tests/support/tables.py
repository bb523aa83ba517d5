"""Tables of cases: a test runs once for each row, and the sentence before the row is the case's id."""

from collections.abc import Mapping

import pytest


def for_each(names: str, rows: Mapping[str, object]) -> pytest.MarkDecorator:
    """Run a test once for each row; `names` are its arguments, a row is their values, or the value of a single one."""
    return pytest.mark.parametrize(names, list(rows.values()), ids=list(rows))
