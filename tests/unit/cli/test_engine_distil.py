"""Which golden suites the data of `r1plus engine distill` is compared with."""

from pathlib import Path

import pytest

from r1plus_cli.engine_distil import load_compared_suites
from r1plus_cli.errors import CliError
from r1plus_operator.pins import SHIPPED_SUITES


def test_all_shipped_suites_are_compared() -> None:
    assert {suite.header.name for suite in load_compared_suites([])} == set(SHIPPED_SUITES)


def test_an_installation_without_shipped_suites_refuses_to_distil(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"no shipped suite is there .*; install r1plus into a virtual environment"):
        load_compared_suites([], tmp_path / "share")
